"""Stock files, both ways.

Weights and tokenizers in the files of stock transformers.
"""
