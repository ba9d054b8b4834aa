"""What a tokenizer says of the stream of ids that it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from unitok_tokenizers.errors import InputError

KINDS = ("text", "phones", "units", "codes", "prosody")
STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
TAKEN_NAME = re.compile(r"control|lang|gen|out|u|a\d+")
"""Stream names whose tokens could read like others'."""


@dataclass(frozen=True)
class StreamInfo:
    """What a tokenizer says of the stream it makes; saved with shards and models and compared."""

    name: str
    """Name of the stream: text, units, codes, or that of a further tokenizer."""
    kind: str
    """text, units, codes, phones or prosody."""
    fingerprint: str
    """Identifies the tokenizer's content."""
    frame_rate: Fraction | None
    """Frames a second; None for text."""
    cardinalities: tuple[int, ...]
    """Size of each codebook; one entry for text and units."""
    deduplicated: bool = False
    """Runs of equal units are stored once, with durations beside them."""
    views: str | None = None
    """Name of the codec whose first codebook this stream is; it then owns no ids."""

    def __post_init__(self) -> None:
        problem = None
        if not STREAM_NAME.fullmatch(self.name) or TAKEN_NAME.fullmatch(self.name):
            problem = f"the name must be letters, digits, - or _, and not match {TAKEN_NAME.pattern}"
        elif self.kind not in KINDS:
            problem = f"kind {self.kind!r} is none of {', '.join(KINDS)}"
        elif not self.cardinalities or min(self.cardinalities) < 1:
            problem = f"cardinalities {self.cardinalities} must be one positive number per codebook"
        elif self.kind != "codes" and len(self.cardinalities) != 1:
            problem = f"{self.kind} have one codebook, not {len(self.cardinalities)}"
        elif self.views is not None and self.kind != "units":
            problem = f"only units can view a codec, not {self.kind}"
        if problem:
            raise InputError(f"stream {self.name!r}: {problem}; correct its description")

    def to_json(self) -> dict[str, Any]:
        """The description with the frame rate as an exact fraction such as "50" or "75/2"."""
        rate = None if self.frame_rate is None else str(self.frame_rate)
        return {**self.__dict__, "frame_rate": rate, "cardinalities": list(self.cardinalities)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> StreamInfo:
        """The inverse of `to_json`."""
        rate = value["frame_rate"]
        return StreamInfo(
            **{
                **value,
                "frame_rate": None if rate is None else Fraction(rate),
                "cardinalities": tuple(value["cardinalities"]),
            }
        )
