"""Training loops: steps, optimizers, several processes, figures on the way."""
