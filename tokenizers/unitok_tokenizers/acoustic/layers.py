"""Layers of waveform codecs, run over recordings of unequal length together, or over one that comes in pieces.

B batch, C channels, T positions.

The networks themselves only know whole recordings, one at a time: padding would change the last frames, and pieces
would leave seams. Here each layer is told where every recording ends, extends each at its own end as the network would,
and can carry from piece to piece what it still needs. Both give what the network gives of the whole recording, alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

Run = Callable[[Tensor], Tensor]
"""A module's forward, without any padding of its own."""


class Stream(Protocol):
    """A layer in the middle of a recording."""

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """The next piece (B, C, T), perhaps of no positions → what is known now; everything, at the last piece."""


class Layer(Protocol):
    """A layer that is told where recordings end."""

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Recordings (B, C, T) of lengths (B,) on the processor → the same of the output; behind them lies anything."""

    def stream(self) -> Stream:
        """The layer at the beginning of a recording."""


@dataclass(frozen=True)
class Pointwise:
    """What looks at one position at a time."""

    apply: Run

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.run`."""
        return self.apply(x), lengths

    def stream(self) -> Stream:
        """See `Layer.stream`."""
        return lambda x, last: self.apply(x) if x.shape[2] else x


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution with its padding."""

    apply: Run
    channels: int
    """Of the output."""
    kernel: int
    """Positions that a window spans, dilation included."""
    stride: int
    """Positions between windows."""
    left: int
    """Positions of padding before a recording."""
    right: int
    """And behind it."""
    mode: str
    """`torch.nn.functional.pad`'s: constant, reflect or replicate."""
    fill: bool
    """Pad further on the right, until the last window is full; else what fills no window is left out."""

    def behind(self, length: int) -> int:
        """Positions of padding behind a recording of so many."""
        if not self.fill:
            return self.right
        windows = math.ceil((length - self.kernel + self.left + self.right) / self.stride) + 1
        return self.right + (windows - 1) * self.stride + self.kernel - self.left - self.right - length

    def windows(self, length: int) -> int:
        """Outputs for a recording of so many positions."""
        return max(0, (length + self.left + self.behind(length) - self.kernel) // self.stride + 1)

    def padded(self, x: Tensor) -> Tensor:
        """A whole recording (B, C, T) with its padding; one shorter than a reflection is lengthened by zeros first."""
        length = x.shape[2]
        before, behind = self.left, self.behind(length)
        more = max(0, max(before, behind) + 1 - length) if self.mode == "reflect" else 0
        padded = functional.pad(functional.pad(x, (0, more)), (before, behind), self.mode)
        return padded[..., : padded.shape[2] - more]

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.run`."""
        sizes = lengths.tolist()
        if len(set(sizes)) == 1:
            padded = self.padded(x[..., : sizes[0]])
        else:
            rows = [self.padded(x[row : row + 1, :, :size])[0].T for row, size in enumerate(sizes)]
            padded = pad_sequence(rows, batch_first=True).transpose(1, 2)
        return self.apply(padded), torch.tensor([self.windows(size) for size in sizes], device="cpu")

    def stream(self) -> Stream:
        """See `Layer.stream`."""
        return _ConvolutionStream(self)


class _ConvolutionStream:
    """Positions that windows to come still look at, and those that a reflection at the end would."""

    def __init__(self, layer: Convolution) -> None:
        self.layer, self.seen, self.begun = layer, 0, False
        self.held: Tensor | None = None
        self.start = 0
        """Where in `held` the next window begins."""

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        layer = self.layer
        self.seen += x.shape[2]
        held = x if self.held is None else torch.cat([self.held, x], dim=2)
        reach = max(layer.left, layer.right + layer.stride - 1)
        if not self.begun and held.shape[2] > reach:
            held = functional.pad(held, (layer.left, 0), layer.mode) if layer.left else held
            self.begun = True
        if last and self.begun:
            held = functional.pad(held, (0, layer.behind(self.seen)), layer.mode)
        elif last and self.seen:
            held = layer.padded(held)
        ready = held.shape[2] - self.start - layer.kernel if self.begun or last else -1
        if ready < 0:
            self.held = held
            return x.new_zeros(len(x), layer.channels, 0)
        count = ready // layer.stride + 1
        stop = self.start + (count - 1) * layer.stride + layer.kernel
        made = layer.apply(held[..., self.start : stop])
        self.start += count * layer.stride
        kept = max(0, min(self.start, held.shape[2]) - reach - 1)
        self.held, self.start = held[..., kept:], self.start - kept
        return made


@dataclass(frozen=True, kw_only=True)
class Transposed:
    """A transposed convolution, trimmed at both ends."""

    apply: Run
    channels: int
    """Of the output."""
    kernel: int
    """Positions that an input makes."""
    stride: int
    """Positions between what two inputs make."""
    left: int
    """Positions that are cut off before the output."""
    right: int
    """And behind it."""

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.run`."""
        inside = torch.arange(x.shape[2]) < lengths[:, None]
        made = self.apply(x * inside.to(x.device)[:, None])  # what lies behind a recording must not reach into it
        sizes = (lengths - 1) * self.stride + self.kernel - self.left - self.right
        return made[..., self.left : self.left + int(sizes.max())], sizes

    def stream(self) -> Stream:
        """See `Layer.stream`."""
        context = math.ceil(self.kernel / self.stride) - 1
        held: Tensor | None = None
        cut = self.left

        def push(x: Tensor, last: bool) -> Tensor:
            nonlocal held, cut
            before = 0 if held is None else held.shape[2]
            joined = x if held is None else torch.cat([held, x], dim=2)
            if not joined.shape[2] or not (x.shape[2] or last):
                return x.new_zeros(len(x), self.channels, 0)
            made = self.apply(joined)
            stop = made.shape[2] - self.right if last else joined.shape[2] * self.stride
            made = made[..., before * self.stride : stop]
            skipped = min(cut, made.shape[2])
            held, cut = joined[..., max(0, joined.shape[2] - context) :], cut - skipped
            return made[..., skipped:]

        return push


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """An LSTM along time, with the input added to its output. One that reads backward too must wait for the end."""

    lstm: torch.nn.LSTM
    channels: int
    """Of the output."""
    skip: bool
    """Add the input, once for each direction."""

    def _added(self, made: Tensor, x: Tensor) -> Tensor:
        if not self.skip:
            return made
        return made + (x.repeat(1, 1, 2) if self.lstm.bidirectional else x)

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.run`."""
        by_time = x.permute(2, 0, 1)  # (T, B, C)
        if self.lstm.bidirectional and int(lengths.min()) < x.shape[2]:
            packed = self.lstm(pack_padded_sequence(by_time, lengths, enforce_sorted=False))[0]
            made = pad_packed_sequence(packed, total_length=x.shape[2])[0]
        else:
            made = self.lstm(by_time)[0]
        return self._added(made, by_time).permute(1, 2, 0), lengths

    def stream(self) -> Stream:
        """See `Layer.stream`."""
        state: Any = None
        waiting: list[Tensor] = []

        def push(x: Tensor, last: bool) -> Tensor:
            nonlocal state
            if self.lstm.bidirectional:
                waiting.append(x)
                x = torch.cat(waiting, dim=2) if last else x[..., :0]
            if not x.shape[2]:
                return x.new_zeros(len(x), self.channels, 0)
            by_time = x.permute(2, 0, 1)
            made, state = self.lstm(by_time, state)
            return self._added(made, by_time).permute(1, 2, 0)

        return push


@dataclass(frozen=True)
class Chain:
    """Layers one after another."""

    layers: Sequence[Layer]

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.run`."""
        for layer in self.layers:
            x, lengths = layer.run(x, lengths)
        return x, lengths

    def stream(self) -> Stream:
        """See `Layer.stream`."""
        streams = [layer.stream() for layer in self.layers]

        def push(x: Tensor, last: bool) -> Tensor:
            for one in streams:
                x = one(x, last)
            return x

        return push


@dataclass(frozen=True)
class Residual:
    """A branch added to another one, which is as long."""

    main: Layer
    shortcut: Layer

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.run`."""
        made, sizes = self.main.run(x, lengths)
        size = int(sizes.max())
        return made[..., :size] + self.shortcut.run(x, lengths)[0][..., :size], sizes

    def stream(self) -> Stream:
        """See `Layer.stream`."""
        branches = [self.main.stream(), self.shortcut.stream()]
        held: list[Tensor | None] = [None, None]

        def push(x: Tensor, last: bool) -> Tensor:
            ready = []
            for branch, before in zip(branches, held):
                made = branch(x, last)
                ready.append(made if before is None else torch.cat([before, made], dim=2))
            size = min(one.shape[2] for one in ready)
            held[:] = [one[..., size:] for one in ready]
            return ready[0][..., :size] + ready[1][..., :size]

        return push
