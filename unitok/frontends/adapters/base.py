"""What an adapter is, and the pieces that several share.

B batch, T frames, D width of the frames, N vectors, C width of the decoder, V labels of the CTC head, blank included.
A new adapter is one file and one line in `registry.ADAPTERS`; `tests/test_frontends_adapters.py` then tests it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from unitok_tokenizers.encoders.base import Frames
from unitok_tokenizers.encoders.networks.attention import inside
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.float32_buffers import Float32Buffers

BLANK = 0
"""Label of a CTC head that says nothing; label i + 1 is text piece i, or letter i of an adapter's own head."""


@dataclass(frozen=True, kw_only=True)
class AdapterSizes:
    """What an adapter stands between."""

    frames: int
    """D, width of the encoder's frames."""
    vectors: int
    """C, width of the decoder."""
    labels: int = 0
    """V, labels of the encoder's CTC head; 0 where it has none."""


class Adapter(Float32Buffers):
    """Frames → vectors. A subclass says `name`, `Config`, `length` and `adapt`; one with a CTC head of its own, `read`.

    Vectors behind a row's end are zero, and a row gives the same alone as in a batch. Where `rms` is not 0, every
    vector is scaled to that root mean square: that of the text's embedding rows, so that both are equally loud.
    """

    name: ClassVar[str]
    """Entry in `registry.ADAPTERS`."""
    Config: ClassVar[type[Any]]
    """Dataclass of its options."""
    by_content: ClassVar[bool] = False
    """How many vectors there are depends on what was said; `length` is then the most."""
    needs_labels: ClassVar[bool] = False
    """It reads the encoder's CTC head."""
    spells: ClassVar[bool] = False
    """It has a CTC head of its own, over an `alphabet` of letters or of subwords."""
    reading: ClassVar[tuple[str, ...]] = ()
    """The modules that `read` is made of, where it spells."""

    def __init__(self, config: Any, sizes: AdapterSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        self.register_buffer("rms", torch.zeros(()))
        self.rms: Tensor
        if self.needs_labels and not sizes.labels:
            raise InputError(
                f"the adapter {self.name!r} needs an encoder with a CTC head: take encoder.kind=conformer or "
                "transformer, with encoder.ctc=true"
            )

    def length(self, frames: int) -> int:
        """Vectors of so many frames (≥ 1); the most of them where `by_content`."""
        raise NotImplementedError

    @property
    def alphabet(self) -> Sequence[str]:
        """What its own head tells apart, in the order of the labels behind the blank; empty without one."""
        return ()

    def spelled(self, text: str) -> list[int]:
        """Places in the alphabet of what a text says, where it spells."""
        raise NotImplementedError

    def read(self, frames: Frames) -> Frames:
        """What it makes vectors of: the encoder's frames, or others, with log-probabilities of its own head."""
        return frames

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """What was read as vectors, before scaling; what stands behind the rows' ends does not matter."""
        raise NotImplementedError

    def initialize(self, embedding: Tensor) -> None:
        """Called once with the decoder's embedding (V', C) before training; most adapters have no use for it."""

    def initialize_letters(self, rows: Tensor) -> None:
        """Called once with the embedding rows (V, C) of what stands in `alphabet`, where it spells."""

    def match_scale(self, embedding: Tensor) -> None:
        """Scale every vector to the root mean square of the rows of an embedding (V', C) from now on."""
        self.rms.copy_(embedding.detach().float().pow(2).mean().sqrt())

    def forward(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """frames (B, T, D), lengths (B,), ctc (B, T, V) log-probabilities → vectors (B, N, C), lengths (B,)."""
        return self.to_vectors(self.read(Frames(frames, lengths, ctc=ctc)))

    def to_vectors(self, read: Frames) -> tuple[Tensor, Tensor]:
        """What `read` gave → vectors (B, N, C), lengths (B,)."""
        frames, lengths, ctc = read.hidden, read.lengths, read.ctc
        if lengths.device.type == "cpu":  # a GPU would have to be waited for
            assert int(lengths.min()) > 0, "every recording has a frame"
        own = next((value.dtype for value in self.parameters()), frames.dtype)
        if own in (torch.bfloat16, torch.float16):  # an adapter in half precision behind an encoder that is not
            frames = frames.to(own)
        frames = frames * inside(lengths, frames.shape[1])[..., None]
        vectors, sizes = self.adapt(frames, lengths, ctc)
        return self.scaled(vectors) * inside(sizes, vectors.shape[1])[..., None], sizes

    def scaled(self, vectors: Tensor) -> Tensor:
        """Vectors (…, C) as loud as `rms` says."""
        wide = vectors.float()
        loud = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-8) * self.rms
        return torch.where(self.rms > 0, loud, wide).to(vectors.dtype)

    def to_json(self) -> dict[str, Any]:
        """What `registry.adapter_from_json` reads."""
        return {"class": self.name, "config": asdict(self.config), "sizes": asdict(self.sizes)}


def check_positive(name: str, value: float) -> None:
    """InputError where an option is below 1."""
    if value < 1:
        raise InputError(f"adapter.{name} is {value}: it must be 1 or more")


def check_not_negative(name: str, value: float) -> None:
    """InputError where an option is below 0."""
    if value < 0:
        raise InputError(f"adapter.{name} is {value}: it must be 0 or more")


def check_heads(width: int, heads: int, what: str) -> None:
    """InputError where rotary positions do not go into the heads of a width."""
    if width % (2 * heads):
        raise InputError(f"{what} is {width}: it must be a multiple of twice adapter.heads ({heads})")


def stack(frames: Tensor, count: int) -> Tensor:
    """(B, T, D) → (B, ⌈T / count⌉, count · D): each `count` frames side by side, the last ones filled with zeros."""
    missing = -frames.shape[1] % count
    return functional.pad(frames, (0, 0, 0, missing)).unflatten(1, (-1, count)).flatten(2)


def shorter(lengths: Tensor, stride: int) -> Tensor:
    """⌈lengths / stride⌉."""
    return torch.div(lengths + stride - 1, stride, rounding_mode="floor")


def compact(frames: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Kept frames moved to the front: frames (B, T, D), keep (B, T) bool → (B, N, D), lengths (B,)."""
    lengths = keep.sum(1)
    order = torch.argsort((~keep).to(torch.uint8), dim=1, stable=True)[:, : int(lengths.max())]
    return frames.gather(1, order[..., None].expand(-1, -1, frames.shape[2])), lengths


def at_least_one(keep: Tensor, score: Tensor, lengths: Tensor) -> Tensor:
    """`keep` (B, T) with the frame of the largest score (B, T) kept where a row would lose all."""
    valid = inside(lengths, keep.shape[1])
    keep = keep & valid
    best = functional.one_hot(score.masked_fill(~valid, -math.inf).argmax(1), keep.shape[1]).bool()
    return torch.where(keep.any(1, keepdim=True), keep, best)
