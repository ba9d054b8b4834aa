"""Floor 4: training, recipes and evaluation."""
