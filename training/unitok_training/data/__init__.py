"""From shards and manifests to packs: which example comes when, what it says, and how it is laid out."""
