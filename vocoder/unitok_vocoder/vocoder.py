"""Codes or units to a waveform, saved and loaded as one folder.

N units, F frames, Q codebooks, M mel bins, E voice width, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json, read_tensors, write_json
from unitok_vocoder.griffin_lim import griffin_lim
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.unit_mel import UnitMel


class Vocoder:
    """The mel vocoder, the unit synthesizer, and the voices of known speakers.

    Args:
        mel: log-mels → samples; None falls back to Griffin-Lim.
        units: units → log-mels; None where only codes are spoken.
        voices: speaker name → voice vector (E,).
        mel_config: features, where there is neither network.
    """

    def __init__(
        self,
        mel: MelVocoder | None,
        units: UnitMel | None = None,
        voices: Mapping[str, np.ndarray] | None = None,
        mel_config: MelConfig | None = None,
    ) -> None:
        self.mel = mel
        self.units = units
        self.voices = dict(voices or {})
        found = mel.mel if mel is not None else units.mel if units is not None else mel_config
        self.mel_config = found or MelConfig()

    @property
    def sample_rate(self) -> int:
        """Hz of what comes out."""
        return self.mel_config.sample_rate

    def to(self, device: torch.device | str) -> Vocoder:
        """Move both networks; returns itself."""
        for network in (self.mel, self.units):
            if network is not None:
                network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the networks lie; the processor without any."""
        network = self.mel or self.units
        return torch.device("cpu") if network is None else next(network.parameters()).device

    @torch.inference_mode()
    def from_features(self, log_mels: Tensor) -> np.ndarray:
        """Log-mels (F, M) on any device → samples (S,)."""
        if not len(log_mels):
            return np.zeros(0, dtype=np.float32)
        log_mels = log_mels.to(self.device)
        samples = griffin_lim(log_mels, self.mel_config) if self.mel is None else self.mel(log_mels[None])[0]
        return samples.cpu().numpy()

    def from_codes(self, codes: np.ndarray, codec: AcousticTokenizer) -> np.ndarray:
        """Codes (F, Q) → samples (S,) at `sample_rate`, whatever the codec's own rate is."""
        if not len(codes):
            return np.zeros(0, dtype=np.float32)
        samples = codec.decode(codes)
        if samples is not None:
            return resample(samples, codec.sample_rate, self.sample_rate)
        features = codec.decode_features(codes)
        assert features is not None, "a codec decodes to samples or to features"
        return self.from_features(torch.from_numpy(features))

    def from_units(
        self, units: np.ndarray, *, voice: str | np.ndarray | None = None, durations: np.ndarray | None = None
    ) -> np.ndarray:
        """Deduplicated units (N,) → samples (S,).

        Args:
            units: local unit ids.
            voice: a known speaker, a voice vector (E,), or None for the mean of the known voices.
            durations: frames of each unit; predicted where None.
        """
        if self.units is None:
            raise InputError("this model has no unit synthesizer; ask for codes (--flag out:codes)")
        if not len(units):
            return np.zeros(0, dtype=np.float32)
        vector = torch.from_numpy(self.voice_vector(voice)).to(self.device)
        return self.from_features(self.units.synthesize(units, vector, durations))

    def voice_vector(self, voice: str | np.ndarray | None) -> np.ndarray:
        """(E,) float32 of a known speaker, a vector as it is, or the mean voice."""
        if isinstance(voice, np.ndarray):
            return voice
        if voice is None:
            assert self.units is not None
            known = list(self.voices.values())
            return np.mean(known, axis=0) if known else np.zeros(self.units.config.voice, dtype=np.float32)
        if voice not in self.voices:
            raise InputError(f"unknown voice {voice!r}; known: {', '.join(sorted(self.voices))}, or give a recording")
        return self.voices[voice]

    @torch.inference_mode()
    def voice_of(self, samples: np.ndarray) -> np.ndarray:
        """Voice vector (E,) of a recording (S,) at `sample_rate`."""
        if self.units is None:
            raise InputError("this model has no speaker encoder: name a known speaker")
        least = self.mel_config.n_fft  # less than a window says nothing of a voice, but must not fail either
        padded = np.pad(np.asarray(samples, dtype=np.float32), (0, max(0, least - len(samples))))
        mels = log_mel(torch.from_numpy(padded).to(self.device), self.mel_config)
        return self.units.speaker(mels[None])[0].cpu().numpy()

    def save(self, folder: Path | str) -> None:
        """Write the folder that `load` reads."""
        from safetensors.numpy import save_file

        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        if self.mel is not None:
            self.mel.save(root / "mel")
        if self.units is not None:
            self.units.save(root / "units")
        names = sorted(self.voices)
        if names:
            save_file({name: np.ascontiguousarray(self.voices[name]) for name in names}, root / "voices.safetensors")
        write_json(root / "config.json", {"mel": self.mel_config.__dict__, "voices": names})

    @staticmethod
    def load(folder: Path | str) -> Vocoder:
        """Read what `save` wrote."""
        root = Path(folder)
        with intact(root, "copy the folder again, or make it with the command that wrote it"):
            config = read_json(root / "config.json")
            voices = read_tensors(root / "voices.safetensors") if config["voices"] else {}
            return Vocoder(
                MelVocoder.load(root / "mel") if (root / "mel").is_dir() else None,
                UnitMel.load(root / "units") if (root / "units").is_dir() else None,
                {name: value.numpy() for name, value in voices.items()},
                MelConfig(**config["mel"]),
            )
