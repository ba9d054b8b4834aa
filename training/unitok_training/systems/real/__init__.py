"""Real parts together: a language model, a speech encoder and recordings that others have made."""
