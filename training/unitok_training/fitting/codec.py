"""Training of the built-in codec.

B batch, b crops of it that this process computes, F mel frames, T latent frames, M mel bins, D latent width, W
teacher's width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unitok_tokenizers.acoustic.mel_network import STRIDE, MelCodecConfig, MelCodecNetwork
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.rvq import REVIVE_BELOW, ResidualVq
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, pooled_frames
from unitok_training.fitting.kept import Kept
from unitok_training.fitting.network import fit_network
from unitok_training.fitting.share import Share, same_in_all
from unitok_training.trainer.distributed import World
from unitok_training.trainer.optimizer import OptimConfig

SPECTRAL = OptimConfig(
    name="muon", learning_rate=2e-3, matrix_learning_rate=0.05, warmup_steps=30, schedule="linear", min_ratio=0.0
)
"""Of networks that make spectra: with Muon they need fewer than half of the steps that they need with AdamW."""


MOST_CODEBOOKS = 8
"""Residual codebooks: what later ones would hold is below what a mel spectrogram tells apart."""


UNTAUGHT = 1e-9
"""`CodecConfig.distilled` of a codec that learns its first codebook and is taught nothing: by the distance alone."""


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

    distilled: float = 0.0
    """Weight of the distillation of the first codebook from the frames behind the units (SpeechTokenizer, Zhang et al.
    2023): it is learned then, and the codec needs no units. 0: the units themselves are the first codebook."""
    split: bool = False
    """See `MelCodecConfig.split`."""
    revive_below: float = REVIVE_BELOW
    """A code that is used less than this share of the even share starts again at a random residual; 0 for never."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.steps < 2:
            raise InputError(f"codec steps is {self.steps}: give 2 or more, codes are placed behind the first")
        for name in ("batch", "crop", "cardinality"):
            if getattr(self, name) < 1:
                raise InputError(f"codec {name} is {getattr(self, name)}: give 1 or more")
        if not 0 <= self.code_width <= MelCodecConfig(units=1).latent:
            raise InputError(
                f"codec code_width is {self.code_width}: give 0 for none, or up to {MelCodecConfig(units=1).latent}"
            )
        if self.distilled < 0:
            raise InputError(f"codec distilled is {self.distilled}: a weight is 0 or more")
        if not 0 <= self.revive_below < 1:
            raise InputError(f"codec revive_below is {self.revive_below}: a share lies between 0 and 1, 1 left out")
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
    """Random crops of log-mels with the units of the same frames, and what else belongs to these.

    Args:
        mels: log-mels (F, M) of each recording.
        units: (T,) of each.
        length: T of a crop.
        stride: mel frames of a unit.
        teachers: frames (T, W) of each, where there are any.

    Raises:
        InputError: no recording is as long as one unit.
    """

    def __init__(
        self,
        mels: Sequence[Tensor],
        units: Sequence[np.ndarray],
        length: int,
        *,
        stride: int = STRIDE,
        teachers: Sequence[np.ndarray] = (),
    ) -> None:
        self.stride = stride
        self.teachers = [torch.from_numpy(one) for one in teachers]
        # pooled units count a last frame that is not full, and log-mels do not
        self.units = [torch.from_numpy(one)[: len(mel) // stride] for one, mel in zip(units, mels)]
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
        mels, units, _ = self.draw_taught(count, random)
        return mels, units

    def draw_taught(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-mels (B, 4T, M), units (B, T), and frames of the teacher (B, T, W) where there is one."""
        mels, units, teachers = [], [], []
        for row in random.choice(len(self.rows), count):
            index = self.rows[int(row)]
            start = int(random.integers(0, len(self.units[index]) - self.length + 1))
            mels.append(self.mels[index][start * self.stride : (start + self.length) * self.stride])
            units.append(self.units[index][start : start + self.length])
            if self.teachers:
                teachers.append(self.teachers[index][start : start + self.length])
        return torch.stack(mels), torch.stack(units), torch.stack(teachers) if teachers else None


def exchange(residual: Tensor, part: float, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Residuals (b, T, D) with a part of their frames replaced by others of the same row.

    It is drawn for all B rows of a step of which these are this process's share.
    """
    rows, frames, _ = residual.shape
    rows, own = (rows, slice(None)) if share is None else (share.items, share.rows)
    other = torch.randint(0, frames, (rows, frames, 1), generator=generator, device="cpu")[own].to(residual.device)
    hit = (torch.rand(rows, frames, 1, generator=generator, device="cpu") < part)[own].to(residual.device)
    return torch.where(hit, residual.gather(1, other.expand_as(residual)), residual)


def depths_of(rows: int, frames: int, config: CodecConfig, generator: torch.Generator) -> Tensor | None:
    """How many codebooks each of `rows` · `frames` vectors uses, the same along a row; None where none is dropped."""
    if not config.dropped:  # no draw either: what was trained without is trained as before
        return None
    fewer = torch.randint(0, config.codebooks, (rows,), generator=generator, device="cpu")
    hit = torch.rand(rows, generator=generator, device="cpu") < config.dropped
    return torch.where(hit, fewer, torch.full_like(fewer, config.codebooks)).repeat_interleave(frames)


def distillation(said: Tensor, taught: Tensor) -> Tensor:
    """How far frames that a first codebook says (B, T, W) are from the teacher's: −log σ of the cosine along time, the
    mean over the W dimensions."""
    return -functional.logsigmoid(functional.cosine_similarity(said.float(), taught.float(), dim=1)).mean()


class CodecLoss:
    """The loss of a step; the first tenth trains without quantizers, so that k-means starts from real latents.

    Crops are as long as each other: a mean over those of a process counts as much as it has of them. Codebooks follow
    the vectors of all processes.
    """

    def __init__(
        self, network: MelCodecNetwork, crops: Crops, config: CodecConfig, compute: Compute, share: Share | None = None
    ) -> None:
        self.network, self.crops, self.config, self.compute = network, crops, config, compute
        self.share = share or Share()
        self.random = np.random.default_rng(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.draws: dict[str, np.random.Generator | torch.Generator] = {
            "crops": self.random,
            "quantizer": self.generator,
        }
        self.warm = max(1, config.steps // 10)
        for quantizer in self._quantizers():
            quantizer.revive_below = config.revive_below
            quantizer.gathered = None if self.share.alone else self._all_vectors

    def _quantizers(self) -> list[ResidualVq]:
        return [one for one in self.network.modules() if isinstance(one, ResidualVq)]

    def _all_vectors(self, rows: Tensor) -> Tensor:
        """Of the frames of own crops, (b · T, …) → of all, (B · T, …)."""
        return self.share.gathered(rows.view(-1, self.crops.length, *rows.shape[1:])).flatten(0, 1)

    def end(self) -> None:
        """Training is over: what quantizers are given is all there is."""
        for quantizer in self._quantizers():
            quantizer.gathered = None

    def _drawn(self, random: np.random.Generator, share: Share | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """A batch on the device, or a share of it: see `Crops.draw_taught`."""
        mels, units, taught = self.crops.draw_taught(self.config.batch, random)
        own, device = slice(None) if share is None else share.of(len(mels)), self.compute.device
        return mels[own].to(device), units[own].to(device), None if taught is None else taught[own].to(device)

    def _placed(self, quantizer: ResidualVq, found: Tensor, *, first: bool) -> None:
        """Place codebooks first, by what they are to quantize (b, T, D)."""
        quantizer.initialize(self._enough(self.share.gathered(found.detach()), first=first), self.config.seed)
        # k-means on a GPU adds up in any order.
        same_in_all([*quantizer.parameters(), *quantizer.buffers()], self.share.world)

    def __call__(self, step: int) -> Tensor:
        """Loss ()."""
        network, config = self.network, self.config
        mels, units, taught = self._drawn(self.random, self.share)
        mask = torch.ones(len(mels), units.shape[1], 1, device=mels.device)
        aside = mels.new_zeros(())
        if taught is None:
            with self.compute.mixed():
                residual, expected = network.residual(mels, units, mask)
            residual, expected = residual.float(), expected.float()
        else:
            residual, expected, aside = self._taught(step, mels, taught, mask)
        true = (expected + residual).detach()
        if step == self.warm:
            self._placed(network.quantiser, residual, first=False)
        commitment, latents = residual.new_zeros(()), expected + residual
        if step >= self.warm:
            depths = depths_of(self.share.items, units.shape[1], config, self.generator)
            if depths is not None:
                depths = depths.view(self.share.items, -1)[self.share.rows].flatten().to(mels.device)
            flat, commitment = network.quantiser(residual.flatten(0, 1), self.generator, depths)
            latents = expected + exchange(flat.view_as(residual), config.exchanged, self.generator, self.share)
        with self.compute.mixed():
            made = network.synthesize(latents, mask)
        loss = (made.float() - mels).abs().mean() + config.commitment * commitment + aside
        if taught is None and not config.split:  # what stands beside the first codebook is not what it left over
            loss = loss + config.foresight * (expected - true).pow(2).mean()
        return self.share.mean(loss)

    def _taught(self, step: int, mels: Tensor, taught: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is left to quantize and what the first codebook says, (B, T, D), and what it is to learn ()."""
        network, config = self.network, self.config
        with self.compute.mixed():
            x = network.encoded(mels, mask)
            first = network.first_latents(x)
        first, commitment = first.float(), mels.new_zeros(())
        if step == self.warm:
            self._placed(network.first, first, first=True)
        if step >= self.warm:
            flat, commitment = network.first(first.flatten(0, 1), self.generator)
            first = flat.view_as(first)
        with self.compute.mixed():
            said = network.teach(first)
            # Behind it: gradients reach the latents through what is left over, once.
            expected = first if config.split else first.detach() if step >= self.warm else torch.zeros_like(first)
            residual = network.left_over(x, expected)
        return (
            residual.float(),
            expected,
            config.distilled * distillation(said, taught) + config.commitment * commitment,
        )

    @torch.no_grad()
    def _enough(self, found: Tensor, *, first: bool) -> Tensor:
        """Vectors (N, D) that codebooks are first placed by, those of a batch (B, T, D) and, where crops are short, of
        further batches: N at least `FRAMES_PER_CODE` a code."""
        network = self.network
        needed = FRAMES_PER_CODE * (network.config.units if first else network.config.cardinality)
        rows, count = [found.flatten(0, 1)], found.shape[0] * found.shape[1]
        random = np.random.default_rng([self.config.seed, 1])
        while count < needed:
            mels, units, _ = self._drawn(random)
            mask = torch.ones(len(mels), units.shape[1], 1, device=units.device)
            with self.compute.mixed():
                x = network.encoded(mels, mask)
                vectors = network.first_latents(x) if first else self._left(x, units, mask)
            rows.append(vectors.float().flatten(0, 1))
            count += len(rows[-1])
        return torch.cat(rows)

    def _left(self, x: Tensor, units: Tensor, mask: Tensor) -> Tensor:
        """What the residual codebooks quantize of what leaves the blocks (B, T, C)."""
        if self.network.config.taught:
            units = self.network.first.encode(self.network.first_latents(x).flatten(0, 1)).view(len(x), -1)
        return self.network.left_over(x, self.network.expected(units, mask))


def train_codec(
    recordings: Sequence[np.ndarray],
    units: UnitTokenizer,
    config: CodecConfig,
    *,
    mel: MelConfig | None = None,
    compute: Compute | None = None,
    progress: Callable[[int, float], None] | None = None,
    kept: Kept | None = None,
    world: World | None = None,
) -> MelCodec:
    """Train the codec on recordings ((S,) float32); deterministic for a seed, a thread count and a precision.

    `kept` is where the run is continued from, and written down. The processes of a world share the crops of a step, and
    all have the codec that one would have.
    """
    mel, compute = mel or MelConfig(), compute or resolve("cpu")
    with torch.no_grad():
        mels = [log_mel(torch.from_numpy(samples), mel) for samples in recordings]
    teachers: list[np.ndarray] = []
    if config.distilled:
        frames = encode_recordings(units.encoder, recordings, layer=units.layer)
        teachers = [pooled_frames(one, units.pool) for one in frames]
    crops = Crops(mels, units.encode_batch(recordings), config.crop, teachers=teachers)
    torch.manual_seed(config.seed)
    sizes = MelCodecConfig(
        units=units.cardinality,
        codebooks=config.codebooks,
        cardinality=config.cardinality,
        code_width=config.code_width,
        causal=config.causal,
        split=config.split,
        taught=units.encoder.width if config.distilled else 0,
    )
    network = MelCodecNetwork(sizes, mel.num_mels)
    share = Share(world)
    loss = CodecLoss(network, crops, config, compute, share)
    if kept is not None:
        kept.draws = loss.draws
    fit_network(
        network.train(), loss, steps=config.steps, optim=config.optim, compute=compute, progress=progress, kept=kept,
        share=share,
    )  # fmt: skip
    loss.end()
    network.cpu()
    return MelCodec(network, None if config.distilled else units, mel)
