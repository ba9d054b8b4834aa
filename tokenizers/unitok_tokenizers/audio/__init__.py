"""Recordings: opened, decoded, brought to one channel and rate, turned into features, and where in them somebody speaks."""
