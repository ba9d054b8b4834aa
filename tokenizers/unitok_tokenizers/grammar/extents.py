"""Runs of consecutive ids, and what one id is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitok_tokenizers.grammar.controls import CONTROLS


@dataclass(frozen=True)
class Extent:
    """Consecutive ids for consecutive local ids."""

    block: str
    """text, control, language, phones, units, codes or prosody."""
    tokenizer: str
    """Name of the stream that the local ids belong to; empty for control and language."""
    codebook: int
    """Codebook of a stream with several, else 0."""
    local_start: int
    """First local id."""
    start: int
    """First global id."""
    size: int
    """Number of ids."""


@dataclass(frozen=True)
class Token:
    """What one id means."""

    block: str
    tokenizer: str
    codebook: int
    local: int
    name: str
    """As in `Vocabulary.names`; a role's name for an id that plays one."""


def name_of(extent: Extent, local: int, languages: Sequence[str]) -> str:
    """Name of an id of an extent; text pieces, which the text tokenizer names, have none."""
    match extent.block:
        case "control":
            return CONTROLS[local] if local < len(CONTROLS) else f"<control:{local}>"
        case "language":
            return f"<lang:{languages[local]}>" if local < len(languages) else f"<lang:{local}>"
        case "text":
            return ""
        case "units":
            return f"<u:{local}>" if extent.tokenizer == "units" else f"<{extent.tokenizer}.u:{local}>"
        case "codes":
            prefix = "" if extent.tokenizer == "codes" else f"{extent.tokenizer}."
            return f"<{prefix}a{extent.codebook}:{local}>"
        case other:
            return f"<{extent.tokenizer or other}:{local}>"
