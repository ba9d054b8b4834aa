"""The built-in codec: log-mels at 100 Hz → latents at 25 Hz → a semantic codebook and a residual quantizer → log-mels.

B batch, S samples, F mel frames (100 Hz), T latent frames (25 Hz), M mel bins, D latent width, Q codebooks.

The first codebook is the unit tokenizer's (SpeechTokenizer's idea, Zhang et al. 2023, without distillation: the units
themselves): it says the words, and the others say what is left, the voice and the rest. A decoder that reads codes then
finds the words in the first codebook. `decode` gives no samples: a vocoder turns the log-mels into a waveform.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.acoustic.base import codes_info
from unitok_tokenizers.acoustic.factorized import FactorizedVq
from unitok_tokenizers.acoustic.rvq import ResidualVq
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.batches import batches_by_length, padded_mels
from unitok_tokenizers.encoders.networks.convolution import ConvBlock
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.progress import advance_aside
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer

STRIDE = 4
"""Mel frames per latent frame."""
MEL_SHIFT, MEL_SCALE = 5.0, 2.5
"""Log-mels become (x + shift) / scale inside the network."""
BATCH_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class MelCodecConfig:
    """Sizes of the codec."""

    width: int = 192
    """Channels of the convolutions."""
    latent: int = 64
    """D."""
    codebooks: int = 2
    """Residual codebooks behind the semantic one."""
    cardinality: int = 512
    """Codes of a residual codebook."""
    units: int = 384
    """Codes of the semantic codebook."""
    blocks: int = 3
    """Blocks on each side of the quantizer."""
    code_width: int = 0
    """Width of a residual code, chosen by its angle (`FactorizedVq`); 0 for codes as wide as the latents."""

    causal: bool = False
    """Whether the convolutions look back only: then codes can be spoken as they come."""

    def described(self) -> dict[str, int]:
        """As JSON; what the first version did not have stands there only where it is used."""
        late = ("code_width", "causal")
        return {name: value for name, value in asdict(self).items() if name not in late or value}


class MelCodecNetwork(nn.Module):
    """Encoder, semantic embedding, residual quantizer, decoder."""

    def __init__(self, config: MelCodecConfig, num_mels: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.front = nn.Linear(STRIDE * num_mels, width)
        self.encoder = nn.ModuleList(ConvBlock(width, 5, 2, 0.0, causal=config.causal) for _ in range(config.blocks))
        self.to_latent = nn.Linear(width, config.latent)
        self.semantic = nn.Embedding(config.units, config.latent)
        self.context = ConvBlock(config.latent, 5, 4, 0.0, causal=config.causal)
        sizes = config.latent, config.codebooks, config.cardinality
        self.quantiser = FactorizedVq(*sizes, config.code_width) if config.code_width else ResidualVq(*sizes)
        self.from_latent = nn.Linear(config.latent, width)
        self.decoder = nn.ModuleList(
            ConvBlock(width, 7, 3, 0.0, causal=config.causal) for _ in range(config.blocks + 1)
        )
        self.back = nn.Linear(width, STRIDE * num_mels)

    def expected(self, units: Tensor, mask: Tensor) -> Tensor:
        """What the semantic codebook says of the latents: units (B, T) → (B, T, D), neighbors taken into account."""
        return self.context(self.semantic(units), mask)

    def residual(self, mels: Tensor, units: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels (B, F, M) with F = 4T and units (B, T) → what is left to quantize, and what the units say."""
        x = ((mels + MEL_SHIFT) / MEL_SCALE).unflatten(1, (-1, STRIDE)).flatten(2)  # (B, T, 4M)
        x = functional.gelu(self.front(x))
        for block in self.encoder:
            x = block(x, mask)
        expected = self.expected(units, mask)
        # Of unit deviation: latents that may grow run away from codebooks that follow them by moving averages.
        latents = functional.layer_norm(self.to_latent(x), (self.config.latent,))
        return latents - expected, expected

    @property
    def frames_back(self) -> int:
        """Codes before a frame that its log-mels depend on, where the network is causal."""
        return sum(block.depthwise.kernel_size[0] - 1 for block in (self.context, *self.decoder))

    def synthesize(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Latents (B, T, D) → log-mels (B, 4T, M)."""
        x = self.from_latent(latents)
        for block in self.decoder:
            x = block(x, mask)
        stacked = self.back(x).unflatten(2, (STRIDE, -1))  # (B, T, 4, M)
        return stacked.flatten(1, 2) * MEL_SCALE - MEL_SHIFT


class MelCodec:
    """The network with the unit tokenizer that its first codebook comes from."""

    name = "codes"

    def __init__(self, network: MelCodecNetwork, units: UnitTokenizer, mel: MelConfig) -> None:
        assert units.cardinality == network.config.units and units.frame_rate == mel.frame_rate / STRIDE
        self.network = network.eval()
        self.units = units
        self.mel = mel
        self.sample_rate = mel.sample_rate
        self.frame_rate: Fraction = mel.frame_rate / STRIDE
        config = network.config
        self.cardinalities = (config.units, *[config.cardinality] * config.codebooks)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        weights = array_fingerprint(*(value.cpu().numpy() for value in self.network.state_dict().values()))
        return fingerprint(["mel_rvq", weights, self.units.fingerprint, asdict(self.mel)])

    def to(self, device: torch.device | str) -> MelCodec:
        """Move the network and the unit tokenizer; returns itself."""
        self.network.to(device)
        self.units.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.network.back.weight.device

    @torch.inference_mode()
    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Codes (T, Q) of each recording: the unit, then the residual codes."""
        out: list[np.ndarray] = [np.zeros((0, len(self.cardinalities)), dtype=np.int64)] * len(recordings)
        all_units, done = self.units.encode_batch(recordings), 0
        for batch in batches_by_length([len(one) for one in recordings], BATCH_SECONDS * self.sample_rate):
            mels, _ = padded_mels([recordings[index] for index in batch], self.mel, self.device)
            rows = [torch.from_numpy(all_units[index]) for index in batch]
            units = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
            mask = frame_mask(torch.tensor([len(row) for row in rows], device=self.device))
            usable = mels[:, : units.shape[1] * STRIDE] * mask.repeat_interleave(STRIDE, 1)
            residual, _ = self.network.residual(usable, units, mask)
            for row, index in enumerate(batch):
                length = len(all_units[index])
                rest = self.network.quantiser.encode(residual[row, :length])
                out[index] = torch.cat([units[row, :length, None], rest], dim=1).cpu().numpy()
            done += len(batch)
            advance_aside("recording", done, len(recordings))
        return out

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Codes (T, Q) of one recording."""
        return self.encode_batch([samples])[0]

    def decode(self, codes: np.ndarray) -> None:
        """No samples: see `decode_features`."""
        return None

    @torch.inference_mode()
    def decode_features(self, codes: np.ndarray) -> np.ndarray:
        """Codes (T, Q) → log-mels (4T, M)."""
        table = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(self.device)
        mask = torch.ones(1, len(table), 1, device=self.device)
        latents = self.network.expected(table[None, :, 0], mask) + self.network.quantiser.decode(table[:, 1:])[None]
        return self.network.synthesize(latents, mask)[0].cpu().numpy()

    def decode_features_stream(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes (T, Q) as they come → log-mels (4T, M) of each piece, those of the whole; for causal networks only."""
        assert self.network.config.causal, "what looks forward must wait for the end: decode_features"
        held = np.zeros((0, len(self.cardinalities)), dtype=np.int64)
        for piece in pieces:
            joined = np.concatenate([held, piece])
            if len(piece):
                yield self.decode_features(joined)[len(held) * STRIDE :]
            held = joined[max(0, len(joined) - self.network.frames_back) :]

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return codes_info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        self.units.save(folder / "units")
        save_file(
            {name: value.cpu() for name, value in self.network.state_dict().items()}, folder / "model.safetensors"
        )
        config = {"class": "mel_rvq", "mel": asdict(self.mel), "network": self.network.config.described()}
        write_json(folder / "config.json", config)

    @staticmethod
    def load(folder: Path) -> MelCodec:
        """Read what `save` wrote."""
        config = read_json(folder / "config.json")
        mel = MelConfig(**config["mel"])
        network = MelCodecNetwork(MelCodecConfig(**config["network"]), mel.num_mels)
        network.load_state_dict(read_tensors(folder / "model.safetensors"))
        return MelCodec(network, UnitTokenizer.load(folder / "units"), mel)


def frame_mask(lengths: Tensor) -> Tensor:
    """(B, T, 1) float, 1 inside each length (B,)."""
    return (torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None])[..., None].float()
