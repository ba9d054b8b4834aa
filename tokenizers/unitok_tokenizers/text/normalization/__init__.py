"""Texts as people write them, as they are said: sentences, numbers, abbreviations, and what a model can say."""
