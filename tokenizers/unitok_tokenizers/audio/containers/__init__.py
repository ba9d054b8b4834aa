"""What the bytes of a recording say: where its samples are, whether all are there, and what the decoder is shown."""
