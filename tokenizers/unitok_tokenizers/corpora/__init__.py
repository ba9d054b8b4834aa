"""Corpora that need no download: spoken phrases (espeak-ng) and the synthetic toy corpus."""
