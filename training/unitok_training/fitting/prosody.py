"""Tokenizers of prosody, chosen by the names of their streams and fitted to recordings without labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.base import ContourTokenizer, ProsodySource, ProsodyTokenizer
from unitok_tokenizers.prosody.contour import contour
from unitok_tokenizers.prosody.registry import PROSODY_TOKENIZERS


@dataclass(frozen=True, kw_only=True)
class ChosenProsody:
    """A stream of prosody that is wanted."""

    name: str
    """Entry in `PROSODY_TOKENIZERS`."""
    most: int | None = None
    """Ids of it, at most; None takes what is usual."""

    @staticmethod
    def read(text: str) -> ChosenProsody:
        """`NAME` or `NAME=IDS`; InputError for a stream that there is not, or no number of ids."""
        name, equals, size = text.partition("=")
        if name not in PROSODY_TOKENIZERS:
            raise InputError(f"--prosody {text}: no such stream; choose {', '.join(PROSODY_TOKENIZERS)}")
        if equals and not (size.isdecimal() and int(size) > 1):
            raise InputError(f"--prosody {text}: {size!r} is no number of ids; write {name}=32")
        return ChosenProsody(name=name, most=int(size) if equals else None)

    @property
    def tokenizer(self) -> type[ProsodyTokenizer]:
        """The class that makes it."""
        found: type[ProsodyTokenizer] = PROSODY_TOKENIZERS[self.name]
        return found


def check_chosen(chosen: Sequence[ChosenProsody]) -> None:
    """InputError for a stream that is named twice."""
    names = [one.name for one in chosen]
    if len(set(names)) < len(names):
        raise InputError(f"--prosody {' '.join(names)} names a stream twice; give each once")


def fit_prosody(
    chosen: Sequence[ChosenProsody], recordings: Iterable[np.ndarray], units: StreamInfo | None, *, seed: int
) -> list[ProsodyTokenizer]:
    """Fit tokenizers in the order in which they are chosen.

    Args:
        chosen: which.
        recordings: (S,) float32 each, at the rate of `ContourTokenizer.sample_rate`; looked at once, where a tokenizer
            reads any.
        units: the units beside them; None where there are none.
        seed: of every draw.

    Raises:
        InputError: a recording without a voice is all there is, or durations without units.
    """
    reads = any(issubclass(one.tokenizer, ContourTokenizer) for one in chosen)
    contours = [contour(samples) for samples in recordings] if reads else []
    source = ProsodySource(contours=contours, units=units, seed=seed)
    return [one.tokenizer.fit(source, one.most or one.tokenizer.most) for one in chosen]
