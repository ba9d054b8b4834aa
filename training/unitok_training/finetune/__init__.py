"""Training on lists: correction, rescoring, minimum word error, experts."""
