"""Training of the small networks: encoders, codecs, vocoders, and the tokenizers made of them."""
