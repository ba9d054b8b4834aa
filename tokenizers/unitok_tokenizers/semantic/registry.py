"""The unit tokenizers by the names that folders give them. A new one is a file and a line here."""

from __future__ import annotations

from unitok_tokenizers.registry import Registry

KMEANS = "unitok_tokenizers.semantic.kmeans_units:UnitTokenizer"
UNIT_TOKENIZERS = Registry(
    "unit tokenizer",
    {
        f"kmeans{scaled}{invariant}{bpe}": KMEANS
        for scaled in ("", "_scaled")
        for invariant in ("", "_invariant")
        for bpe in ("", "_bpe")
    },
)
"""`class` in `config.json` → class."""
