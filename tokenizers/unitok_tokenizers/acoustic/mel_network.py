"""The network of the built-in codec: log-mels at 100 Hz ↔ latents at 25 Hz, a first codebook and a residual quantizer.

B batch, S samples, F mel frames (100 Hz), T latent frames (25 Hz), M mel bins, C width, D latent width, Q codebooks,
W teacher's width.

A causal one also follows a recording as it comes, or codes: piece by piece what the whole gives, without seams. Each of
its blocks holds the few frames that its next window looks back at, and nothing else grows. Log-mels have centered
windows, so that a code waits for half a window behind the last log-mel of its frame.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.acoustic.factorized import FactorizedVq
from unitok_tokenizers.acoustic.rvq import ResidualVq
from unitok_tokenizers.audio.feature_stream import LogMelStream
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.networks.convolution import BlockStream, ConvBlock
from unitok_tokenizers.semantic.kmeans_units import SamplesToUnits

STRIDE = 4
"""Mel frames per latent frame."""
MEL_SHIFT, MEL_SCALE = 5.0, 2.5
"""Log-mels become (x + shift) / scale inside the network."""


@dataclass(frozen=True, kw_only=True)
class MelCodecConfig:
    """Sizes of the codec."""

    width: int = 192
    """Channels of the convolutions."""
    latent: int = 64
    """D."""
    codebooks: int = 2
    """Residual codebooks behind the first one."""
    cardinality: int = 512
    """Codes of a residual codebook."""
    units: int = 384
    """Codes of the first codebook."""
    blocks: int = 3
    """Blocks on each side of the quantizer."""
    code_width: int = 0
    """Width of a residual code, chosen by its angle (`FactorizedVq`); 0 for codes as wide as the latents."""
    causal: bool = False
    """Whether the convolutions look back only: then codes are known, and can be spoken, as they come."""
    split: bool = False
    """Whether the residual codebooks stand beside the first one (Mimi), and not behind it: they quantize all of the
    latents, not what the first one left over."""
    taught: int = 0
    """W of the frames that the first codebook was distilled from (SpeechTokenizer); 0 where it is the units."""

    def described(self) -> dict[str, int]:
        """As JSON; what the first version did not have stands there only where it is used."""
        late = ("code_width", "causal", "split", "taught")
        return {name: value for name, value in asdict(self).items() if name not in late or value}


class MelCodecNetwork(nn.Module):
    """Encoder, first codebook, residual quantizer, decoder."""

    def __init__(self, config: MelCodecConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        width, causal = config.width, config.causal
        self.front = nn.Linear(STRIDE * num_mels, width)
        self.encoder = nn.ModuleList(ConvBlock(width, 5, 2, 0.0, causal=causal) for _ in range(config.blocks))
        self.to_latent = nn.Linear(width, config.latent)
        if config.taught:
            if config.split:
                self.to_first = nn.Linear(width, config.latent)
            self.first = ResidualVq(config.latent, 1, config.units)
            self.teach = nn.Linear(config.latent, config.taught)
        else:
            self.semantic = nn.Embedding(config.units, config.latent)
            self.context = ConvBlock(config.latent, 5, 4, 0.0, causal=causal)
        sizes = config.latent, config.codebooks, config.cardinality
        self.quantiser = FactorizedVq(*sizes, config.code_width) if config.code_width else ResidualVq(*sizes)
        self.from_latent = nn.Linear(config.latent, width)
        self.decoder = nn.ModuleList(ConvBlock(width, 7, 3, 0.0, causal=causal) for _ in range(config.blocks + 1))
        self.back = nn.Linear(width, STRIDE * num_mels)

    # -- from log-mels to what is quantized -----------------------------------------------------------------------

    def stacked(self, mels: Tensor) -> Tensor:
        """Log-mels (B, F, M) with F = 4T → what enters the blocks (B, T, C)."""
        x = ((mels + MEL_SHIFT) / MEL_SCALE).unflatten(1, (-1, STRIDE)).flatten(2)  # (B, T, 4M)
        return functional.gelu(self.front(x))

    def latents(self, x: Tensor) -> Tensor:
        """What leaves the blocks (B, T, C) → what all codebooks together quantize, or the residual ones beside the
        first, (B, T, D)."""
        # Of unit deviation: latents that may grow run away from codebooks that follow them by moving averages.
        return functional.layer_norm(self.to_latent(x), (self.config.latent,))

    def first_latents(self, x: Tensor) -> Tensor:
        """(B, T, C) → what a first codebook that was taught quantizes, (B, T, D)."""
        if not self.config.split:
            return self.latents(x)
        return functional.layer_norm(self.to_first(x), (self.config.latent,))

    def encoded(self, mels: Tensor, mask: Tensor) -> Tensor:
        """Log-mels (B, F, M) → what leaves the blocks (B, T, C)."""
        x = self.stacked(mels)
        for block in self.encoder:
            x = block(x, mask)
        return x

    def residual(self, mels: Tensor, units: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels (B, F, M) with F = 4T and units (B, T) → what is left to quantize, and what the units say."""
        x = self.encoded(mels, mask)
        expected = self.expected(units, mask)
        return self.left_over(x, expected), expected

    def left_over(self, x: Tensor, expected: Tensor) -> Tensor:
        """(B, T, C) and what the first codebook says (B, T, D) → what the others quantize (B, T, D)."""
        latents = self.latents(x)
        return latents if self.config.split else latents - expected

    # -- from codes to log-mels -----------------------------------------------------------------------------------

    def expected(self, units: Tensor, mask: Tensor) -> Tensor:
        """What the first codebook says of the latents: (B, T) → (B, T, D); of units, neighbors taken into account."""
        if self.config.taught:
            return self.first.decode(units.reshape(-1, 1)).view(*units.shape, -1)
        return self.context(self.semantic(units), mask)

    @property
    def frames_back(self) -> int:
        """Codes before a frame that its log-mels depend on, where the network is causal."""
        before = () if self.config.taught else (self.context,)
        return sum(block.depthwise.kernel_size[0] - 1 for block in (*before, *self.decoder))

    def synthesize(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Latents (B, T, D) → log-mels (B, 4T, M)."""
        x = self.from_latent(latents)
        for block in self.decoder:
            x = block(x, mask)
        return self.unstacked(x)

    def unstacked(self, x: Tensor) -> Tensor:
        """What leaves the blocks (B, T, C) → log-mels (B, 4T, M)."""
        stacked = self.back(x).unflatten(2, (STRIDE, -1))  # (B, T, 4, M)
        return stacked.flatten(1, 2) * MEL_SCALE - MEL_SHIFT


def frame_mask(lengths: Tensor) -> Tensor:
    """(B, T, 1) float, 1 inside each length (B,)."""
    return (torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None])[..., None].float()


# -- piece by piece -----------------------------------------------------------------------------------------------


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
