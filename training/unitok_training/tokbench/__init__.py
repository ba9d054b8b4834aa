"""The benchmark of tokenizers: a table of what their tokens say, cost and lose."""
