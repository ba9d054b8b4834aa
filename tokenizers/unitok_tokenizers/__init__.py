"""Floor 1: vocabulary, grammar, text, semantic and acoustic tokenizers, token shards, corpora, audio and files."""
