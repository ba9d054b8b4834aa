"""How something is said, as tokens: pitch, style, and how long each unit lasts."""
