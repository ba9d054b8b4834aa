"""How the codes of frames lie on the positions of a sequence.

A position holds one id of the vocabulary (or as many, one after another, as there are inline codebooks) and a row of
slots beside it: a code each, which no row of the core embeds. The flat layout has every codebook inline and no slots.

F frames, Q codebooks, P positions, I inline codebooks, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo

Role = Literal["predicted", "forced", "input-only", "refined"]
"""predicted: by the layout at every step. forced: read and never predicted, as what others say. input-only: read where
it is there, without loss. refined: neither read nor predicted step by step, but by a second pass over the span."""

ABSENT = -1
"""In a slot or an inline place that holds no code: before a delay has passed, behind the last frame, in a remainder."""


@dataclass(frozen=True, kw_only=True)
class SlotSpec:
    """One column of codes beside the ids."""

    stream: str
    """Stream whose codes it holds."""
    codebook: int
    """Codebook of that stream."""
    size: int
    """Codes of that codebook."""
    role: Role = "predicted"
    """Who fills it; see `Role`."""
    delay: int = 0
    """Positions by which its code stands behind its frame."""
    frame: int = 0
    """Which frame of the position's group it holds; 0 where a position holds one."""
    group: str = "codes"
    """Loss group: losses are averaged within it, by weight."""
    weight: float = 1.0
    """Weight of its loss within the group."""

    def __post_init__(self) -> None:
        counts = (self.size, self.delay, self.codebook, self.frame)
        whole = all(isinstance(one, int) and not isinstance(one, bool) for one in counts)
        if not whole or self.size < 1 or min(counts) < 0 or not self.weight >= 0:
            raise InputError(f"slot {self!r} is none: sizes are positive, delays and weights 0 or more")


