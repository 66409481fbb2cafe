"""What is looked at while a champion is in use, and what a look may say: a signal."""
