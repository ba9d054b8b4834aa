"""The grammar: streams, vocabulary, tasks, and how a sequence and its ids are two forms of one thing."""
