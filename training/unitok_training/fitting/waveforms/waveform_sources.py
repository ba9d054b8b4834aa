"""What a vocoder learns from: crops of recordings with their log-mels, codes, or units, pitch and another's voice.

A crop of a step is a pure function of the seed and the step, so that a run goes on from any of them.
B batch, S samples of a crop, T frames of the inputs, N units, M mel bins, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.encoders.pitch import SAMPLE_RATE as PITCH_RATE
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.prosody.contour import contour
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_vocoder.conditions import octaves
from unitok_vocoder.generator import Generator, units_condition

REFERENCE = 100
"""Mel frames of a voice's reference, of another utterance of the speaker where there is one."""
VOICE_ROWS = 20
"""Most utterances that a speaker's voice is the mean of."""
PITCH_SHARE, VOICED_SHARE = 0.3, 0.1
"""Weights of the predicted pitch and of whether there is one, beside that of the durations."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Inputs and samples of a step, on the processor."""

    rows: tuple[int, ...]
    """Which recordings."""
    inputs: tuple[Tensor, ...]
    """(B, T, …) each."""
    samples: Tensor
    """(B, S)."""

    def to(self, device: torch.device) -> Crop:
        """On a device."""
        inputs = tuple(one.to(device) for one in self.inputs)
        return Crop(rows=self.rows, inputs=inputs, samples=self.samples.to(device))


class WaveSource(Protocol):
    """Crops of a step, and what a generator of their kind is given and learns beside the sound."""

    def crop(self, step: int) -> Crop:
        """Crops of a step."""

    def given(self, generator: Generator, crop: Crop) -> tuple[Tensor, ...]:
        """What the generator takes."""

    def aside(self, generator: Generator, crop: Crop, given: tuple[Tensor, ...]) -> Tensor | None:
        """The loss () of what it predicts beside the sound; None where it predicts nothing."""

    def voices(self, generator: Generator) -> dict[str, np.ndarray]:
        """Vector of every named speaker."""


@dataclass(frozen=True, kw_only=True)
class CropSizes:
    """How recordings are cut."""

    hop: int
    """Samples of a frame."""
    length: int
    """Frames of a crop."""
    batch: int
    """Crops of a step."""
    seed: int
    """Of the crops."""


class Crops:
    """Recordings and one or more series of frames of each, cut at the same places.

    Args:
        recordings: (S,) float32 each; silence is behind what is shorter than its frames.
        series: for each recording the tensors (T, …) that are cut.
        sizes: how.
        others: the same series in a worse state, such as log-mels that a codec has decoded; None for none of one.

    Raises:
        InputError: no recording is as long as a crop.
    """

    def __init__(
        self,
        recordings: Sequence[np.ndarray],
        series: Sequence[Sequence[Tensor]],
        sizes: CropSizes,
        others: Sequence[Sequence[Tensor] | None] = (),
    ) -> None:
        assert len(recordings) == len(series) > 0
        self.recordings, self.series, self.others = recordings, series, others or [None] * len(series)
        self.hop, self.length, self.batch, self.seed = sizes.hop, sizes.length, sizes.batch, sizes.seed
        both = [[*parts, *(other or ())] for parts, other in zip(series, self.others)]
        self.frames = [min(len(one) for one in parts) for parts in both]
        if max(self.frames) < self.length:
            raise InputError(
                f"none of {len(recordings)} recordings lasts the {self.length} frames of a crop; lower crop, or give "
                "longer ones"
            )
        self.usable = [row for row, frames in enumerate(self.frames) if frames >= self.length]

    def random(self, step: int) -> np.random.Generator:
        """Draws of a step."""
        return np.random.default_rng([self.seed, step])

    def cut(self, step: int, *, share: float = 0.0) -> Crop:
        """Crops of a step; a share of them from the series of the others, where a recording has them."""
        random, rows, samples = self.random(step), [], []
        inputs: list[list[Tensor]] = [[] for _ in self.series[0]]
        for pick in random.choice(len(self.usable), self.batch):
            row = self.usable[int(pick)]
            start = int(random.integers(0, self.frames[row] - self.length + 1))
            swapped = random.random() < share
            other = self.others[row] if swapped else None
            for place, one in enumerate(self.series[row] if other is None else other):
                inputs[place].append(one[start : start + self.length])
            wave = self.recordings[row][start * self.hop : (start + self.length) * self.hop]
            samples.append(torch.from_numpy(np.pad(wave, (0, self.length * self.hop - len(wave)))))
            rows.append(row)
        return Crop(
            rows=tuple(rows), inputs=tuple(torch.stack(one) for one in inputs), samples=torch.stack(samples).float()
        )


class PlainSource:
    """Crops whose inputs are what the generator takes: log-mels or codes.

    Args:
        crops: the crops.
        share: of crops that are taken from their others.
    """

    def __init__(self, crops: Crops, share: float = 0.0) -> None:
        self.crops, self.share = crops, share

    def crop(self, step: int) -> Crop:
        """See `WaveSource.crop`."""
        return self.crops.cut(step, share=self.share)

    def given(self, generator: Generator, crop: Crop) -> tuple[Tensor, ...]:
        """See `WaveSource.given`."""
        return crop.inputs

    def aside(self, generator: Generator, crop: Crop, given: tuple[Tensor, ...]) -> None:
        """Nothing."""
        return None

    def voices(self, generator: Generator) -> dict[str, np.ndarray]:
        """None: the inputs say whose voice it is."""
        return {}


