"""Training of the spectral vocoder and of the unit synthesizer.

B batch, S samples, F mel frames, T unit frames, N units, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.mel_network import STRIDE
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_training.fitting.codec import SPECTRAL, Crops
from unitok_training.fitting.network import fit_network
from unitok_training.trainer.optimizer import OptimConfig
from unitok_vocoder.losses import mel_loss, stft_loss
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig


@dataclass(frozen=True, kw_only=True)
class MelVocoderTraining:
    """How the spectral vocoder is trained."""

    steps: int = 1200
    """Optimizer steps."""
    batch: int = 12
    """Crops a step."""
    crop: int = 48
    """Mel frames of a crop."""
    optim: OptimConfig = replace(SPECTRAL, learning_rate=4e-3)
    """How weights move."""
    decoded_share: float = 0.5
    """Share of crops whose log-mels went through the codec, so that its errors are known."""
    seed: int = 0
    """Seed of initial weights and crops."""

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class UnitMelTraining:
    """How the unit synthesizer is trained."""

    steps: int = 900
    """Optimizer steps."""
    batch: int = 16
    """Crops a step."""
    crop: int = 40
    """Unit frames of a crop."""
    reference: int = 100
    """Mel frames of the voice reference, taken from another utterance of the speaker."""
    optim: OptimConfig = replace(SPECTRAL, matrix_learning_rate=0.03)
    """How weights move."""
    seed: int = 0
    """Seed of initial weights and crops."""

    def __post_init__(self) -> None:
        check_seed(self.seed)


Progress = Callable[[int, float], None]


def train_mel_vocoder(
    recordings: Sequence[np.ndarray],
    codec: AcousticTokenizer | None,
    config: MelVocoderTraining,
    *,
    mel: MelConfig | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> MelVocoder:
    """Train log-mels → samples with spectral losses, on true and on codec-decoded log-mels.

    One process trains it: spectral convergence is of a whole batch, no sum of what is said of its parts.
    """
    mel, compute = mel or MelConfig(), compute or resolve("cpu")
    hop = mel.hop_length
    # Silence behind recordings that are shorter than a crop: in a corpus of single words that is most of them.
    shortest = (config.crop + 8) * hop
    recordings = [np.pad(one, (0, max(0, shortest - len(one)))) for one in recordings]
    with torch.no_grad():
        true = [log_mel(torch.from_numpy(samples), mel) for samples in recordings]
    decoded: list[Tensor | None] = [None] * len(recordings)
    if codec is not None and config.decoded_share > 0:
        for index, codes in enumerate(codec.encode_batch(recordings)):
            features = codec.decode_features(codes)
            decoded[index] = None if features is None else torch.from_numpy(features)
    torch.manual_seed(config.seed)
    vocoder = MelVocoder(MelVocoderConfig(), mel)
    random = np.random.default_rng(config.seed)

    def loss(step: int) -> Tensor:
        mels, waves = [], []
        for row in random.choice(len(true), config.batch):
            other = decoded[row]
            chosen = other if other is not None and random.random() < config.decoded_share else true[row]
            start = int(random.integers(0, min(len(chosen), len(true[row])) - config.crop))
            mels.append(chosen[start : start + config.crop])
            waves.append(torch.from_numpy(recordings[row][start * hop : (start + config.crop) * hop]))
        real = torch.stack(waves).to(compute.device)
        with compute.mixed():
            made = vocoder(torch.stack(mels).to(compute.device))
        return mel_loss(made, real, mel) + stft_loss(made, real)

    fit_network(vocoder, loss, steps=config.steps, optim=config.optim, compute=compute, progress=progress)
    return vocoder.cpu().eval()


def train_unit_mel(
    recordings: Sequence[np.ndarray],
    units: Sequence[np.ndarray],
    speakers: Sequence[str],
    cardinality: int,
    config: UnitMelTraining,
    *,
    stride: int = STRIDE,
    mel: MelConfig | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> tuple[UnitMel, dict[str, np.ndarray]]:
    """Train units and a voice → log-mels, with durations and the speaker encoder.

    Args:
        recordings: (S,) float32 each.
        units: units of every frame (T,), not deduplicated.
        speakers: a name per recording; empty names are voices of their own.
        cardinality: number of units.
        stride: mel frames of a unit frame.

    Returns:
        The model, and the mean voice vector (E,) of every named speaker.
    """
    mel, compute = mel or MelConfig(), compute or resolve("cpu")
    with torch.no_grad():
        mels = [log_mel(torch.from_numpy(samples), mel) for samples in recordings]
    crops = Crops(mels, units, config.crop, stride=stride)
    torch.manual_seed(config.seed)
    model = UnitMel(UnitMelConfig(units=cardinality, stride=stride), mel)
    random = np.random.default_rng(config.seed)
    by_speaker: dict[str, list[int]] = {}
    for index, speaker in enumerate(speakers):
        by_speaker.setdefault(speaker or f"#{index}", []).append(index)
    runs = [deduplicate(one) for one in units]

    def loss(step: int) -> Tensor:
        rows = [crops.rows[int(row)] for row in random.choice(len(crops.rows), config.batch)]
        targets, frames = (one.to(compute.device) for one in _crops_of(crops, rows, random))
        peers = [by_speaker[speakers[row] or f"#{row}"] for row in rows]
        references = [
            _reference(mels[peer[int(random.integers(len(peer)))]], config.reference, random) for peer in peers
        ]
        with compute.mixed():
            voice = model.speaker(torch.stack(references).to(compute.device)).float()
            made = model.mels(frames, voice, torch.ones(len(rows), frames.shape[1], 1, device=compute.device))
            table, durations, mask = (one.to(compute.device) for one in _durations([runs[row] for row in rows]))
            predicted = model.log_durations(table, voice.detach(), mask)
        error = ((predicted.float() - durations.clamp(min=1).float().log()) * mask[..., 0]).pow(2).sum() / mask.sum()
        return (made.float() - targets).abs().mean() + 0.3 * error

    fit_network(model, loss, steps=config.steps, optim=config.optim, compute=compute, progress=progress)
    model.cpu().eval()
    return model, _voices(model, mels, by_speaker)


def _crops_of(crops: Crops, rows: Sequence[int], random: np.random.Generator) -> tuple[Tensor, Tensor]:
    mels, frames = [], []
    for row in rows:
        start = int(random.integers(0, len(crops.units[row]) - crops.length + 1))
        mels.append(crops.mels[row][start * crops.stride : (start + crops.length) * crops.stride])
        frames.append(crops.units[row][start : start + crops.length])
    return torch.stack(mels), torch.stack(frames)


def _reference(mels: Tensor, length: int, random: np.random.Generator) -> Tensor:
    """A crop of exactly `length` frames, a short recording repeated."""
    repeated = mels.repeat(-(-length // len(mels)), 1) if len(mels) < length else mels
    start = int(random.integers(0, len(repeated) - length + 1))
    return repeated[start : start + length]


def _durations(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor, Tensor]:
    """Padded units (B, N), durations (B, N) and mask (B, N, 1)."""
    table = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(units) for units, _ in runs], batch_first=True)
    counts = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(counts) for _, counts in runs], batch_first=True)
    return table, counts, (counts > 0).float()[..., None]


@torch.inference_mode()
def _voices(model: UnitMel, mels: Sequence[Tensor], by_speaker: dict[str, list[int]]) -> dict[str, np.ndarray]:
    voices = {}
    for speaker, rows in by_speaker.items():
        if not speaker.startswith("#"):
            voices[speaker] = np.mean([model.speaker(mels[row][None])[0].cpu().numpy() for row in rows[:20]], axis=0)
    return voices
