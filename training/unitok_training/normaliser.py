"""The text normaliser that every error rate and BLEU here is computed after."""

from unitok_tokenizers.normaliser import NAME, STATED, basic, compared, words

__all__ = ["NAME", "STATED", "basic", "compared", "words"]
