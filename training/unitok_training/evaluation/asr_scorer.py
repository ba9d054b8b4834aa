"""The judge: a recognizer trained on reference audio only, that reads what the model speaks; and who speaks.

S samples, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.audio.speech_activity import spoken_parts
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json, read_tensors, write_json
from unitok_tokenizers.seeds import LARGEST_SEED
from unitok_training.evaluation.metrics import wer
from unitok_training.fitting.ctc import CtcConfig, train_ctc

SPEAKER_RECORDINGS = 1500
"""Most recordings that the speaker classifier is fitted to; its features are a few numbers a recording."""


class SpeakerClassifier:
    """Multinomial regression on the mean and deviation of each mel bin."""

    def __init__(self, names: Sequence[str], weight: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> None:
        self.names = list(names)
        self.weight, self.mean, self.scale = weight, mean, scale

    @staticmethod
    def features(recordings: Sequence[np.ndarray]) -> torch.Tensor:
        """(N, 2M + 1) statistics of recordings, the overall level taken out."""
        rows = []
        for samples in recordings:
            mels = log_mel(torch.from_numpy(samples), MelConfig())
            voiced = mels[mels.mean(1) > mels.mean() - 1.0]
            mean = voiced.mean(0) - voiced.mean()
            rows.append(torch.cat([mean, voiced.std(0, correction=0), mean.new_ones(1)]))
        return torch.stack(rows)

    @staticmethod
    def train(recordings: Sequence[np.ndarray], speakers: Sequence[str]) -> SpeakerClassifier:
        """Fit on reference audio."""
        pairs = [(one, name) for one, name in zip(recordings, speakers) if _has_frames(one)]
        recordings, speakers = [one for one, _ in pairs], [name for _, name in pairs]
        names = sorted(set(speakers))
        x = SpeakerClassifier.features(recordings)
        mean, scale = x.mean(0), x.std(0) + 1e-3
        mean[-1], scale[-1] = 0.0, 1.0
        x = (x - mean) / scale
        y = torch.tensor([names.index(speaker) for speaker in speakers], device=x.device)
        weight = torch.zeros(x.shape[1], len(names), device=x.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=60)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(x @ weight, y) + 1e-3 * weight.pow(2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return SpeakerClassifier(names, weight.detach(), mean, scale)

    def predict(self, recordings: Sequence[np.ndarray]) -> list[str]:
        """The most probable speaker of each recording; "" of one that has no sound."""
        found, there = [""] * len(recordings), [place for place, one in enumerate(recordings) if _has_frames(one)]
        if there:
            x = (self.features([recordings[place] for place in there]) - self.mean) / self.scale
            for place, index in zip(there, (x @ self.weight).argmax(1).tolist()):
                found[place] = self.names[index]
        return found


def _has_frames(samples: np.ndarray) -> bool:
    """Whether a recording has a log-mel at all."""
    return len(samples) >= MelConfig().hop_length


class AsrScorer:
    """A recognizer and a speaker classifier that never saw generated audio."""

    def __init__(self, recognizer: CtcEncoder, speakers: SpeakerClassifier | None) -> None:
        self.recognizer = recognizer
        self.speakers = speakers

    @staticmethod
    def train(
        recordings: Sequence[np.ndarray],
        texts: Sequence[str],
        speakers: Sequence[str],
        config: CtcConfig,
        *,
        compute: Compute | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> AsrScorer:
        """Train both on reference audio. The judge's seed differs from the unit encoder's, whatever was configured."""
        other = replace(config, seed=(config.seed + 1000) & LARGEST_SEED)
        network = train_ctc(recordings, texts, other, compute=compute, progress=progress)
        known = [index for index, name in enumerate(speakers) if name]
        if len(known) > SPEAKER_RECORDINGS:
            known = np.random.default_rng(config.seed).permutation(known)[:SPEAKER_RECORDINGS].tolist()
        classifier = None
        if len({speakers[index] for index in known}) > 1:
            classifier = SpeakerClassifier.train([recordings[i] for i in known], [speakers[i] for i in known])
        return AsrScorer(CtcEncoder(network, MelConfig(), config.blocks), classifier)

    def transcribe(self, recordings: Sequence[np.ndarray]) -> list[str]:
        """What is said in recordings (S,) at 16 kHz, and "" where nothing is."""
        detector = self.recognizer if self.recognizer.knows_noise else None
        spoken = spoken_parts(recordings, self.recognizer.sample_rate, detector)
        heard = iter(self.recognizer.transcribe([one for one in spoken if len(one)]))
        return [next(heard) if len(one) else "" for one in spoken]

    def controls(self, recordings: Sequence[np.ndarray], texts: Sequence[str], *, seed: int = 0) -> dict[str, float]:
        """Its error on reference audio, on noise of the same level, and against shuffled transcripts."""
        random = np.random.default_rng(seed)
        noise = [random.normal(0.0, np.std(one) + 1e-6, len(one)).astype(np.float32) for one in recordings]
        read = self.transcribe(recordings)
        order = np.roll(np.arange(len(texts)), max(1, len(texts) // 3))
        return {
            "wer": wer(texts, read),
            "control_noise_wer": wer(texts, self.transcribe(noise)),
            "control_shuffled_wer": wer([texts[index] for index in order.tolist()], read),
        }

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        self.recognizer.save(folder)
        if self.speakers is not None:
            speakers = self.speakers
            tensors = {"weight": speakers.weight, "mean": speakers.mean, "scale": speakers.scale}
            save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "speakers.safetensors")
            write_json(folder / "speakers.json", speakers.names)

    @staticmethod
    def load(folder: Path) -> AsrScorer:
        """Read what `save` wrote."""
        if not folder.is_dir():
            raise InputError(f"{folder} holds no judge; `unitok demo` makes one in its run folder")
        with intact(folder, "copy it again, or make it with `unitok demo`"):
            speakers = None
            if (folder / "speakers.json").exists():
                tensors = read_tensors(folder / "speakers.safetensors")
                speakers = SpeakerClassifier(read_json(folder / "speakers.json"), **tensors)
            return AsrScorer(CtcEncoder.load(folder), speakers)
