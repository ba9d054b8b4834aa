"""What a language model of speech knows."""
