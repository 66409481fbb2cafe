"""What to do next: whether more examples would help, and which ones."""
