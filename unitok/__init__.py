"""unitok: one decoder that reads and writes text and speech."""
