"""What several tests share: tiny models, shards and recordings, commands and processes, old files."""
