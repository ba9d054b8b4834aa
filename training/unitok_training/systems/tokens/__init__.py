"""Systems that read and write tokens of their own."""
