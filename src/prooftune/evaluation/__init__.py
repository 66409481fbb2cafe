"""Evaluation: prompt-only baselines and the candidate on one sealed holdout, and the gate that decides between them."""
