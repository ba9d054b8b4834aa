"""How something is said, as tokens."""
