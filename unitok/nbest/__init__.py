"""N-best lists: collected, rescored, corrected."""
