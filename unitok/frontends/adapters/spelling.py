"""Spelling: a small network with a CTC head over letters of its own, then the letters' rows beside what it heard.

A language model from elsewhere learns late where in the vectors which word is: it has to find the alignment by itself.
Here the CTC loss (Graves et al. 2006) finds it in minutes, behind a frozen encoder, and the vectors begin as what the
model knows already: the embedding rows of the letters, weighted by their probabilities. What it learns beyond is added
by a projection of the frames.

B batch, T frames, D width of the frames, H inner width, N vectors, C width of the decoder, V letters and the blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.frontends.adapters.base import BLANK, Adapter, AdapterSizes, check_positive, shorter, stack
from unitok_tokenizers.encoders.base import Frames
from unitok_tokenizers.encoders.networks.attention import inside
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import basic

HALF = 2
"""Frames of the encoder per frame of the head: letters need less than fifty a second, and more than a vector each."""


@dataclass(frozen=True, kw_only=True)
class SpellingConfig:
    """Options of `spelling`."""

    stride: int = 4
    """Frames per vector; a multiple of two, since the head reads half of the frames."""
    hidden: int = 256
    """H, width of the network with the head."""
    kernel: int = 5
    """Frames that each of its two convolutions looks at; odd."""
    dropout: float = 0.1
    """Share of its activations dropped in training."""
    alphabet: str = ""
    """Letters that the head tells apart; those of the training's texts where empty."""

    def __post_init__(self) -> None:
        for name in ("stride", "hidden", "kernel"):
            check_positive(name, getattr(self, name))
        if self.stride % HALF:
            raise InputError(f"adapter.stride is {self.stride}: give an even number, the head reads half of the frames")
        if self.kernel % 2 == 0:
            raise InputError(f"adapter.kernel is {self.kernel}: give an odd number, it looks equally far to both sides")
        check_small(self.alphabet, "alphabet")
        if len(set(self.alphabet)) < len(self.alphabet):
            raise InputError(f"adapter.alphabet is {self.alphabet!r}: give every letter once")


def check_small(alphabet: Sequence[str], name: str) -> None:
    """InputError where something can never be found in a text, which is compared without capitals."""
    if wrong := next((one for one in alphabet if one != one.lower()), None):
        raise InputError(
            f"adapter.{name} holds {wrong!r}: texts are compared without capitals, write {wrong.lower()!r}"
        )


def places_in(text: str, alphabet: Sequence[str]) -> list[int]:
    """Places of what a text is made of, the longest first from its beginning; what begins none is passed over."""
    places = {one: place for place, one in enumerate(alphabet)}
    longest, found, at = max(map(len, alphabet), default=0), list[int](), 0
    while at < len(text):
        size = next((size for size in range(longest, 0, -1) if text[at : at + size] in places), 0)
        if size:
            found.append(places[text[at : at + size]])
        at += max(size, 1)
    return found


class SpellingAdapter(Adapter):
    """⌈⌈T / 2⌉ / (stride / 2)⌉ vectors."""

    name, spells = "spelling", True
    Config: ClassVar[type[Any]] = SpellingConfig
    reading = ("norm", "down", "look", "head")

    def __init__(self, config: Any, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        hidden, pad = config.hidden, config.kernel // 2
        self.norm = nn.LayerNorm(sizes.frames)
        self.down = nn.Conv1d(sizes.frames, hidden, config.kernel, stride=HALF, padding=pad)
        self.look = nn.Conv1d(hidden, hidden, config.kernel, padding=pad)
        self.head = nn.Linear(hidden, len(self.alphabet) + 1)
        self.rows = nn.Embedding(len(self.alphabet) + 1, sizes.vectors)
        nn.init.normal_(self.rows.weight, std=0.02)
        self.heard = nn.Linear(hidden * self.group, sizes.vectors)
        nn.init.zeros_(self.heard.weight)  # the vectors begin as letters, and nothing else
        nn.init.zeros_(self.heard.bias)

    @property
    def alphabet(self) -> Sequence[str]:
        """The letters."""
        return str(self.config.alphabet)

    def spelled(self, text: str) -> list[int]:
        """Places of its letters, without case and punctuation; others are passed over."""
        return places_in(basic(text), self.alphabet)

    @property
    def group(self) -> int:
        """Frames of the head per vector."""
        return int(self.config.stride) // HALF

    @torch.no_grad()
    def initialize_letters(self, rows: Tensor) -> None:
        """Begin with these rows (V − 1, C) for the letters, and with nothing for the blank."""
        self.rows.weight[BLANK] = 0.0
        self.rows.weight[1:] = rows

    def length(self, frames: int) -> int:
        """⌈⌈frames / 2⌉ / (stride / 2)⌉."""
        half = -(-frames // HALF)
        return -(-half // self.group)

    def read(self, frames: Frames) -> Frames:
        """Frames (B, T, D) → (B, ⌈T / 2⌉, H) with the log-probabilities of the letters; a row alone as in a batch."""
        x = frames.hidden * inside(frames.lengths, frames.hidden.shape[1])[..., None]
        lengths = shorter(frames.lengths, HALF)
        x = self.norm(x.to(self.norm.weight.dtype)) * inside(frames.lengths, x.shape[1])[..., None]
        x = self._drop(functional.gelu(self.down(x.transpose(1, 2))))
        x = x * inside(lengths, x.shape[2])[:, None]
        x = x + self._drop(functional.gelu(self.look(x)))  # (B, H, ⌈T / 2⌉)
        x = x.transpose(1, 2)
        return Frames(x, lengths, ctc=self.head(x).float().log_softmax(-1))

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.config.dropout, self.training)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`; frames are those of `read`."""
        assert ctc is not None
        spelled = ctc.exp().to(frames.dtype) @ self.rows.weight.to(frames.dtype)
        spelled = spelled * inside(lengths, ctc.shape[1])[..., None]
        together = stack(spelled, self.group).unflatten(-1, (self.group, -1)).sum(-2)
        return together + self.heard(stack(frames, self.group)), shorter(lengths, self.group)
