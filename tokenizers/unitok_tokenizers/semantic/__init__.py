"""Semantic units: frames to clusters."""
