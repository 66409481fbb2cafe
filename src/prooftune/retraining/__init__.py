"""Retraining: which signal starts one, what it is made from, and what it goes on from."""
