"""Training of the built-in codec.

B batch, F mel frames, T latent frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.acoustic.mel_rvq import STRIDE, MelCodec, MelCodecConfig, MelCodecNetwork
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_training.fitting.kept import Kept
from unitok_training.fitting.network import fit_network
from unitok_training.trainer.optimizer import OptimConfig

SPECTRAL = OptimConfig(
    name="muon", learning_rate=2e-3, matrix_learning_rate=0.05, warmup_steps=30, schedule="linear", min_ratio=0.0
)
"""Of networks that make spectra: with Muon they need fewer than half of the steps that they need with AdamW."""


MOST_CODEBOOKS = 8
"""Residual codebooks: what later ones would hold is below what a mel spectrogram tells apart."""


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """How the codec is trained."""

    steps: int = 1000
    """Optimizer steps."""
    batch: int = 24
    """Crops a step."""
    crop: int = 32
    """Latent frames of a crop."""
    optim: OptimConfig = SPECTRAL
    """How weights move."""
    commitment: float = 0.25
    """Weight of the commitment loss."""
    foresight: float = 0.1
    """Weight of the squared residual as the units see it: what they can say of the latents takes no codes to repeat."""
    seed: int = 0
    """Seed of initial weights and crops."""
    codebooks: int = 2
    """Residual codebooks."""
    cardinality: int = 512
    """Codes of a residual codebook."""
    exchanged: float = 0.4
    """Share of frames whose residual is that of another frame of the crop, as if a decoder had chosen another code of
    the same voice. Without it, the words hang on codes that nobody can foretell: with half of them exchanged, an
    independent ear reads .75 of the words wrong where it reads .33 with the true ones, and .30 where it was trained so.
    """
    code_width: int = 0
    """See `MelCodecConfig.code_width`."""
    causal: bool = False
    """See `MelCodecConfig.causal`."""
    dropped: float = 0.0
    """Share of crops that use the first codebooks alone, a random number of them, so that fewer can be decoded too."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 0 <= self.dropped <= 1:
            raise InputError(f"codec dropped is {self.dropped}: a share lies between 0 and 1")
        if not 1 <= self.codebooks <= MOST_CODEBOOKS:
            raise InputError(f"codec codebooks is {self.codebooks}: choose 1 to {MOST_CODEBOOKS}")
        if not 0 <= self.exchanged <= 1:
            raise InputError(f"codec exchanged is {self.exchanged}: a share lies between 0 and 1")


FRAMES_PER_CODE = 3
"""Frames that the codebooks are first placed by: more than codes, or there is nothing to cluster."""
SHORTEST_SHARE = 0.2
"""Share of recordings that may be too short for a crop; where more are, crops become shorter."""


