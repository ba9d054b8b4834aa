"""Systems that write the codes of a codec, each in the layout of codebooks that it needs."""
