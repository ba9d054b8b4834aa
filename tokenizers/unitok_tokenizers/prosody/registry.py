"""The tokenizers of prosody by the names of their streams. A new one is a file and a line here."""

from __future__ import annotations

from unitok_tokenizers.registry import Registry

PROSODY_TOKENIZERS = Registry(
    "tokenizer of prosody",
    {
        "pitch": "unitok_tokenizers.prosody.pitch:PitchTokenizer",
        "style": "unitok_tokenizers.prosody.style:StyleTokenizer",
        "durations": "unitok_tokenizers.prosody.durations:DurationTokenizer",
    },
)
"""`class` in `config.json` → class."""
