"""Folders of language models that speak in codes, both ways: one file a family."""
