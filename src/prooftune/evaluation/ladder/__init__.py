"""The prompt-only ladder: what the base model can do when it is only asked well."""
