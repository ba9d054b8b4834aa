"""Layouts of codebooks.

How a frame's codes enter the decoder, and how they are predicted.
"""
