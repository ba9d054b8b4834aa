"""What a run starts from and the model that it becomes: at its end, at any of its checkpoints, and while it trains."""
