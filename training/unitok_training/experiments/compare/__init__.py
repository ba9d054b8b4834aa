"""The comparison of tokens, latent vectors and cascades on one decoder, corpus and budget."""
