"""From what a user gives to an answer: requests, streams of chunks, texts and recordings of any length."""
