"""Log-mels of a recording that comes piece by piece, equal to those of the whole, in memory that does not grow.

S samples, F frames, M mel bins.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.audio.features import MelConfig, log_mel, log_mel_of, window_magnitudes


def look_ahead(config: MelConfig) -> int:
    """Samples from the beginning of a frame's hop to the end of its window: so many make it known."""
    return config.win_length // 2


class LogMelStream:
    """Samples in, log-mels out.

    Windows are centered, so that a frame is known half a window after its hop began (`look_ahead`); the first ones wait
    until it is known that the recording is long enough to be reflected at its beginning.

    Args:
        config: of the log-mels.
        least: samples that a recording is lengthened to by silence, at its end.
        device: where frames are computed.
    """

    def __init__(self, config: MelConfig, *, least: int = 0, device: torch.device | str = "cpu") -> None:
        self.config, self.least, self.device = config, least, torch.device(device)
        self.reach = config.n_fft // 2
        self.held = torch.zeros(0, device=self.device)
        """The last samples, from `start` on."""
        self.start = 0
        self.seen = 0
        """Samples so far."""
        self.made = 0
        """Frames so far."""

    @torch.no_grad()
    def push(self, samples: np.ndarray) -> Tensor:
        """The next samples (S,) float32 → log-mels (F, M) that are known now, perhaps none."""
        heard = torch.from_numpy(np.asarray(samples, dtype=np.float32)).to(self.device)
        self.held = torch.cat([self.held, heard])
        self.seen += len(heard)
        known = (self.seen - look_ahead(self.config)) // self.config.hop_length + 1
        return self._frames(known if self.seen > self.reach else 0, ended=False)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """The remaining log-mels (F, M): the end of the recording is reflected."""
        if self.seen < self.least:
            self.held = torch.cat([self.held, self.held.new_zeros(self.least - self.seen)])
            self.seen = self.least
        if not self.made and self.seen <= self.reach:
            if self.seen < self.config.hop_length:
                return self.held.new_zeros(0, self.config.num_mels)
            return log_mel(self.held, self.config)
        return self._frames(self.seen // self.config.hop_length, ended=True)

    def _frames(self, until: int, *, ended: bool) -> Tensor:
        """Frames from the first that is not made yet to `until`."""
        if until <= self.made:
            return self.held.new_zeros(0, self.config.num_mels)
        hop, n_fft = self.config.hop_length, self.config.n_fft
        begin = self.made * hop - self.reach  # where the first window begins, in samples of the recording
        end = (until - 1) * hop - self.reach + n_fft
        parts = [self.held[max(0, begin - self.start) : end - self.start]]
        if begin < 0:  # reflected without the first sample, as torch.nn.functional.pad does
            assert self.start == 0
            parts.insert(0, self.held[1 : 1 - begin].flip(0))
        missing = end - self.seen
        if missing > 0 and ended:
            parts.append(self.held[-1 - missing : -1].flip(0))
        elif missing > 0:  # of which the window, which is shorter than the transform, sees nothing
            parts.append(self.held.new_zeros(missing))
        found = log_mel_of(window_magnitudes(torch.cat(parts)[None], self.config), self.config)[0]
        self.made = until
        keep = max(0, until * hop - self.reach)
        self.held, self.start = self.held[keep - self.start :].clone(), keep
        return found