class Crops:
    """Random crops of log-mels with the units of the same frames.

    Raises:
        InputError: no recording is as long as one unit.
    """

    def __init__(
        self, mels: Sequence[Tensor], units: Sequence[np.ndarray], length: int, *, stride: int = STRIDE
    ) -> None:
        self.stride = stride
        self.units = [torch.from_numpy(one) for one in units]
        self.mels = [one[: len(frames) * stride] for one, frames in zip(mels, self.units)]
        usable = [i for i, one in enumerate(self.mels) if len(one) == len(self.units[i]) * stride > 0]
        if not usable:
            raise InputError(
                f"none of {len(mels)} recordings is as long as a unit of {stride} frames; give longer ones"
            )
        # A corpus of single words must not be trained on the two that are long enough.
        lengths = sorted(len(self.units[i]) for i in usable)
        self.length = min(length, lengths[int(len(lengths) * SHORTEST_SHARE)])
        self.rows = [i for i in usable if len(self.units[i]) >= self.length]

    def draw(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Log-mels (B, 4T, M) and units (B, T)."""
        mels, units = [], []
        for row in random.choice(len(self.rows), count):
            index = self.rows[int(row)]
            start = int(random.integers(0, len(self.units[index]) - self.length + 1))
            mels.append(self.mels[index][start * self.stride : (start + self.length) * self.stride])
            units.append(self.units[index][start : start + self.length])
        return torch.stack(mels), torch.stack(units)


@torch.no_grad()
def _enough(frames: Tensor, crops: Crops, network: MelCodecNetwork, config: CodecConfig, compute: Compute) -> Tensor:
    """Residual frames (N, D) with N at least `FRAMES_PER_CODE` a code: where crops are short, of further batches."""
    found, count = [frames], len(frames)
    random = np.random.default_rng([config.seed, 1])
    while count < FRAMES_PER_CODE * config.cardinality:
        batch, units = (one.to(compute.device) for one in crops.draw(config.batch, random))
        with compute.mixed():
            residual, _ = network.residual(batch, units, torch.ones(len(batch), units.shape[1], 1, device=units.device))
        found.append(residual.float().flatten(0, 1))
        count += len(found[-1])
    return torch.cat(found)


def exchange(residual: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Residuals (B, T, D) with a share of their frames replaced by others of the same row."""
    rows, frames, _ = residual.shape
    other = torch.randint(0, frames, (rows, frames, 1), generator=generator, device="cpu").to(residual.device)
    hit = (torch.rand(rows, frames, 1, generator=generator, device="cpu") < share).to(residual.device)
    return torch.where(hit, residual.gather(1, other.expand_as(residual)), residual)


def depths_of(rows: int, frames: int, config: CodecConfig, generator: torch.Generator) -> Tensor | None:
    """How many codebooks each of `rows` · `frames` vectors uses, the same along a row; None where none is dropped."""
    if not config.dropped:  # no draw either: what was trained without is trained as before
        return None
    fewer = torch.randint(0, config.codebooks, (rows,), generator=generator, device="cpu")
    hit = torch.rand(rows, generator=generator, device="cpu") < config.dropped
    return torch.where(hit, fewer, torch.full_like(fewer, config.codebooks)).repeat_interleave(frames)


def train_codec(
    recordings: Sequence[np.ndarray],
    units: UnitTokenizer,
    config: CodecConfig,
    *,
    mel: MelConfig | None = None,
    compute: Compute | None = None,
    progress: Callable[[int, float], None] | None = None,
    kept: Kept | None = None,
) -> MelCodec:
    """Train the codec on recordings ((S,) float32); deterministic for a seed, a thread count and a precision.

    `kept` is where the run is continued from, and written down.
    """
    mel, compute = mel or MelConfig(), compute or resolve("cpu")
    with torch.no_grad():
        mels = [log_mel(torch.from_numpy(samples), mel) for samples in recordings]
    crops = Crops(mels, units.encode_batch(recordings), config.crop)
    torch.manual_seed(config.seed)
    sizes = MelCodecConfig(
        units=units.cardinality,
        codebooks=config.codebooks,
        cardinality=config.cardinality,
        code_width=config.code_width,
        causal=config.causal,
    )
    network = MelCodecNetwork(sizes, mel.num_mels)
    random = np.random.default_rng(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    warm = max(1, config.steps // 10)
    if kept is not None:
        kept.draws = {"crops": random, "quantizer": generator}

    def loss(step: int) -> Tensor:
        batch, frames = (one.to(compute.device) for one in crops.draw(config.batch, random))
        mask = torch.ones(len(batch), frames.shape[1], 1, device=compute.device)
        with compute.mixed():
            residual, expected = network.residual(batch, frames, mask)
        residual, expected = residual.float(), expected.float()
        true = (expected + residual).detach()
        if step == warm:
            network.quantiser.initialize(
                _enough(residual.detach().flatten(0, 1), crops, network, config, compute), config.seed
            )
        commitment = residual.new_zeros(())
        latents = expected + residual
        if step >= warm:  # the first tenth trains without the quantizer, so that k-means starts from real latents
            depths = depths_of(len(batch), frames.shape[1], config, generator)
            depths = None if depths is None else depths.to(compute.device)
            flat, commitment = network.quantiser(residual.flatten(0, 1), generator, depths)
            latents = expected + exchange(flat.view_as(residual), config.exchanged, generator)
        with compute.mixed():
            made = network.synthesize(latents, mask)
        unforeseen = (expected - true).pow(2).mean()
        return (made.float() - batch).abs().mean() + config.commitment * commitment + config.foresight * unforeseen

    fit_network(
        network.train(), loss, steps=config.steps, optim=config.optim, compute=compute, progress=progress, kept=kept
    )
    network.cpu()
    return MelCodec(network, units, mel)
