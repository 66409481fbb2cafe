"""From a source to sealed splits: reading, shapes, personal data, duplicates, splitting, formats, tokens."""
