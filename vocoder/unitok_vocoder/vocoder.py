"""Codes or units to a waveform, saved and loaded as one folder.

Codes and units are spoken by networks of their own where there are any; otherwise through log-mels.

N units, F frames, Q codebooks, M mel bins, E voice width, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.acoustic.base import AcousticTokenizer, LatentCodec, codec_mel
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json, read_tensors, write_json
from unitok_vocoder.generator import Generator, is_generator, units_condition
from unitok_vocoder.griffin_lim import griffin_lim
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.unit_mel import UnitMel


class Vocoder:
    """The mel vocoder, what speaks units and codes, and the voices of known speakers.

    Args:
        mel: log-mels → samples; None falls back to Griffin-Lim.
        units: units → log-mels, or at once to samples; None where only codes are spoken.
        voices: speaker name → voice vector (E,).
        mel_config: features, where there is no network.
        codes: codes of one codec → samples; None where the codec's own samples or log-mels are taken.

    Raises:
        InputError: networks of several sample rates.
    """

    def __init__(
        self,
        mel: MelVocoder | Generator | None,
        units: UnitMel | Generator | None = None,
        voices: Mapping[str, np.ndarray] | None = None,
        mel_config: MelConfig | None = None,
        codes: Generator | None = None,
    ) -> None:
        self.mel = mel
        self.units = units
        self.codes = codes
        self.voices = dict(voices or {})
        networks = [network for network in (mel, units, codes) if network is not None]
        if len(rates := {network.mel.sample_rate for network in networks}) > 1:
            said = " and ".join(f"{rate} Hz" for rate in sorted(rates))
            raise InputError(f"the parts of this vocoder speak at {said}; take parts of one sample rate")
        self.mel_config = networks[0].mel if networks else mel_config or MelConfig()

    @property
    def parts(self) -> dict[str, MelVocoder | UnitMel | Generator]:
        """The networks by the names of their folders."""
        named = {"mel": self.mel, "units": self.units, "codes": self.codes}
        return {name: network for name, network in named.items() if network is not None}

    def joined(self, other: Vocoder) -> Vocoder:
        """This one with the networks of another in the place of its own, and the other's voices with its units."""
        return Vocoder(
            other.mel or self.mel,
            other.units or self.units,
            self.voices if other.units is None else other.voices,
            other.mel_config,
            other.codes or self.codes,
        )

    def with_voice(self, name: str, vector: np.ndarray) -> Vocoder:
        """This one with one more voice (E,), or another one of that name; the networks are shared."""
        return Vocoder(self.mel, self.units, {**self.voices, name: vector}, self.mel_config, self.codes)

    def fallback(self, codec: AcousticTokenizer | None) -> str:
        """What to say of codes of this codec, or of units, that Griffin-Lim speaks; empty where a network does."""
        by_mels = codec is not None and not self.speaks(codec) and codec.decode(self._none(codec)) is None
        if self.mel is not None or not (by_mels or isinstance(self.units, UnitMel)):
            return ""
        return "speaks by Griffin-Lim, which no network was trained for; `unitok train-vocoder` trains one"

    def speaks(self, codec: AcousticTokenizer) -> bool:
        """Whether a network speaks the codes of this codec at once."""
        return self.codes is not None and self.codes.condition.made_by == codec.fingerprint

    @staticmethod
    def _none(codec: AcousticTokenizer) -> np.ndarray:
        return np.zeros((0, len(codec.cardinalities)), dtype=np.int64)

    @property
    def sample_rate(self) -> int:
        """Hz of what comes out."""
        return self.mel_config.sample_rate

    def to(self, device: torch.device | str) -> Vocoder:
        """Move all networks; returns itself."""
        for network in self.parts.values():
            network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the networks lie; the processor without any."""
        network = next(iter(self.parts.values()), None)
        return torch.device("cpu") if network is None else next(network.parameters()).device

    @torch.inference_mode()
    def from_features(self, log_mels: Tensor) -> np.ndarray:
        """Log-mels (F, M) on any device → samples (S,)."""
        if not len(log_mels):
            return np.zeros(0, dtype=np.float32)
        log_mels = log_mels.to(self.device)
        samples = griffin_lim(log_mels, self.mel_config) if self.mel is None else self.mel(log_mels[None])[0]
        return samples.cpu().numpy()

    @torch.inference_mode()
    def from_codes(self, codes: np.ndarray, codec: AcousticTokenizer) -> np.ndarray:
        """Codes (F, Q) → samples (S,) at `sample_rate`, whatever the codec's own rate is."""
        if not len(codes):
            return np.zeros(0, dtype=np.float32)
        if self.codes is not None and self.speaks(codec):
            table = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(self.device)
            made: np.ndarray = self.codes(table[None])[0].cpu().numpy()
            return made
        samples = codec.decode(codes)
        return self._spoken(samples, None if samples is not None else codec.decode_features(codes), codec)

    def from_latents(self, latents: np.ndarray, codec: AcousticTokenizer) -> np.ndarray:
        """Latents (F, D) of a codec, as a model predicts them in place of codes → samples (S,) at `sample_rate`.

        Raises:
            InputError: a codec whose codes stand for no vectors.
        """
        if not isinstance(codec, LatentCodec):
            raise InputError(f"codec {codec.name!r} has no latents to decode; predict its codes")
        if not len(latents):
            return np.zeros(0, dtype=np.float32)
        samples = codec.decode_latents(latents)
        return self._spoken(samples, None if samples is not None else codec.decode_latent_features(latents), codec)

    def _spoken(self, samples: np.ndarray | None, features: np.ndarray | None, codec: AcousticTokenizer) -> np.ndarray:
        """What a codec decodes to, its samples (S,) or log-mels (F, M), as samples at `sample_rate`."""
        if samples is not None:
            return resample(samples, codec.sample_rate, self.sample_rate)
        assert features is not None, "a codec decodes to samples or to features"
        own = codec_mel(codec)
        if self.mel is None and own is not None and len(features):  # Griffin-Lim reads any
            made = griffin_lim(torch.from_numpy(features).to(self.device), own).cpu().numpy()
            return resample(made, own.sample_rate, self.sample_rate)
        return self.from_features(torch.from_numpy(features))

    @torch.inference_mode()
    def from_units(
        self,
        units: np.ndarray,
        *,
        voice: str | np.ndarray | None = None,
        durations: np.ndarray | None = None,
        pitch: np.ndarray | None = None,
    ) -> np.ndarray:
        """Deduplicated units (N,) → samples (S,).

        Args:
            units: local unit ids.
            voice: a known speaker, a voice vector (E,), or None for the mean of the known voices.
            durations: frames of each unit; predicted where None.
            pitch: Hz of each frame of the units (T,), 0 where there is none; predicted where None.

        Raises:
            InputError: nothing here speaks units, or heeds a pitch; units that it does not know; durations, pitches
                or a voice that do not fit.
        """
        if self.units is None:
            raise InputError("this model has no unit synthesizer; ask for codes (--output codes; output='codes')")
        if not len(units):
            return np.zeros(0, dtype=np.float32)
        vector = torch.from_numpy(np.asarray(self.voice_vector(voice), dtype=np.float32)).to(self.device)
        self._check_units(units, vector, durations)
        if isinstance(self.units, UnitMel):
            if pitch is not None:
                raise InputError("this unit synthesizer takes no pitch; leave it out, or train one `--from units`")
            return self.from_features(self.units.synthesize(units, vector, durations))
        given = units_condition(self.units).inputs(units, vector, durations, pitch)
        made: np.ndarray = self.units(*given)[0].cpu().numpy()
        return made

    def _check_units(self, units: np.ndarray, voice: Tensor, durations: np.ndarray | None) -> None:
        """InputError for units that are not known, for a voice of another width, and for durations that are none."""
        table, (known, width) = np.asarray(units), self._unit_sizes()
        if table.dtype.kind not in "iu" or table.min() < 0 or table.max() >= known:
            raise InputError(
                f"units lie from {table.min()} to {table.max()}: this synthesizer knows 0 to {known - 1}, whole ones"
            )
        if voice.shape != (width,):
            raise InputError(f"the voice is of shape {tuple(voice.shape)}: this synthesizer takes ({width},)")
        if durations is None:
            return
        frames = np.asarray(durations)
        whole = np.equal(frames, np.floor(frames)) & (frames >= 0)
        if frames.shape == table.shape and not (whole.all() and frames.any()):
            raise InputError(
                f"durations lie from {frames.min()} to {frames.max()}: give whole frames, some of them above 0"
            )

    def _unit_sizes(self) -> tuple[int, int]:
        """(units that are known, width E of a voice) of what speaks units."""
        assert self.units is not None
        config = self.units.config if isinstance(self.units, UnitMel) else units_condition(self.units).config
        return config.units, config.voice

    def voice_vector(self, voice: str | np.ndarray | None) -> np.ndarray:
        """(E,) float32 of a known speaker, a vector as it is, or the mean voice."""
        if isinstance(voice, np.ndarray):
            return voice
        if voice is None:
            assert self.units is not None
            known = list(self.voices.values())
            return np.mean(known, axis=0) if known else np.zeros(self._unit_sizes()[1], dtype=np.float32)
        if voice not in self.voices:
            raise InputError(f"unknown voice {voice!r}; known: {', '.join(sorted(self.voices))}, or give a recording")
        return self.voices[voice]

    @torch.inference_mode()
    def voice_of(self, samples: np.ndarray) -> np.ndarray:
        """Voice vector (E,) of a recording (S,) at `sample_rate`."""
        if self.units is None:
            raise InputError("this model has no speaker encoder: name a known speaker")
        least = self.units.mel.n_fft  # less than a window says nothing of a voice, but must not fail either
        padded = np.pad(np.asarray(samples, dtype=np.float32), (0, max(0, least - len(samples))))
        mels = log_mel(torch.from_numpy(padded).to(self.device), self.units.mel)
        speaker = units_condition(self.units).speaker if isinstance(self.units, Generator) else self.units.speaker
        found: np.ndarray = speaker(mels[None])[0].cpu().numpy()
        return found

    def save(self, folder: Path | str) -> None:
        """Write the folder that `load` reads."""
        from safetensors.numpy import save_file

        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        for name, network in self.parts.items():
            network.save(root / name)
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
                _part(root / "mel", MelVocoder),
                _part(root / "units", UnitMel),
                {name: value.numpy() for name, value in voices.items()},
                MelConfig(**config["mel"]),
                _part(root / "codes", Generator),
            )


P = TypeVar("P", MelVocoder, UnitMel, Generator)


def _part(folder: Path, plain: type[P]) -> P | Generator | None:
    """The network of a folder: a generator, or else what stood there before there were any; None without a folder."""
    if not folder.is_dir():
        return None
    return Generator.load(folder) if is_generator(folder) else plain.load(folder)
