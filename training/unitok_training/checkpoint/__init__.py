"""Checkpoints: what a run keeps, how it is written beside training, and how it is found again."""
