"""Acoustic tokenizers behind one interface: samples ↔ codes (F, Q).

S samples, F frames, Q codebooks, M mel bins, B batch, D latent width.
A new codec is one file and one line in `acoustic.registry.CODECS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.acoustic.layers import Layer
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.batches import batches_by_length
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.progress import advance_aside

WHOLE_SECONDS = 30
"""Longest recording that a network takes as a whole; longer ones go through it piece by piece."""
PIECE_SECONDS = 10
"""A piece of them."""
BATCH_SECONDS = 60
"""Longest recording × recordings of a batch: a second takes some 10 MB in the widest layers."""


class AcousticTokenizer(Protocol):
    """What codes are made by, and turned back by."""

    name: str
    sample_rate: int
    frame_rate: Fraction
    cardinalities: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """Identifies the codec's content."""

    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(S,) float32 each → codes (F, Q) int64 each."""

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) float32 → codes (F, Q) int64."""

    def decode(self, codes: np.ndarray) -> np.ndarray | None:
        """Codes (F, Q) → samples (S,), or None where a vocoder is needed (see `decode_features`)."""

    def decode_features(self, codes: np.ndarray) -> np.ndarray | None:
        """Codes (F, Q) → log-mels (F', M) for a vocoder, or None where `decode` gives samples."""

    def to(self, device: torch.device | str) -> AcousticTokenizer:
        """Move what it computes with; returns itself."""

    def info(self) -> StreamInfo:
        """The stream of codes."""

    def save(self, folder: Path) -> None:
        """Write `config.json`, whose `class` names the entry in `acoustic.registry.CODECS`, and weights."""


