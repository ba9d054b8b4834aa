"""The decoder: its blocks, attention, cache, and what can be put into it."""
