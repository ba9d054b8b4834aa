"""The demo: corpus, tokenizers, shards, training, evaluation and report in one command."""
