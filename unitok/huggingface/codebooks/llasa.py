"""LLaSA: a Llama that writes the codes of XCodec 2, one id a frame of 320 samples at 16 kHz."""

from __future__ import annotations

import re
from fractions import Fraction

from torch import Tensor

from unitok.huggingface.codebooks.base import Brought, HostFolder, Leaving
from unitok.huggingface.codebooks.flat import first_id, flat_state, numbered, read_flat
from unitok_tokenizers.grammar.streams import StreamInfo

TOKEN = re.compile(r"<\|s_(\d+)\|>")
FIRST = "<|s_0|>"


class Llasa:
    """Folders whose tokenizers have `<|s_0|>`; as many codes as there are such tokens."""

    name = "llasa"

    def claims(self, folder: HostFolder) -> bool:
        """As `Family`."""
        return FIRST in folder.tokens

    def read(self, folder: HostFolder) -> Brought:
        """As `Family`."""
        ids = numbered(folder.tokens, TOKEN)
        stream = StreamInfo("xcodec2", "codes", "xcodec2-16khz", Fraction(16000, 320), (len(ids),))
        return read_flat(folder, stream, first_id(ids, range(len(ids)), folder, "<|s_…|>"))

    def state(self, leaving: Leaving) -> dict[str, Tensor]:
        """As `Family`."""
        return flat_state(leaving)