@dataclass(frozen=True, kw_only=True)
class FramePattern:
    """What a layout makes of a stream of codes; saved with the vocabulary and the model and compared."""

    layout: str
    """Name of the layout."""
    stream: str
    """The stream of codes."""
    cardinalities: tuple[int, ...]
    """Size of each of its Q codebooks."""
    inline: tuple[int, ...]
    """Codebooks whose ids stand in the sequence at each frame, in this order; their rows are the core's."""
    slots: tuple[SlotSpec, ...] = ()
    """The columns beside them."""
    frames: int = 1
    """Frames of one position."""
    coarse: int = 0
    """With two passes, codebooks of the first: all frames of these, `<fine>`, all frames of the others. 0 for one."""

    def __post_init__(self) -> None:
        books = len(self.cardinalities)
        held = {*self.inline, *(slot.codebook for slot in self.slots)}
        if held != set(range(books)):
            raise InputError(f"layout {self.layout!r} holds codebooks {sorted(held)}: it must hold all {books}")
        for slot in self.slots:
            own = slot.stream == self.stream
            if slot.frame >= self.frames or (own and slot.size != self.cardinalities[slot.codebook]):
                raise InputError(f"layout {self.layout!r} of stream {self.stream!r} has no place for {slot!r}")
        places = [(slot.stream, slot.codebook, slot.frame) for slot in self.slots]
        places += [(self.stream, book, 0) for book in self.inline]
        if len(set(places)) < len(places):
            raise InputError(f"layout {self.layout!r} of stream {self.stream!r} holds a codebook of a frame twice")
        if self.frames < 1 or not 0 <= self.coarse < books or (self.coarse and self.slots):
            raise InputError(f"layout {self.layout!r}: {self.frames} frames a position, {self.coarse} coarse codebooks")
        if self.frames > 1 and (len(self.inline) > 1 or self.flush):
            raise InputError(f"layout {self.layout!r}: groups of frames have one inline codebook at most and no delays")

    @property
    def flush(self) -> int:
        """Positions behind the last frame's own that hold what was delayed."""
        return max((slot.delay for slot in self.slots), default=0)

    @property
    def plain(self) -> bool:
        """Whether it is the flat layout: ids alone, frame by frame."""
        return not self.slots and not self.coarse and self.inline == tuple(range(len(self.cardinalities)))

    def check(self, stream: StreamInfo) -> None:
        """InputError where it is not of this stream."""
        own = (self.stream, self.cardinalities)
        if stream.kind != "codes" or (stream.name, stream.cardinalities) != own:
            raise InputError(
                f"layout {self.layout!r} is of stream {self.stream!r} with codebooks {self.cardinalities}, not of "
                f"{stream.name!r} ({stream.kind}) with {stream.cardinalities}; make it for this stream"
            )

    def positions(self, frames: int) -> int:
        """Positions that so many frames take, those that flush delays included; one id or group of inline ids each."""
        return 0 if not frames else -(-frames // self.frames) + self.flush

    def lay(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes (F, Q) → inline codes (P, I) and slots (P, S), int64, `ABSENT` where there is none.

        The order of two passes (`coarse`) is the grammar's business: here they are inline codes frame by frame.

        Raises:
            InputError: codes of another shape or outside their codebooks.
        """
        codes = np.asarray(codes, dtype=np.int64)
        books = len(self.cardinalities)
        if codes.ndim != 2 or codes.shape[1] != books:
            raise InputError(f"codes of stream {self.stream!r} have shape {codes.shape}, not (F, {books})")
        wrong = (codes < 0) | (codes >= np.asarray(self.cardinalities))
        if wrong.any():
            row, book = np.argwhere(wrong)[0]
            raise InputError(
                f"stream {self.stream!r} codebook {book}: code {codes[row, book]} is outside "
                f"0…{self.cardinalities[book] - 1}; tokenize again with this model's tokenizer"
            )
        places = np.arange(self.positions(len(codes)))
        inline = np.stack([self._at(codes, places, book) for book in self.inline], 1) if self.inline else None
        columns = [self._at(codes, places - one.delay, one.codebook, one.frame) for one in self.slots]
        slots = np.stack(columns, 1) if columns else None
        empty = np.zeros((len(places), 0), np.int64)
        return (empty if inline is None else inline), (empty if slots is None else slots)

    def _at(self, codes: np.ndarray, place: np.ndarray, book: int, frame: int = 0) -> np.ndarray:
        """(P,) codes of a codebook at positions' groups of frames."""
        wanted = place * self.frames + frame
        inside = (place >= 0) & (wanted < len(codes))
        found = codes[np.where(inside, wanted, 0), book] if len(codes) else np.zeros(len(place), np.int64)
        return np.where(inside, found, ABSENT)

    def gather(self, inline: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The inverse of `lay`: inline codes (P, I) and slots (P, S) → codes (F, Q) of the frames that are complete.

        Frames behind the last complete one, as where a limit cut a delay short, are left out; what a second pass fills
        may be absent.
        """
        places = max(len(inline), len(slots))
        count = max(places - self.flush, 0) * self.frames
        codes = np.full((count, len(self.cardinalities)), ABSENT, np.int64)
        for column, book in enumerate(self.inline):
            codes[:: self.frames, book] = inline[: len(codes[:: self.frames]), column]
        for column, one in enumerate(self.slots):
            own = codes[one.frame :: self.frames, one.codebook]
            own[:] = slots[one.delay : one.delay + len(own), column]
        refined = np.zeros((self.frames, len(self.cardinalities)), np.bool_)
        for one in self.slots:
            refined[one.frame, one.codebook] |= one.role == "refined"
        whole = ((codes != ABSENT) | np.tile(refined, (count // self.frames, 1))).all(1)
        return codes[: int(np.argmin(whole)) if not whole.all() else len(codes)]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.__dict__, "slots": [dict(slot.__dict__) for slot in self.slots]}

    @staticmethod
    def from_json(value: dict[str, Any]) -> FramePattern:
        """The inverse of `to_json`; InputError where it is none."""
        try:
            slots = tuple(SlotSpec(**slot) for slot in value["slots"])
            tuples = {name: tuple(value[name]) for name in ("cardinalities", "inline")}
            return FramePattern(**{**value, **tuples, "slots": slots})
        except (KeyError, TypeError) as error:
            raise InputError(f"no layout of codes ({error!r}); take it from the model again") from error
