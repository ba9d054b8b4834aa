"""Llamas that write codes as ids among their own: rows behind the text are codes, frame by frame in one stream.

The decoder is a stock one and stays it; what is particular is which rows are which codes. Families say it by the names
of added tokens. V ids, N rows that a host has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from unitok.huggingface.codebooks.base import Brought, HostFolder, Leaving
from unitok.huggingface.weights import load_core, to_hf_state
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.held_rows import Held
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.huggingface import HostText

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
"""Weights whose rows are ids."""


def numbered(tokens: Mapping[str, int], pattern: re.Pattern[str]) -> dict[int, int]:
    """Number in a token's name → its id, of the tokens that match."""
    found = ((pattern.fullmatch(name), index) for name, index in tokens.items())
    return {int(match[1]): index for match, index in found if match is not None}


def first_id(ids: Mapping[int, int], numbers: range, folder: HostFolder, what: str) -> int:
    """Id of the first of numbered tokens; InputError where one is missing or out of its place."""
    first = ids[numbers.start]
    for number in numbers:
        if ids.get(number) != first + number - numbers.start:
            raise InputError(
                f"{folder.root}: token number {number} of {what} is id {ids.get(number)}, not "
                f"{first + number - numbers.start}; codes must follow one another, give the tokenizer of the model"
            )
    return first


def read_flat(folder: HostFolder, stream: StreamInfo, first: int) -> Brought:
    """A folder whose rows from id `first` on are the codes of a stream, codebook after codebook."""
    decoder = load_core(folder.root)
    behind = decoder.config.vocab_size - first - sum(stream.cardinalities)
    if behind < 0:
        raise InputError(
            f"{folder.root}: codes reach to id {decoder.config.vocab_size - behind - 1}, the model has "
            f"{decoder.config.vocab_size} rows; give the tokenizer that belongs to the model"
        )
    text = HostText.from_folder(folder.root, text_ids=first)
    held: tuple[Held, ...] = (first - text.size, (stream, None), behind)
    return Brought(decoder=decoder, text=text, held=tuple(one for one in held if one))


def flat_state(leaving: Leaving) -> dict[str, Tensor]:
    """The stock weights, without rows that joined."""
    biased = any(getattr(block, "out_bias", None) is not None for block in leaving.decoder.blocks)
    biased = biased or bool(leaving.config.get("attention_bias"))
    state = to_hf_state(leaving.decoder, output_bias=biased)
    return {name: value[: leaving.rows] if name in TABLES else value for name, value in state.items()}
