"""Text and ids: the tokenizers of text, how texts are said, and how they are compared."""
