"""How a model is asked: here or behind an API, in batches, with what prompts share run once; and how likely it holds a text."""
