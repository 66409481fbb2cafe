"""Base models: where they come from (demo package, folder, hub) and how they are loaded safely."""
