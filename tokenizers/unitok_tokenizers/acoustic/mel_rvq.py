"""The built-in codec: log-mels at 100 Hz → latents at 25 Hz → a first codebook and a residual quantizer → log-mels.

B batch, S samples, F mel frames (100 Hz), T latent frames (25 Hz), M mel bins, D latent width, Q codebooks.

The first codebook is the unit tokenizer's (SpeechTokenizer's idea, Zhang et al. 2023, without distillation: the units
themselves): it says the words, and the others say what is left, the voice and the rest. A decoder that reads codes then
finds the words in the first codebook. A first codebook may also be learned, distilled from the frames behind the units;
such a codec needs no units. `decode` gives no samples: a vocoder turns the log-mels into a waveform.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.acoustic.base import codes_info
from unitok_tokenizers.acoustic.mel_network import (
    STRIDE,
    CodesToFeatures,
    MelCodecConfig,
    MelCodecNetwork,
    SamplesToCodes,
    frame_mask,
)
from unitok_tokenizers.audio.feature_stream import look_ahead
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.batches import batches_by_length, padded_mels
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.progress import advance_aside
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer

BATCH_SECONDS = 120


class MelCodec:
    """The network with the unit tokenizer that its first codebook comes from, unless this was taught to the network."""

    name = "codes"

    def __init__(self, network: MelCodecNetwork, units: UnitTokenizer | None, mel: MelConfig) -> None:
        assert (units is None) == bool(network.config.taught)
        assert units is None or units.cardinality == network.config.units
        assert units is None or units.frame_rate == mel.frame_rate / STRIDE
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
        by = None if self.units is None else self.units.fingerprint
        more = ["split"] if self.network.config.split else []
        return fingerprint(["mel_rvq", weights, by, asdict(self.mel), *more])

    def to(self, device: torch.device | str) -> MelCodec:
        """Move the network and the unit tokenizer; returns itself."""
        self.network.to(device)
        if self.units is not None:
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
        all_units, done = None if self.units is None else self.units.encode_batch(recordings), 0
        for batch in batches_by_length([len(one) for one in recordings], BATCH_SECONDS * self.sample_rate):
            mels, frames = padded_mels([recordings[index] for index in batch], self.mel, self.device)
            units, sizes = None, torch.div(frames, STRIDE, rounding_mode="floor")
            if all_units is not None:
                # pooled units count a last frame that is not full, and log-mels do not
                counts = sizes.clamp(min=1).tolist()
                rows = [torch.from_numpy(all_units[index][:count]) for index, count in zip(batch, counts)]
                units = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
                sizes = torch.tensor([len(row) for row in rows], device=self.device)
            first, residual = self._quantized_first(mels, units, frame_mask(sizes))
            for row, (index, length) in enumerate(zip(batch, sizes.tolist())):
                rest = self.network.quantiser.encode(residual[row, :length])
                out[index] = torch.cat([first[row, :length, None], rest], dim=1).cpu().numpy()
            done += len(batch)
            advance_aside("recording", done, len(recordings))
        return out

    def _quantized_first(self, mels: Tensor, units: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels (B, F, M), units (B, T) or None → codes of the first codebook (B, T), and what is left (B, T, D)."""
        wanted = mask.shape[1] * STRIDE
        filled = functional.pad(mels, (0, 0, 0, max(0, wanted - mels.shape[1])))[:, :wanted]
        usable = filled * mask.repeat_interleave(STRIDE, 1)
        if units is not None:
            return units, self.network.residual(usable, units, mask)[0]
        x = self.network.encoded(usable, mask)
        first = self.network.first.encode(self.network.first_latents(x).flatten(0, 1)).view(len(x), -1)
        return first, self.network.left_over(x, self.network.expected(first, mask))

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Codes (T, Q) of one recording."""
        return self.encode_batch([samples])[0]

    def decode(self, codes: np.ndarray) -> None:
        """No samples: see `decode_features`."""
        return None

    def decode_features(self, codes: np.ndarray) -> np.ndarray:
        """Codes (T, Q) → log-mels (4T, M)."""
        return self.decode_latent_features(self.latents(codes))

    @torch.inference_mode()
    def latents(self, codes: np.ndarray) -> np.ndarray:
        """Codes (T, Q) → latents (T, D) float32: what the first codebook says of them, neighbors taken into account
        where it is the units, and what the others add."""
        table = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(self.device)
        mask = torch.ones(1, len(table), 1, device=self.device)
        first = self.network.expected(table[None, :, 0], mask)[0]
        found: np.ndarray = (first + self.network.quantiser.decode(table[:, 1:])).cpu().numpy()
        return found

    def decode_latents(self, latents: np.ndarray) -> None:
        """No samples: see `decode_latent_features`."""
        return None

    @torch.inference_mode()
    def decode_latent_features(self, latents: np.ndarray) -> np.ndarray:
        """Latents (T, D) → log-mels (4T, M)."""
        vectors = torch.from_numpy(np.array(latents, dtype=np.float32)).to(self.device)[None]
        mask = torch.ones(1, vectors.shape[1], 1, device=self.device)
        return self.network.synthesize(vectors, mask)[0].cpu().numpy()

    # -- recordings and codes that come piece by piece ------------------------------------------------------------

    @property
    def latency_ms(self) -> float | None:
        """From the beginning of a frame to when its codes are known; None where a recording cannot come by pieces."""
        ahead = (look_ahead(self.mel) - self.mel.hop_length) / self.sample_rate
        own = 1000.0 * (float(1 / self.frame_rate) + ahead)
        by = own if self.units is None else self.units.latency_ms
        return None if by is None or not self.network.config.causal else max(own, by)

    def stream(self) -> SamplesToCodes:
        """The codec at the beginning of a recording whose samples come piece by piece, in memory that does not grow.

        Raises:
            InputError: the codec, or the encoder behind the units of its first codebook, looks forward.
        """
        self._check_causal()
        return SamplesToCodes(self.network, self.mel, None if self.units is None else self.units.stream())

    def feature_stream(self) -> CodesToFeatures:
        """The codec before codes that come piece by piece; InputError where it looks forward."""
        self._check_causal()
        return CodesToFeatures(self.network)

    def _check_causal(self) -> None:
        if not self.network.config.causal:
            raise InputError(
                "this codec looks forward over the whole recording and cannot follow it as it comes; train one that "
                "looks back only: unitok fit-tokenizers … --causal, or unitok train-codec … --set codec.causal=true"
            )

    def decode_features_stream(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes (T, Q) as they come → log-mels (4T, M) of each piece, those of the whole; for causal networks only."""
        stream = self.feature_stream()
        for piece in pieces:
            if len(piece):
                yield stream.push(piece)

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return codes_info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        if self.units is not None:
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
        units = None if network.config.taught else UnitTokenizer.load(folder / "units")
        return MelCodec(network, units, mel)
