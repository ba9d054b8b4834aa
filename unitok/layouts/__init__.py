"""Layouts of codebooks: how a frame's codes enter the decoder, and how they are predicted."""
