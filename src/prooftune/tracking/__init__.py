"""Where results go besides the object store."""
