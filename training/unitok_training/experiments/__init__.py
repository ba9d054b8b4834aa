"""Runs of many stages: the demo, the comparison of the three ways in, and studies."""
