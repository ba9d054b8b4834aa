"""The unit tokenizers by the names that folders give them. A new one is a file and a line here."""

from __future__ import annotations

from unitok_tokenizers.registry import Registry

KMEANS = "unitok_tokenizers.semantic.kmeans_units:UnitTokenizer"
UNIT_TOKENIZERS = Registry(
    "unit tokenizer",
    {name: KMEANS for name in ("kmeans", "kmeans_invariant", "kmeans_bpe", "kmeans_invariant_bpe")},
)
"""`class` in `config.json` → class."""
