"""The built-in codec as a recording comes, or as codes come: piece by piece what the whole gives, without seams.

S samples, F mel frames (100 Hz), T latent frames (25 Hz), M mel bins, C width, D latent width, Q codebooks.

Only a causal network can: each of its blocks holds the few frames that its next window looks back at, and nothing else
grows. Log-mels have centered windows, so that a code waits for half a window behind the last log-mel of its frame.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.acoustic.mel_network import STRIDE, MelCodecNetwork
from unitok_tokenizers.audio.feature_stream import LogMelStream
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.networks.convolution import BlockStream, ConvBlock
from unitok_tokenizers.semantic.kmeans_units import SamplesToUnits


class _Expected:
    """What the first codebook says, of codes that come piece by piece."""

    def __init__(self, network: MelCodecNetwork) -> None:
        self.network = network
        self.context = None if network.config.taught else BlockStream(network.context)

    def __call__(self, units: Tensor) -> Tensor:
        """(1, T) → (1, T, D)."""
        if self.context is None:
            return self.network.first.decode(units.reshape(-1, 1))[None]
        return self.context(self.network.semantic(units))


class SamplesToCodes:
    """Codes of one recording that comes piece by piece: together, what `MelCodec.encode` gives of the whole.

    Args:
        network: causal.
        mel: its log-mels.
        units: of the same recording, where they are the first codebook.
    """

    def __init__(self, network: MelCodecNetwork, mel: MelConfig, units: SamplesToUnits | None) -> None:
        assert network.config.causal and (units is None) == bool(network.config.taught)
        device = network.back.weight.device
        self.network, self.units = network, units
        self.mels = LogMelStream(mel, least=STRIDE * mel.hop_length, device=device)
        self.blocks = [BlockStream(block) for block in network.encoder if isinstance(block, ConvBlock)]
        self.expected = _Expected(network)
        self.waiting = torch.zeros(0, mel.num_mels, device=device)
        """Log-mels (F, M) that fill no frame yet, or whose unit is not known yet."""
        self.known = np.zeros(0, dtype=np.int64)
        """Units (T,) whose log-mels are not known yet."""

    @torch.inference_mode()
    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples (S,) float32 → codes (T, Q) int64 that are known now, perhaps none."""
        units = None if self.units is None else self.units.push(samples)
        return self._codes(self.mels.push(samples), units)

    @torch.inference_mode()
    def finish(self) -> np.ndarray:
        """The remaining codes (T, Q)."""
        units = None if self.units is None else self.units.finish()
        return self._codes(self.mels.finish(), units)

    def _codes(self, mels: Tensor, units: np.ndarray | None) -> np.ndarray:
        self.waiting = torch.cat([self.waiting, mels])
        count = len(self.waiting) // STRIDE
        if units is not None:
            self.known = np.concatenate([self.known, units])
            count = min(count, len(self.known))
        if not count:
            return np.zeros((0, 1 + self.network.config.codebooks), dtype=np.int64)
        x = self.network.stacked(self.waiting[None, : count * STRIDE])
        self.waiting = self.waiting[count * STRIDE :].clone()
        for block in self.blocks:
            x = block(x)
        if units is None:
            first = self.network.first.encode(self.network.first_latents(x)[0])[:, 0]
        else:
            first = torch.from_numpy(self.known[:count]).to(x.device)
            self.known = self.known[count:].copy()
        rest = self.network.quantiser.encode(self.network.left_over(x, self.expected(first[None]))[0])
        codes: np.ndarray = torch.cat([first[:, None], rest], dim=1).cpu().numpy()
        return codes


class CodesToFeatures:
    """Log-mels of codes that come piece by piece: together, what `MelCodec.decode_features` gives of all. None waits.

    Args:
        network: causal.
    """

    def __init__(self, network: MelCodecNetwork) -> None:
        assert network.config.causal
        self.network = network
        self.expected = _Expected(network)
        self.blocks = [BlockStream(block) for block in network.decoder if isinstance(block, ConvBlock)]

    @torch.inference_mode()
    def push(self, codes: np.ndarray) -> np.ndarray:
        """The next codes (T, Q'), of the first codebooks or all → their log-mels (4T, M)."""
        table = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(self.network.back.weight.device)
        if not len(table):
            return np.zeros((0, self.network.back.out_features // STRIDE), dtype=np.float32)
        x = self.expected(table[None, :, 0]) + self.network.quantiser.decode(table[:, 1:])[None]
        x = self.network.from_latent(x)
        for block in self.blocks:
            x = block(x)
        log_mels: np.ndarray = self.network.unstacked(x)[0].cpu().numpy()
        return log_mels
