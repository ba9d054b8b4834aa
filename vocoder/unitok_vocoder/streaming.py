"""Speech from units or codes as they come, equal to what all of them give at once.

All networks behind the units are convolutions, so that a sample depends on a bounded neighborhood: it is said as soon
as that is known. N units, T frames at the units' rate, F mel frames, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.errors import InputError
from unitok_vocoder.unit_mel import UnitMel
from unitok_vocoder.vocoder import Vocoder
from unitok_vocoder.vocos import reach

LEAST = 16
"""Mel frames that are worth a call of the networks."""


class UnitStream:
    """Deduplicated units in, samples out.

    All come at the end without a mel vocoder (Griffin-Lim needs all frames), and of a vocoder that speaks units itself.
    """

    def __init__(self, vocoder: Vocoder, *, voice: str | np.ndarray | None = None) -> None:
        self.vocoder = vocoder
        self.voice_name = voice
        self.units: list[int] = []
        self.durations: list[int] = []
        """Frames of the units whose neighbors are known."""
        self.frames_said = 0
        """Mel frames whose samples were given out."""
        synthesizer, mel = vocoder.units, vocoder.mel
        self.live = mel is not None and isinstance(synthesizer, UnitMel)
        if mel is not None and isinstance(synthesizer, UnitMel):
            self.device = vocoder.device
            self.voice = torch.from_numpy(np.asarray(vocoder.voice_vector(voice), dtype=np.float32)).to(self.device)
            self.hop, self.stride = mel.mel.hop_length, synthesizer.config.stride
            self.duration_reach = reach(synthesizer.duration)
            self.mel_reach = self.stride * (reach(synthesizer.encoder) + 1) + reach(synthesizer.decoder) + mel.reach

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Take the next units (N,); returns the samples (S,) that can no longer change, perhaps none."""
        self.units.extend(int(unit) for unit in units)
        return self._say(ended=False) if self.live else np.zeros(0, dtype=np.float32)

    def finish(self) -> np.ndarray:
        """The remaining samples (S,)."""
        if not self.units:
            return np.zeros(0, dtype=np.float32)
        if not self.live:
            return self.vocoder.from_units(np.asarray(self.units), voice=self.voice_name)
        return self._say(ended=True)

    @torch.inference_mode()
    def _say(self, *, ended: bool) -> np.ndarray:
        assert self.vocoder.mel is not None and isinstance(self.vocoder.units, UnitMel)
        self._predict_durations(ended)
        known = self.durations
        total = self.stride * sum(known)
        final = total if ended else total - self.mel_reach
        if final <= self.frames_said or not ended and final - self.frames_said < LEAST:
            return np.zeros(0, dtype=np.float32)
        frames = np.repeat(np.asarray(self.units[: len(known)], dtype=np.int64), known)  # (T,)
        begin = max(0, (self.frames_said - self.mel_reach) // self.stride)
        window = torch.from_numpy(frames[begin:]).to(self.device)[None]
        mask = torch.ones(1, window.shape[1], 1, device=self.device)
        log_mels = self.vocoder.units.mels(window, self.voice[None], mask)
        samples = self.vocoder.mel(log_mels)[0]  # (S,)
        first = (self.frames_said - begin * self.stride) * self.hop
        last = (final - begin * self.stride) * self.hop
        self.frames_said = final
        return samples[first:last].cpu().numpy()

    def _predict_durations(self, ended: bool) -> None:
        """Durations of the units that have all their neighbors; each is decided once."""
        assert isinstance(self.vocoder.units, UnitMel)
        done, side = len(self.durations), self.duration_reach
        until = len(self.units) if ended else len(self.units) - side
        if until <= done:
            return
        begin = max(0, done - side)
        window = torch.tensor(self.units[begin:], device=self.device)[None]
        predicted = self.vocoder.units.durations(window, self.voice)
        self.durations += predicted[done - begin : until - begin].tolist()


class CodeStream:
    """Codes of a causal built-in codec in, samples out, in memory that does not grow.

    The codec makes log-mels of a code at once; the vocoder, which looks both ways, waits for what follows them.

    Raises:
        InputError: a codec that looks forward, or a vocoder without a network for log-mels.
    """

    def __init__(self, vocoder: Vocoder, codec: MelCodec) -> None:
        if vocoder.mel is None:
            raise InputError("Griffin-Lim needs all log-mels at once; train a vocoder: unitok train-vocoder")
        self.features = codec.feature_stream()
        self.network = vocoder.mel
        self.hop, self.reach = self.network.mel.hop_length, self.network.reach
        self.held = torch.zeros(1, 0, self.network.mel.num_mels, device=vocoder.device)
        """Log-mels (1, F, M) that are not said yet, and `reach` before them."""
        self.said = 0
        """How many of those have been said."""

    @property
    def latency_ms(self) -> float:
        """Of what follows a code's frame, so much is waited for."""
        return 1000.0 * self.reach * self.hop / self.network.mel.sample_rate

    def push(self, codes: np.ndarray) -> np.ndarray:
        """Take the next codes (T, Q'); returns the samples (S,) that can no longer change, perhaps none."""
        log_mels = torch.from_numpy(self.features.push(codes)).to(self.held.device)
        self.held = torch.cat([self.held, log_mels[None]], dim=1)
        return self._say(self.held.shape[1] - self.reach)

    def finish(self) -> np.ndarray:
        """The remaining samples (S,)."""
        return self._say(self.held.shape[1])

    @torch.inference_mode()
    def _say(self, until: int) -> np.ndarray:
        if until <= self.said:
            return np.zeros(0, dtype=np.float32)
        samples: np.ndarray = self.network(self.held)[0, self.said * self.hop : until * self.hop].cpu().numpy()
        dropped = max(0, until - self.reach)
        self.held, self.said = self.held[:, dropped:].clone(), until - dropped
        return samples
