"""The codecs by the names that folders give them. A new one is a file and a line here."""

from __future__ import annotations

from pathlib import Path

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.registry import Registry

CODECS = Registry(
    "codec",
    {
        "mel_rvq": "unitok_tokenizers.acoustic.mel_rvq:MelCodec",
        "encodec": "unitok_tokenizers.acoustic.encodec:EncodecCodec",
        "speechtokenizer": "unitok_tokenizers.acoustic.speechtokenizer:SpeechTokenizerCodec",
        "mimi": "unitok_tokenizers.acoustic.mimi:MimiCodec",
        "dac": "unitok_tokenizers.acoustic.dac:DacCodec",
        "dmel": "unitok_tokenizers.acoustic.dmel:DmelCodec",
    },
)
"""Name in `config.json` and on the command line → class; its `open(path, choice)` reads the published files."""


def load_codec(folder: Path | str) -> AcousticTokenizer:
    """Read any registered codec."""
    codec: AcousticTokenizer = CODECS.load(folder)
    return codec
