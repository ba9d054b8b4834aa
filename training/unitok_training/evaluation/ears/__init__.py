"""Ears that have never heard the corpus: recognizer, speaker encoder and quality model with weights of other people."""
