"""Units of an encoder that somebody else has trained, and units that other recordings of the same words share.

The first are clusters of its frames, or centroids come with it. For the second (Gat et al. 2023) the units of a
recording are the pseudo-labels; a small network before the centroids learns to give them, in the same order, of that
recording at another speed or pitch, with noise and in a room. The encoder stays as it is: its frames are computed once.

S samples, F frames, D width, K units, B batch, N runs of units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from unitok_tokenizers.audio.changes import CHANGES
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.encoders.batches import batches_by_length
from unitok_tokenizers.encoders.pretrained import OWN, EncoderSource
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.centroids import read_centroids
from unitok_tokenizers.semantic.invariance import CorrectionConfig, FrameCorrection
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate
from unitok_training.fitting.network import fit_network
from unitok_training.fitting.share import Share
from unitok_training.fitting.spool import FrameSpool
from unitok_training.trainer.distributed import World
from unitok_training.trainer.optimizer import OptimConfig

TOGETHER_SECONDS = 120.0
"""Recordings that are changed and encoded together."""
NEVER = -1e4
"""Logit of CTC's blank: a frame is always one of the units."""


@dataclass(frozen=True, kw_only=True)
class ChosenUnits:
    """Which encoder stands behind units, and how its frames become them."""

    encoder: EncoderSource
    """Encoder and layer."""
    pool: int = 1
    """Frames whose mean becomes one unit."""
    centroids: Path | None = None
    """File of centroids; they are fitted where None."""
    scaled: bool = True
    """Count each dimension of frames in its own spread, where centroids are fitted: see `UnitTokenizer`. Centroids of a
    file go by plain distances."""

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise InputError(f"--pool is {self.pool}: frames of a unit; give 1 or more")
        if self.encoder.layer is None and self.encoder.kind != OWN:
            raise InputError(
                f"--units {self.encoder.kind}:{self.encoder.folder} names no layer; add one, such as @6: units of the "
                "last layer are seldom the best"
            )


def fit_chosen_units(
    chosen: ChosenUnits,
    recordings: Callable[[int], Iterable[np.ndarray]],
    clusters: int,
    *,
    seed: int,
    compute: Compute,
) -> UnitTokenizer:
    """Units of an encoder.

    Args:
        chosen: what they are made of.
        recordings: samples a second → recordings (S,) float32 each, looked at once; the first of them a fair sample.
            Not asked for where the centroids are given.
        clusters: K; without meaning where centroids are given.
        seed: of every draw.
        compute: where frames are computed.

    Raises:
        InputError: a folder or a file that does not fit, or too few frames.
    """
    encoder = chosen.encoder.open().to(compute.device)
    layer, pool = chosen.encoder.layer, chosen.pool
    if chosen.centroids is None:
        given = recordings(encoder.sample_rate)
        return UnitTokenizer.fit_stream(
            encoder, given, clusters, seed=seed, layer=layer, pool=pool, scaled=chosen.scaled
        )
    centroids = read_centroids(chosen.centroids, width=encoder.width).to(compute.device)
    return UnitTokenizer(encoder, centroids, layer=layer, pool=pool)


@dataclass(frozen=True, kw_only=True)
class InvarianceConfig:
    """How units are made invariant."""

    steps: int = 600
    """Optimizer steps."""
    batch_frames: int = 6000
    """Frames of a batch, padding included."""
    draws: int = 2
    """How often each recording is changed in each way."""
    hidden: int = 256
    """Width of the network."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, warmup_steps=30, weight_decay=0.0)
    """How weights move."""
    seed: int = 0
    """Of changes, initial weights and batches."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.steps < 1:
            raise InputError(f"--invariant is {self.steps}: steps; give 1 or more")


def fit_invariance(
    units: UnitTokenizer,
    recordings: Iterable[np.ndarray],
    config: InvarianceConfig,
    *,
    compute: Compute | None = None,
    progress: Callable[[int, float], None] | None = None,
    world: World | None = None,
) -> UnitTokenizer:
    """Units of the same centroids and encoder that change less where the sound does.

    Args:
        units: not corrected and not merged.
        recordings: (S,) float32 each at the units' rate, looked at once.
        config: how.
        compute: device and precision.
        progress: called with (steps done, loss).
        world: processes that share the recordings of a step; each has what one would have.

    Raises:
        InputError: no recordings, or a loss that is not a number.
    """
    assert units.correction is None and units.merges is None
    compute = compute or resolve("cpu")
    spool, labels = FrameSpool(), list[Tensor]()
    for frames, runs in changed_frames(units, recordings, config.draws, config.seed):
        spool.append(torch.from_numpy(frames))
        labels.append(torch.from_numpy(runs))
    if not len(spool):
        raise InputError("no recordings to make units invariant with; give rows with audio")
    torch.manual_seed(config.seed)  # initial weights; the caller's process is a stage of its own
    correction = FrameCorrection(CorrectionConfig(width=units.encoder.width, hidden=config.hidden))
    _set_scale(correction, spool)
    reader = UnitReader(correction, units.centroids.detach().clone(), _temperature(spool, units), units.spread)
    _optimize(reader.train(), spool, labels, config, compute, progress, Share(world))
    return units.corrected(correction.to(units.centroids.device).eval())


