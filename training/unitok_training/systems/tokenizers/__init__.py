"""Tokenizers and codecs of the literature: what their tokens keep of words and voices, beside what they cost."""
