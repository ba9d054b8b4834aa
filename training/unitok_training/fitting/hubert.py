"""HuBERT from scratch, small: masked prediction of clusters, whose features are its own from the second iteration on.

Hsu et al. 2021: stretches of the frames are replaced by one learned vector; a linear map of the output is compared with
an embedding of each cluster by cosine over a temperature; the loss is cross-entropy over the masked frames. The first
iteration's clusters are of MFCC, the next ones' of a middle layer. With a share of mixed batches another recording is
laid over a part of each (WavLM, Chen et al. 2022).

B recordings, S samples, T frames (25 Hz), D width, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import check_precision, resolve
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_tokenizers.encoders.conformer import STRIDE, TransformerEncoder, TrunkConfig
from unitok_tokenizers.encoders.filterbank import padded
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans import assign, fit_kmeans
from unitok_training.fitting.network import fit_network
from unitok_training.fitting.share import Share, same_in_all
from unitok_training.trainer.distributed import World
from unitok_training.trainer.optimizer import OptimConfig

TEMPERATURE = 0.1
"""What cosines are divided by."""


@dataclass(frozen=True, kw_only=True)
class HubertConfig:
    """How an encoder is pre-trained."""

    trunk: TrunkConfig = field(default_factory=lambda: TrunkConfig(width=96, layers=3, heads=4, inner=256))
    """Sizes of the encoder."""
    iterations: int = 2
    """Times that clusters are made and an encoder is trained on them."""
    clusters: int = 50
    """K."""
    layer: int = 2
    """Layer whose frames are clustered after the first iteration."""
    steps: int = 1000
    """Updates of each iteration."""
    batch: int = 16
    """Recordings of an update."""
    start_share: float = 0.08
    """Share of the frames at which a masked stretch begins."""
    stretch: int = 5
    """Frames of a stretch."""
    mix_share: float = 0.0
    """Share of the recordings that another one is laid over; 0 is HuBERT."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=2e-3, warmup_steps=30))
    """Learning rate, its course and clipping; AdamW."""
    precision: str = "fp32"
    """"fp32", "bf16" (float32 weights, autocast) or "auto": bf16 where the processor multiplies it natively."""
    device: str = "cpu"
    """"cpu", "cuda" or "auto"."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_precision(self.precision)
        for name, least in (("iterations", 1), ("clusters", 2), ("steps", 1), ("batch", 1), ("stretch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: it must be {least} or more")
        if not 0 <= self.layer <= self.trunk.layers:
            raise InputError(f"layer is {self.layer}: this encoder has layers 0 to {self.trunk.layers}")
        if not 0 < self.start_share < 1 or not 0 <= self.mix_share <= 1:
            raise InputError(
                f"start_share {self.start_share} and mix_share {self.mix_share}: shares lie between 0 and 1"
            )


class MaskedEncoder(nn.Module):
    """An encoder with what only its pre-training needs: the mask's vector, the projection, the clusters' embeddings."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(config.trunk)
        width = config.trunk.width
        self.mask = nn.Parameter(0.02 * torch.randn(width))
        self.project = nn.Linear(width, width)
        self.clusters = nn.Parameter(torch.randn(config.clusters, width))

    def forward(self, mels: Tensor, frames: Tensor, masked: Tensor) -> Tensor:
        """Log-mels (B, F, M), their lengths (B,), masked frames (B, T) → logits (B, T, K)."""
        hidden = self.encoder.hidden(mels, frames, lambda x: torch.where(masked[:, : x.shape[1], None], self.mask, x))
        found = functional.normalize(self.project(hidden), dim=-1)
        return found @ functional.normalize(self.clusters, dim=-1).T / TEMPERATURE


@dataclass(frozen=True)
class Iteration:
    """What an iteration left."""

    encoder: TransformerEncoder
    accuracy: float
    """Share of masked frames whose cluster is found, over the last fifth of the steps."""
    labels: list[np.ndarray]
    """Clusters (T,) of each recording that were its targets."""
    held_out: HeldOut | None
    """What it finds in recordings that it was not trained on, where there were some."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Masked prediction in recordings that were not trained on."""

    accuracy: float
    """Share of masked frames whose cluster is found."""
    chance: float
    """Share of these frames that have the commonest of their clusters: what one guess for all would find."""