def changed_frames(
    units: UnitTokenizer, recordings: Iterable[np.ndarray], draws: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(frames (F, D), units to be given (N,)) of every recording, as often as it is and after each of `CHANGES`."""
    random, rate = np.random.default_rng([seed, 23]), units.sample_rate
    for group in _groups(recordings, TOGETHER_SECONDS * rate):
        clean = units.frames_of(group)
        runs = [deduplicate(one)[0] for one in units.units_of_frames(clean)]
        yield from [*zip(clean, runs)] * draws
        for change in [*CHANGES.values()] * draws:
            changed = [change(samples, rate, random) for samples in group]
            yield from zip(units.frames_of(changed), runs)


def _groups(recordings: Iterable[np.ndarray], most: float) -> Iterator[list[np.ndarray]]:
    held: list[np.ndarray] = []
    for samples in recordings:
        held.append(samples)
        if sum(map(len, held)) >= most:
            yield held
            held = []
    if held:
        yield held


class UnitReader(nn.Module):
    """Log-probabilities of the units of frames, by their distance to centroids that stay.

    Args:
        correction: what learns.
        centroids: (K, D).
        temperature: distances that are one nat apart; it learns too.
        spread: (D,) that these are counted in; None counts all dimensions alike.
    """

    centroids: Tensor
    spread: Tensor

    def __init__(
        self, correction: FrameCorrection, centroids: Tensor, temperature: float, spread: Tensor | None = None
    ) -> None:
        super().__init__()
        self.correction = correction
        spread = torch.ones_like(centroids[0]) if spread is None else spread.detach().clone()
        self.register_buffer("spread", spread)
        self.register_buffer("centroids", centroids / spread)
        self.log_temperature = nn.Parameter(torch.tensor(float(np.log(temperature))))

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, F, D) of rows of `lengths` (B,) → (B, F, K + 1) for CTC, the blank first and impossible."""
        corrected = self.correction(frames, lengths).float() / self.spread
        closeness = corrected @ self.centroids.T - 0.5 * (self.centroids * self.centroids).sum(1)
        logits = functional.pad(closeness / self.log_temperature.exp(), (1, 0), value=NEVER)
        return logits.log_softmax(-1)


def _set_scale(correction: FrameCorrection, spool: FrameSpool) -> None:
    """Mean and spread of the frames, of a bounded number of recordings."""
    some = torch.cat([spool[place] for place in range(0, len(spool), max(1, len(spool) // 200))])
    correction.mean.copy_(some.mean(0))
    correction.spread.copy_(some.std(0, correction=0).clamp_min(1e-6))


def _temperature(spool: FrameSpool, units: UnitTokenizer) -> float:
    """A third of how much nearer the nearest centroid of a frame is than the second, in the middle."""
    spread = 1.0 if units.spread is None else units.spread.cpu()
    centroids = units.centroids.cpu() / spread
    frames = torch.cat([spool[place] for place in range(0, len(spool), max(1, len(spool) // 50))]) / spread
    if len(centroids) < 2:
        return 1.0
    best = (frames @ centroids.T - 0.5 * (centroids * centroids).sum(1)).topk(2, dim=1).values
    return max(float((best[:, 0] - best[:, 1]).median()) / 3, 1e-6)


def _optimize(
    reader: UnitReader,
    spool: FrameSpool,
    labels: Sequence[Tensor],
    config: InvarianceConfig,
    compute: Compute,
    progress: Callable[[int, float], None] | None,
    share: Share,
) -> None:
    random = np.random.default_rng(config.seed)
    sizes = spool.lengths()
    batches = batches_by_length(sizes, config.batch_frames)
    order: list[int] = []

    def loss(step: int) -> Tensor:
        if not order:
            order.extend(random.permutation(len(batches)).tolist())
        chosen = batches[order.pop()]
        longest = max(sizes[place] for place in chosen)
        chosen = chosen[share.of(len(chosen))]
        rows = [spool[place] for place in chosen]
        lengths = torch.tensor([len(row) for row in rows], device=compute.device)
        padded = pad_sequence(rows, batch_first=True)
        padded = functional.pad(padded, (0, 0, 0, longest - padded.shape[1]))  # single values of a row are dropped
        with compute.mixed():
            found = reader(padded.to(compute.device), lengths)
        targets = torch.cat([labels[place] for place in chosen]).to(compute.device) + 1
        counts = torch.tensor([len(labels[place]) for place in chosen], device=compute.device)
        # Of what is said faster there may be fewer frames than runs: nothing can be learned of it.
        return share.mean(functional.ctc_loss(found.transpose(0, 1), targets, lengths, counts, zero_infinity=True))

    fit_network(
        reader, loss, steps=config.steps, optim=config.optim, compute=compute, progress=progress, share=share
    )  # fmt: skip


def unit_edits(one: np.ndarray, other: np.ndarray) -> int:
    """Levenshtein distance of units (N,) and (M,): fewest insertions, deletions and substitutions."""
    steps = np.arange(len(other) + 1)
    row = steps.copy()
    for number, unit in enumerate(one.tolist(), 1):
        best = np.concatenate([[number], np.minimum(row[1:] + 1, row[:-1] + (other != unit))])
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])