class UnitsSource:
    """Crops of units and pitch, with the voice of another utterance of the speaker.

    Args:
        crops: of units (T,) and pitches (T,).
        speakers: a name per recording; empty names are voices of their own.
        mel: features that a voice is taken from.
        recordings: (S,) of each, without the silence that crops of short ones have behind them.
        units: (T,) of these.
    """

    def __init__(
        self, crops: Crops, speakers: Sequence[str], mel: MelConfig, recordings: Sequence[np.ndarray],
        units: Sequence[np.ndarray],
    ) -> None:  # fmt: skip
        self.crops, self.speakers = crops, list(speakers)
        with torch.no_grad():
            self.mels = [log_mel(torch.from_numpy(one), mel) for one in recordings]
        self.peers: dict[str, list[int]] = {}
        for row, speaker in enumerate(speakers):
            if len(self.mels[row]):
                self.peers.setdefault(speaker or f"#{row}", []).append(row)
        self.runs = [deduplicate(one) for one in units]

    def crop(self, step: int) -> Crop:
        """Units (B, T), pitch (B, T), and log-mels (B, R, M) of each voice."""
        found = self.crops.cut(step)
        random = np.random.default_rng([self.crops.seed, step, 1])
        references = []
        for row in found.rows:
            peers = self.peers[self.speakers[row] or f"#{row}"]
            mels = self.mels[peers[int(random.integers(len(peers)))]]
            mels = mels.repeat(-(-REFERENCE // len(mels)), 1)
            start = int(random.integers(0, len(mels) - REFERENCE + 1))
            references.append(mels[start : start + REFERENCE])
        return Crop(rows=found.rows, inputs=(*found.inputs, torch.stack(references)), samples=found.samples)

    def given(self, generator: Generator, crop: Crop) -> tuple[Tensor, ...]:
        """See `WaveSource.given`."""
        frames, pitch, references = crop.inputs
        return frames, pitch, units_condition(generator).speaker(references).float()

    def aside(self, generator: Generator, crop: Crop, given: tuple[Tensor, ...]) -> Tensor:
        """Of durations, of pitch, and of where there is one; a voice does not learn from them."""
        frames, pitch, voice = given
        condition, voice = units_condition(generator), voice.detach()
        runs = [self.runs[row] for row in crop.rows]
        table, counts = (
            torch.nn.utils.rnn.pad_sequence([torch.from_numpy(run[place]) for run in runs], batch_first=True)
            for place in (0, 1)
        )
        table, counts = table.to(frames.device), counts.to(frames.device)
        mask = (counts > 0).float()
        logs = condition.log_durations(table, voice, mask[..., None])
        durations = ((logs - counts.clamp(min=1).float().log()) * mask).square().sum() / mask.sum()
        found, voiced = condition.pitch_of(frames, voice)
        spoken = (pitch > 0).float()
        heights = ((found - octaves(pitch)).abs() * spoken).sum() / spoken.sum().clamp(min=1.0)
        presence = functional.binary_cross_entropy_with_logits(voiced, spoken)
        return durations + PITCH_SHARE * heights + VOICED_SHARE * presence

    @torch.inference_mode()
    def voices(self, generator: Generator) -> dict[str, np.ndarray]:
        """See `WaveSource.voices`."""
        speaker, found = units_condition(generator).speaker, {}
        device = next(generator.parameters()).device
        for name, rows in self.peers.items():
            if not name.startswith("#"):
                vectors = [speaker(self.mels[row][None].to(device))[0].cpu().numpy() for row in rows[:VOICE_ROWS]]
                found[name] = np.mean(vectors, axis=0)
        return found


def mel_series(recordings: Sequence[np.ndarray], mel: MelConfig) -> list[tuple[Tensor]]:
    """Log-mels (F, M) of each."""
    with torch.no_grad():
        return [(log_mel(torch.from_numpy(one), mel),) for one in recordings]


def decoded_series(recordings: Sequence[np.ndarray], codec: AcousticTokenizer) -> list[tuple[Tensor] | None]:
    """Log-mels of each as a codec decodes them; None where it decodes to samples."""
    features = [codec.decode_features(codes) for codes in codec.encode_batch(recordings)]
    return [None if one is None else (torch.from_numpy(one),) for one in features]


def pitch_series(recordings: Sequence[np.ndarray], units: Sequence[np.ndarray], sample_rate: int) -> list[Tensor]:
    """Hz of every frame of the units (T,): the median of the pitches inside it, 0 where half of it or more has none."""
    found = []
    for samples, frames in zip(recordings, units):
        heard = contour(resample(samples, sample_rate, PITCH_RATE)).octaves
        parts = np.array_split(heard, len(frames)) if len(frames) else []
        voiced = [part[~np.isnan(part)] for part in parts]
        hertz = [2.0 ** float(np.median(one)) if 2 * len(one) > len(part) else 0.0 for one, part in zip(voiced, parts)]
        found.append(torch.tensor(hertz))
    return found
