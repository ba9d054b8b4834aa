"""Weights and tokenizers in the files of stock transformers, both ways."""
