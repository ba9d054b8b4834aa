"""Manifests and the tables of other tools, and token shards: how they are written and read."""
