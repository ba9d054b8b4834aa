"""The benchmark of tokenizers: what their tokens say, cost and lose, without a decoder."""
