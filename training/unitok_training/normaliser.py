"""The text normaliser that every error rate and BLEU here is computed after."""

from unitok_tokenizers.normaliser import NAME, basic

__all__ = ["NAME", "basic"]
