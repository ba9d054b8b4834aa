"""Floor 4: every training loop, mixtures, packing, recipes and evaluation."""
