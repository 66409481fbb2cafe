"""What a run takes before it is started: tokens, seconds and USD."""
