"""Adapters: from the frames of a speech encoder to vectors that stand in for embedding rows. One file each."""
