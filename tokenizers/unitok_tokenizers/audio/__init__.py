"""Recordings: opened, decoded, at one channel and rate, as features, and where in them somebody speaks."""