def pretrain(
    recordings: Sequence[np.ndarray],
    config: HubertConfig,
    *,
    held_out: Sequence[np.ndarray] = (),
    progress: Callable[[int, int, float], None] | None = None,
    world: World | None = None,
) -> list[Iteration]:
    """Pre-train on recordings (S,) float32 at 16 kHz; one entry per iteration, the last one's encoder the best.

    `held_out` are recordings that are tried after each iteration; their clusters are the nearest of those of the
    training. `progress` is called with (iteration, step, loss). The processes of a world share the recordings of an
    update, and all have what one would have. Raises InputError where there is less audio than clusters.
    """
    world = world or World()
    features, others = (mfcc_frames(some) for some in (recordings, held_out))
    found: list[Iteration] = []
    for number in range(config.iterations):
        centroids = centroids_of(features, config.clusters, config.seed, world)
        labels = nearest(features, centroids)
        report = None if progress is None else lambda step, loss, number=number: progress(number, step, loss)
        network, accuracy = _iterate(recordings, labels, config, number, report, world)
        encoder = network.encoder.eval()
        tried = tried_on(network, held_out, nearest(others, centroids), config) if held_out else None
        found.append(Iteration(encoder, accuracy, labels, tried))
        features, others = (encode_recordings(encoder, some, layer=config.layer) for some in (recordings, held_out))
    return found


