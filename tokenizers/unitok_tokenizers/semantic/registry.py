"""The unit tokenizers by the names that folders give them. A new one is a file and a line here."""

from __future__ import annotations

from unitok_tokenizers.registry import Registry

UNIT_TOKENIZERS = Registry("unit tokenizer", {"kmeans": "unitok_tokenizers.semantic.kmeans_units:UnitTokenizer"})
"""`class` in `config.json` → class."""