@runtime_checkable
class StreamingCodec(Protocol):
    """A codec that a recording may come to, and leave, piece by piece, in memory that does not grow with its length.

    What comes out, put together, is what the whole recording gives: there are no seams.
    """

    causal: bool
    """Whether a frame is known as soon as its samples are there; otherwise it waits for what its windows look at."""

    def encode_stream(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Samples (S,) float32 of any lengths → codes (F, Q), as soon as they are known."""

    def decode_stream(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes (F, Q) → samples (S,), as soon as they are known."""


@runtime_checkable
class LatentCodec(Protocol):
    """A codec whose codes of a frame stand for one vector together, which it decodes: a model may predict that vector
    instead of the codes."""

    def latents(self, codes: np.ndarray) -> np.ndarray:
        """Codes (F, Q), of the first codebooks or all → latents (F, D) float32."""

    def decode_latents(self, latents: np.ndarray) -> np.ndarray | None:
        """Latents (F, D) → samples (S,), those of `decode` where they are of codes; None where a vocoder is needed."""

    def decode_latent_features(self, latents: np.ndarray) -> np.ndarray | None:
        """Latents (F, D) → log-mels (F', M) for a vocoder, or None where `decode_latents` gives samples."""


class NetworkCodec:
    """What codecs that are one network, and give samples, have in common.

    A subclass sets the attributes and writes `quantize` and `embed`.
    """

    name: str
    sample_rate: int
    frame_rate: Fraction
    cardinalities: tuple[int, ...]
    causal: bool
    """See `StreamingCodec.causal`."""
    model: Any
    """The network."""
    encoder: Layer
    """Samples (B, 1, S) → latents (B, D, F)."""
    decoder: Layer
    """Latents (B, D, F) → samples (B, 1, S)."""
    multiple: int = 1
    """Recordings are lengthened by silence to a multiple of so many samples."""

    def quantize(self, latents: Tensor) -> Tensor:
        """Latents (B, D, F) → codes (B, Q, F)."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, F) → latents (B, D, F)."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        where: torch.device = next(self.model.parameters()).device
        return where

    def to(self, device: torch.device | str) -> Self:
        """Move the network; returns itself."""
        self.model.to(device)
        return self

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) → codes (F, Q)."""
        return self.encode_batch([samples])[0]

    @torch.inference_mode()
    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Codes of each: short ones together, each as if it were alone; long ones piece by piece."""
        out: list[np.ndarray] = [np.zeros((0, len(self.cardinalities)), dtype=np.int64)] * len(recordings)
        whole = [i for i, one in enumerate(recordings) if 0 < len(one) <= WHOLE_SECONDS * self.sample_rate]
        long = [i for i, one in enumerate(recordings) if len(one) > WHOLE_SECONDS * self.sample_rate]
        done = 0
        batches = batches_by_length([len(recordings[index]) for index in whole], BATCH_SECONDS * self.sample_rate)
        for batch in batches:
            chosen = [whole[place] for place in batch]
            for index, codes in zip(chosen, self._encode_whole([recordings[index] for index in chosen])):
                out[index] = codes
            done += len(batch)
            advance_aside("recording", done, len(recordings))
        for index in long:
            out[index] = np.concatenate([*self.encode_stream(self._cut(recordings[index]))])
            done += 1
            advance_aside("recording", done, len(recordings))
        return out

    def _encode_whole(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        sizes = torch.tensor([len(one) + -len(one) % self.multiple for one in recordings], device="cpu")
        samples = torch.zeros(len(recordings), 1, int(sizes.max()))
        for row, one in enumerate(recordings):
            samples[row, 0, : len(one)] = torch.from_numpy(np.asarray(one, dtype=np.float32))
        latents, frames = self.encoder.run(samples.to(self.device), sizes)
        codes = self.quantize(latents).transpose(1, 2).cpu().numpy()  # (B, F, Q)
        return [np.ascontiguousarray(row[:size]) for row, size in zip(codes, frames.tolist())]

    def _cut(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        size = round(PIECE_SECONDS * self.sample_rate)
        for start in range(0, len(samples), size):
            yield samples[start : start + size]

    @torch.inference_mode()
    def encode_stream(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `StreamingCodec.encode_stream`."""
        push, seen = self.encoder.stream(), 0
        for piece in pieces:
            seen += len(piece)
            if len(piece) and len(codes := self._push_samples(push, piece, last=False)):
                yield codes
        rest = np.zeros(-seen % self.multiple, dtype=np.float32)
        if seen and len(codes := self._push_samples(push, rest, last=True)):
            yield codes

    def _push_samples(self, push: Any, samples: np.ndarray, *, last: bool) -> np.ndarray:
        heard = torch.from_numpy(np.asarray(samples, dtype=np.float32)).to(self.device)
        latents = push(heard[None, None], last)
        if not latents.shape[2]:
            return np.zeros((0, len(self.cardinalities)), dtype=np.int64)
        return np.ascontiguousarray(self.quantize(latents)[0].T.cpu().numpy())

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (F, Q) → samples (S,), S = F · samples per frame; long ones piece by piece."""
        return self._decoded([codes[start : start + size] for start, size in self._pieces(len(codes))], self._embedded)

    def latents(self, codes: np.ndarray) -> np.ndarray:
        """See `LatentCodec.latents`."""
        found: np.ndarray = self._embedded(codes)[0].T.contiguous().cpu().numpy()
        return found

    @torch.inference_mode()
    def decode_latents(self, latents: np.ndarray) -> np.ndarray:
        """Latents (F, D) → samples (S,), likewise."""
        pieces = [latents[start : start + size] for start, size in self._pieces(len(latents))]
        return self._decoded(pieces, self._on_device)

    def decode_latent_features(self, latents: np.ndarray) -> None:
        """No features: `decode_latents` gives samples."""
        return None

    def _pieces(self, frames: int) -> list[tuple[int, int]]:
        """(start, size) of what goes through the decoder at once."""
        if frames <= WHOLE_SECONDS * self.frame_rate:
            return [(0, frames)]
        size = round(PIECE_SECONDS * self.frame_rate)
        return [(start, size) for start in range(0, frames, size)]

    @torch.inference_mode()
    def _embedded(self, codes: np.ndarray) -> Tensor:
        return self.embed(self._table(codes))

    def _on_device(self, latents: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(latents, dtype=np.float32)).to(self.device).T.contiguous()[None]

    def _decoded(self, pieces: list[np.ndarray], read: Callable[[np.ndarray], Tensor]) -> np.ndarray:
        """Samples (S,) of frames, a piece alone or several one after another; `read` makes latents (1, D, F) of one."""
        if not len(pieces[0]):
            return np.zeros(0, dtype=np.float32)
        if len(pieces) > 1:
            return np.concatenate([*self._stream(read(piece) for piece in pieces)])
        samples, _ = self.decoder.run(read(pieces[0]), torch.tensor([len(pieces[0])], device="cpu"))
        found: np.ndarray = samples[0, 0].cpu().numpy()
        return found

    @torch.inference_mode()
    def decode_stream(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `StreamingCodec.decode_stream`."""
        yield from self._stream(self._embedded(piece) for piece in pieces if len(piece))

    @torch.inference_mode()
    def _stream(self, pieces: Iterable[Tensor]) -> Iterator[np.ndarray]:
        push, latents = self.decoder.stream(), None
        for latents in pieces:
            if (samples := push(latents, False)).shape[2]:
                yield samples[0, 0].cpu().numpy()
        if latents is not None and (samples := push(latents[..., :0], True)).shape[2]:
            yield samples[0, 0].cpu().numpy()

    def _table(self, codes: np.ndarray) -> Tensor:
        """(F, Q) → (1, Q, F), of the first codebooks or all; InputError where they are no codes of this codec."""
        table, most = np.asarray(codes, dtype=np.int64), len(self.cardinalities)
        if table.ndim != 2 or not 1 <= table.shape[1] <= most:
            raise InputError(f"codes have the shape {table.shape}; this codec takes (frames, 1 to {most} codebooks)")
        return torch.from_numpy(table).to(self.device).T[None]

    def decode_features(self, codes: np.ndarray) -> None:
        """No features: `decode` gives samples."""
        return None

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return codes_info(self)  # type: ignore[arg-type]  # a subclass has the rest

    def content(self) -> str:
        """Identifies the weights, whatever names and order a version of their package gives them."""
        values = self.model.state_dict().values()
        return fingerprint(sorted(array_fingerprint(value.cpu().numpy()) for value in values))

    def save_network(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Write weights and `config.json`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.cpu().contiguous().clone() for name, value in self.model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        write_json(folder / "config.json", config)


def codes_info(codec: AcousticTokenizer) -> StreamInfo:
    """The stream description that every codec gives of itself."""
    return StreamInfo(codec.name, "codes", codec.fingerprint, codec.frame_rate, codec.cardinalities)


def chosen_codebooks(choice: str, most: int, least: int = 1) -> int:
    """How many codebooks `@CHOICE` of a codec's name asks for; all, where it is empty."""
    if not choice:
        return most
    if not choice.isascii() or not choice.isdigit() or not least <= int(choice) <= most:
        raise InputError(f"the codec has {most} codebooks, and @{choice} asks for {choice}: choose {least} to {most}")
    return int(choice)


def codec_mel(codec: object) -> MelConfig | None:
    """The log-mels that a codec decodes to; None of one that decodes to samples, and of no codec."""
    found = getattr(codec, "mel", None)
    return found if isinstance(found, MelConfig) else None