def mfcc_frames(recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(T, 195) MFCC features of each recording at the encoder's rate."""
    mel = MelConfig()
    return encode_recordings(MfccEncoder(MelConfig(hop_length=mel.hop_length * STRIDE)), recordings)


def centroids_of(features: Sequence[np.ndarray], clusters: int, seed: int, world: World) -> Tensor:
    """(K, D) centroids of recordings' frames; in all processes of a world those of the first one."""
    found = fit_kmeans(torch.from_numpy(np.concatenate(features)), clusters, seed=seed)
    same_in_all([found], world)
    return found


def nearest(features: Sequence[np.ndarray], centroids: Tensor) -> list[np.ndarray]:
    """Cluster (T,) of each recording's frames."""
    if not features:
        return []
    labels = assign(torch.from_numpy(np.concatenate(features)), centroids).numpy()
    return np.split(labels, np.cumsum([len(one) for one in features])[:-1])


def cluster(features: Sequence[np.ndarray], clusters: int, seed: int, world: World | None = None) -> list[np.ndarray]:
    """Clusters (T,) of each recording's frames, which centroids are found for."""
    return nearest(features, centroids_of(features, clusters, seed, world or World()))


def tried_on(
    network: MaskedEncoder, recordings: Sequence[np.ndarray], labels: Sequence[np.ndarray], config: HubertConfig
) -> HeldOut:
    """What a network finds behind masks of recordings (S,), each masked once; its clusters (T,) are given."""
    random = np.random.default_rng([config.seed, len(recordings)])
    right, wanted = list[np.ndarray](), list[np.ndarray]()
    network.eval()
    with torch.inference_mode():
        for samples, own in zip(recordings, labels, strict=True):
            mels, frames = padded([network.encoder.inputs(samples)])
            masked = np.zeros((1, network.encoder.frames_of(len(samples))), dtype=np.bool_)
            some = stretches(min(len(own), masked.shape[1]), config, random)
            masked[0, : len(some)] = some
            found = network(mels, frames, torch.from_numpy(masked))[0, : len(some)].argmax(-1).numpy()
            right.append(found[some] == own[: len(some)][some])
            wanted.append(own[: len(some)][some])
    every = np.concatenate(wanted)
    return HeldOut(accuracy=float(np.concatenate(right).mean()), chance=float(np.bincount(every).max() / len(every)))


def stretches(length: int, config: HubertConfig, random: np.random.Generator) -> np.ndarray:
    """(T,) bool: which frames of a recording are masked, at least one stretch."""
    starts = np.flatnonzero(random.random(length) < config.start_share)
    starts = starts if len(starts) else random.integers(0, length, 1)
    masked = np.zeros(length, dtype=np.bool_)
    for start in starts:
        masked[start : start + config.stretch] = True
    return masked


@dataclass(frozen=True)
class Overlay:
    """Where another recording lies over one, and how loud."""

    length: int
    """Samples."""
    place: int
    """Where it begins."""
    begin: int
    """From where on the other one is taken."""
    decibels: float
    """How much louder than the one the other one is."""


def draw_overlay(samples: int, other: int, random: np.random.Generator) -> Overlay | None:
    """For recordings of so many samples: over at most half of the one, up to 5 dB softer or louder; None for none."""
    length = int(min(samples // 2, other) * random.random())
    if not length:
        return None
    place, begin = int(random.integers(samples - length + 1)), int(random.integers(other - length + 1))
    return Overlay(length, place, begin, random.uniform(-5, 5))


def overlaid(samples: np.ndarray, other: np.ndarray, overlay: Overlay) -> np.ndarray:
    """A recording with a part of another one over it."""
    loud = np.sqrt(np.mean(samples**2) / max(float(np.mean(other**2)), 1e-12)) * 10 ** (overlay.decibels / 20)
    result, length = samples.copy(), overlay.length
    part = (loud * other[overlay.begin : overlay.begin + length]).astype(np.float32)
    result[overlay.place : overlay.place + length] += part
    return result


def mixed(samples: np.ndarray, other: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another recording over at most half of this one, up to 5 dB softer or louder."""
    overlay = draw_overlay(len(samples), len(other), random)
    return samples if overlay is None else overlaid(samples, other, overlay)


class Drawn:
    """Which recordings an update takes, what lies over them, and which of their frames are masked.

    Args:
        recordings: (S,) each.
        labels: clusters (T,) of each.
        encoder: that is trained.
        config: how.
        random: what is drawn from.
    """

    def __init__(
        self,
        recordings: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        encoder: TransformerEncoder,
        config: HubertConfig,
        random: np.random.Generator,
    ) -> None:
        self.recordings, self.labels, self.encoder = recordings, labels, encoder
        self.chosen = [int(one) for one in random.integers(0, len(recordings), config.batch)]
        self.over: list[tuple[int, Overlay] | None] = []
        for i in self.chosen:
            found, other = None, 0
            if random.random() < config.mix_share:
                other = int(random.integers(len(recordings)))
                found = draw_overlay(len(recordings[i]), len(recordings[other]), random)
            self.over.append(None if found is None else (other, found))
        self.frames = [encoder.frames_of(len(recordings[i])) for i in self.chosen]
        self.masks = [
            stretches(min(len(labels[i]), frames), config, random) for i, frames in zip(self.chosen, self.frames)
        ]
        self.count = int(sum(one.sum() for one in self.masks))
        """Masked frames."""

    def inputs(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Log-mels (b, F, M) and lengths (b,) of some of them."""
        heard = [
            self.recordings[i] if over is None else overlaid(self.recordings[i], self.recordings[over[0]], over[1])
            for i, over in zip(self.chosen[rows], self.over[rows])
        ]
        return padded([self.encoder.inputs(samples) for samples in heard])

    def targets(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Masked frames (b, T) and clusters (b, T) of some of them."""
        masks = self.masks[rows]
        masked = torch.zeros((len(masks), max(self.frames[rows])), dtype=torch.bool, device="cpu")
        targets = torch.zeros(masked.shape, dtype=torch.int64, device="cpu")
        for place, (i, mask) in enumerate(zip(self.chosen[rows], masks)):
            masked[place, : len(mask)] = torch.from_numpy(mask)
            targets[place, : len(mask)] = torch.from_numpy(self.labels[i][: len(mask)])
        return masked, targets


def _iterate(
    recordings: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    config: HubertConfig,
    number: int,
    report: Callable[[int, float], None] | None,
    world: World,
) -> tuple[MaskedEncoder, float]:
    torch.manual_seed(config.seed + number)
    random = np.random.default_rng([config.seed, number])
    network = MaskedEncoder(config).train()
    compute = resolve(config.device if world.size == 1 else world.device, config.precision)
    share, right = Share(world), list[tuple[int, int]]()

    def loss(step: int) -> Tensor:
        drawn = Drawn(recordings, labels, network.encoder, config, random)
        rows = share.of(config.batch)
        mels, frames = (one.to(compute.device) for one in drawn.inputs(rows))
        masked, targets = drawn.targets(rows)
        masked, wanted = masked.to(compute.device), targets[masked].to(compute.device)
        with compute.mixed():
            logits = network(mels, frames, masked)[:, : masked.shape[1]].float()[masked]
        right.append((int((logits.argmax(-1) == wanted).sum()), len(wanted)) if share.own else (0, 0))
        return share.part(functional.cross_entropy(logits, wanted), len(wanted), drawn.count)

    def tell(step: int, found: float) -> None:
        if report is not None and (step % 50 == 0 or step == config.steps):
            report(step, found)

    fit_network(
        network, loss, steps=config.steps, optim=config.optim, compute=compute,
        plain=True, shown=f"step of iteration {number + 1}", progress=tell, share=share,
    )  # fmt: skip
    network.cpu()
    last = torch.tensor(right[-max(1, len(right) // 5) :], dtype=torch.int64, device=world.device).sum(0)
    world.sum_([last])
    hits, count = last.tolist()
    return network, hits / max(count, 1)


def save_encoder(encoder: TransformerEncoder, folder: Path) -> None:
    """Write a folder that `encoder.kind=pretrained encoder.folder=FOLDER` reads."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in encoder.state_dict().items()}, folder / "encoder.safetensors"
    )
    write_json(folder / "encoder.json", encoder.to_json())
