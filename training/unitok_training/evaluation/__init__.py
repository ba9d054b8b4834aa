"""Scores of a model: by task, by language, by ears that never heard the corpus."""
