"""Training on our own hardware: tokens and loss mask, supervised fine-tuning, checkpoints that survive a kill."""
