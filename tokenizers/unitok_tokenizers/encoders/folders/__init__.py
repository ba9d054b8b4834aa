"""Folders of other projects, read into the stock classes of transformers."""
