"""Subwords: a small network with a CTC head over subwords, and a vector for each that it hears.

Behind a language model from elsewhere this learns within some ten updates what letters, or vectors at an even pace, do
not in hundreds: the vectors are few, stand where text would, and begin as rows of the model's own pieces, weighted by
their probabilities, so that the answer begins as a copy of what is heard. CTC compression (Gaido et al. 2021) and rows
of the best path (Tsunoo et al. 2024) joined, with a head of the adapter's own behind an encoder that does not move.

B batch, T frames, H inner width, N vectors, C width of the decoder, V subwords and the blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.frontends.adapters.base import BLANK, at_least_one, check_positive, compact
from unitok.frontends.adapters.frame_averaging import average_runs
from unitok.frontends.adapters.spelling import HALF, SpellingAdapter, check_small, places_in
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import basic


@dataclass(frozen=True, kw_only=True)
class SubwordsConfig:
    """Options of `subwords`."""

    hidden: int = 256
    """H, width of the network with the head."""
    kernel: int = 5
    """Frames that each of its two convolutions looks at; odd."""
    dropout: float = 0.1
    """Share of its activations dropped in training."""
    count: int = 400
    """Most subwords of several letters that are made of the training's texts."""
    subwords: tuple[str, ...] = ()
    """What the head tells apart, those that begin a word with a space before them; of the training's texts where
    empty."""

    def __post_init__(self) -> None:
        for name in ("hidden", "kernel", "count"):
            check_positive(name, getattr(self, name))
        if self.kernel % 2 == 0:
            raise InputError(f"adapter.kernel is {self.kernel}: give an odd number, it looks equally far to both sides")
        object.__setattr__(self, "subwords", tuple(self.subwords))  # a list where it comes from a file
        check_small(self.subwords, "subwords")
        if "" in self.subwords or len(set(self.subwords)) < len(self.subwords):
            raise InputError(f"adapter.subwords holds {len(self.subwords)}: give every subword once, and none empty")


class SubwordsAdapter(SpellingAdapter):
    """One vector per subword of the head's best path; of an all-blank recording one, the mean of all."""

    name, Config, by_content = "subwords", SubwordsConfig, True

    @property
    def alphabet(self) -> Sequence[str]:
        """The subwords."""
        found: tuple[str, ...] = self.config.subwords
        return found

    def spelled(self, text: str) -> list[int]:
        """Places of its subwords, without case and punctuation; every word has a space before it."""
        said = basic(text)
        return places_in(f" {said}", self.alphabet) if said else []

    @property
    def group(self) -> int:
        """A frame of the head is looked at alone."""
        return 1

    def length(self, frames: int) -> int:
        """At most every second frame."""
        return -(-frames // HALF)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`; frames are those of `read`."""
        assert ctc is not None
        rows = ctc.exp().to(frames.dtype) @ self.rows.weight.to(frames.dtype)  # (B, T, C)
        means, labels, runs = average_runs(torch.cat([rows, frames], -1), ctc.argmax(-1), lengths)
        chosen, sizes = compact(means, at_least_one(labels != BLANK, torch.zeros_like(means[..., 0]), runs))
        said, heard = chosen.split([rows.shape[-1], frames.shape[-1]], -1)
        return said + self.heard(heard), sizes
