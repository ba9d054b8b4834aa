"""Tools of the repository itself: what it looks like from outside, and long trials of it."""
