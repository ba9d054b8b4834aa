"""Semantic units: k-means over a speech encoder's frames, with exact deduplication.

S samples, F frames, N runs or ids, M units, K different units, V ids, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from unitok_tokenizers.encoders.base import FrameEncoder, FrameStream
from unitok_tokenizers.encoders.batches import encode_recordings, frames_in_windows
from unitok_tokenizers.encoders.registry import load_encoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.semantic.invariance import FrameCorrection
from unitok_tokenizers.semantic.kmeans import assign, fit_kmeans, stream_kmeans
from unitok_tokenizers.semantic.unit_bpe import StoredUnits, UnitMerges


def deduplicate(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collapse runs: (F,) → units (N,) and durations (N,) in frames; `expand` inverts it exactly."""
    units = np.asarray(units, dtype=np.int64)
    if not len(units):
        return units, units.copy()
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
    return units[starts], np.diff(np.append(starts, len(units)))


def expand(units: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """Repeat each unit for its duration: (N,), (N,) → (F,)."""
    return np.repeat(np.asarray(units, dtype=np.int64), durations)


def pooled_frames(frames: np.ndarray, pool: int) -> np.ndarray:
    """Means of `pool` frames after one another: (F, D) → (⌈F ÷ pool⌉, D); the last one of those that are left."""
    if pool == 1:
        return frames
    starts = np.arange(0, len(frames), pool)
    counts = np.minimum(starts + pool, len(frames)) - starts
    return (np.add.reduceat(frames, starts, axis=0) / counts[:, None]).astype(np.float32)


LEAST_SPREAD = 0.01
"""Of a dimension, ÷ that in the middle: what hardly moves is noise, and not to be made loud."""


def spread_of(frames: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each dimension of frames (F, D) → (D,), none of them near 0; 1 where nothing moves."""
    found = frames.std(0, correction=0)
    moving = found[found > 0]
    least = float(LEAST_SPREAD * moving.median()) if len(moving) else 1.0
    return found.clamp_min(least)


class SamplesToUnits:
    """Units of one recording that comes piece by piece: together, what `UnitTokenizer.encode` gives of the whole.

    Args:
        frames: gives them.
        nearest: frames (F, D) → units (F,).
        width: D.
        pool: frames of a unit.
    """

    def __init__(
        self, frames: FrameStream, nearest: Callable[[torch.Tensor], torch.Tensor], width: int, pool: int
    ) -> None:
        self.frames, self.nearest, self.pool = frames, nearest, pool
        self.waiting = np.zeros((0, width), dtype=np.float32)
        """Frames (F, D) that fill no pool yet."""

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next samples (S,) float32 → units (F,) int64 that are known now, perhaps none."""
        self.waiting = np.concatenate([self.waiting, self.frames.push(samples).cpu().numpy()])
        return self._units(len(self.waiting) // self.pool * self.pool)

    def finish(self) -> np.ndarray:
        """The remaining units (F,)."""
        self.waiting = np.concatenate([self.waiting, self.frames.finish().cpu().numpy()])
        return self._units(len(self.waiting))

    def _units(self, count: int) -> np.ndarray:
        frames = torch.from_numpy(pooled_frames(self.waiting[:count], self.pool))
        self.waiting = self.waiting[count:].copy()
        units: np.ndarray = self.nearest(frames).cpu().numpy()
        return units


class UnitTokenizer:
    """Nearest centroid of an encoder's frames.

    Args:
        encoder: any; it does not train here.
        centroids: (K, D) float32.
        name: of the stream.
        layer: hidden layer whose frames are clustered; None takes what the encoder gives an adapter.
        pool: frames whose mean is clustered; 2 makes 25 units a second of 50 frames.
        spread: (D,), what distances are counted in, a dimension at a time; None counts all alike. Of some encoders a
            few dimensions are so loud that nothing else would decide: of Whisper's frames a recognizer reads letters
            with .17 errors, of 500 units that count all alike with .50, of as many by their spread with .23.
        correction: what frames go through before the nearest centroid is taken; it makes units less sensitive.
        merges: what makes the ids of the stream of deduplicated units; None where those are the ids.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        centroids: torch.Tensor,
        name: str = "units",
        *,
        layer: int | None = None,
        pool: int = 1,
        spread: torch.Tensor | None = None,
        correction: FrameCorrection | None = None,
        merges: UnitMerges | None = None,
    ) -> None:
        if layer is not None and not 0 <= layer < encoder.depth:
            raise InputError(f"layer {layer} of an encoder with layers 0 to {encoder.depth - 1}; choose one of them")
        self.encoder = encoder.eval()
        self.centroids = centroids
        self.name = name
        self.layer = layer
        self.pool = pool
        self.spread = spread
        self.correction = None if correction is None else correction.eval()
        self.merges = merges

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that `encode` takes."""
        return self.encoder.sample_rate

    @property
    def frame_rate(self) -> Fraction:
        """Units a second before deduplication."""
        return self.encoder.frame_rate / self.pool

    @property
    def cardinality(self) -> int:
        """Number of units, K."""
        return len(self.centroids)

    @property
    def unmerged(self) -> UnitTokenizer:
        """The same units as ids themselves."""
        return self if self.merges is None else self.merged(None)

    def merged(self, merges: UnitMerges | None) -> UnitTokenizer:
        """These units as ids that are merged so; encoder and centroids are shared."""
        return UnitTokenizer(
            self.encoder, self.centroids, self.name, layer=self.layer, pool=self.pool, spread=self.spread,
            correction=self.correction, merges=merges,
        )  # fmt: skip

    def corrected(self, correction: FrameCorrection | None) -> UnitTokenizer:
        """The nearest centroids of frames that are corrected so, not merged; encoder and centroids are shared."""
        return UnitTokenizer(
            self.encoder, self.centroids, self.name, layer=self.layer, pool=self.pool, spread=self.spread,
            correction=correction,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Identifies the content."""
        more = [*([] if self.layer is None else [self.layer]), *([] if self.pool == 1 else [f"pool {self.pool}"])]
        more += [] if self.spread is None else [array_fingerprint(self.spread.cpu().numpy())]
        more += [] if self.correction is None else [self.correction.fingerprint]
        more += [] if self.merges is None else [self.merges.fingerprint]
        return fingerprint([self.encoder.fingerprint, array_fingerprint(self.centroids.cpu().numpy()), *more])

    def to(self, device: torch.device | str) -> UnitTokenizer:
        """Move the encoder and the centroids; returns itself."""
        self.encoder.to(device)
        if self.correction is not None:
            self.correction.to(device)
        self.centroids = self.centroids.to(device)
        self.spread = None if self.spread is None else self.spread.to(device)
        return self

    @staticmethod
    def fit(
        encoder: FrameEncoder,
        recordings: Sequence[np.ndarray],
        clusters: int,
        *,
        seed: int,
        layer: int | None = None,
    ) -> UnitTokenizer:
        """Cluster the frames of recordings, each (S,) float32 at the encoder's rate."""
        frames = np.concatenate(encode_recordings(encoder.eval(), recordings, layer=layer))
        return UnitTokenizer(encoder, fit_kmeans(torch.from_numpy(frames), clusters, seed=seed), layer=layer)

    @staticmethod
    def fit_stream(
        encoder: FrameEncoder,
        recordings: Iterable[np.ndarray],
        clusters: int,
        *,
        seed: int,
        layer: int | None = None,
        pool: int = 1,
        scaled: bool = False,
    ) -> UnitTokenizer:
        """Cluster the frames of recordings, each (S,) float32, that are looked at once and not held.

        The first of them should be a fair sample: clusters begin there, and where `scaled` their spread is that of all.
        """
        encoder.eval()
        frames = frames_in_windows(encoder, recordings, layer=layer)
        pooled = (
            torch.from_numpy(np.concatenate([pooled_frames(one, pool) for one in window])).to(encoder.device)
            for window in frames
        )
        if not scaled:
            return UnitTokenizer(encoder, stream_kmeans(pooled, clusters, seed=seed), layer=layer, pool=pool)
        first = next(pooled, torch.zeros(0, encoder.width))
        spread = spread_of(first) if len(first) else torch.ones(encoder.width)
        centroids = stream_kmeans((points / spread for points in chain([first], pooled)), clusters, seed=seed)
        return UnitTokenizer(encoder, centroids * spread, layer=layer, pool=pool, spread=spread)

    def nearest(self, frames: torch.Tensor) -> torch.Tensor:
        """Units (F,) of frames (F, D) that are pooled, and corrected where they are to be."""
        frames = frames.to(self.centroids.device)
        if self.spread is None:
            return assign(frames, self.centroids)
        return assign(frames / self.spread, self.centroids / self.spread)

    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Units (F,) int64 of each recording, one a frame: neither deduplicated nor merged, which `stored` does."""
        return self.units_of_frames(self.frames_of(recordings))

    def frames_of(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames (F, D) of each recording, pooled."""
        return [pooled_frames(one, self.pool) for one in encode_recordings(self.encoder, recordings, layer=self.layer)]

    def units_of_frames(self, encoded: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Units (F,) of the frames (F, D) of each recording."""
        if not encoded:
            return []
        rows = [torch.from_numpy(one).to(self.centroids.device) for one in encoded]
        frames = torch.cat(rows if self.correction is None else self.correction.corrected(rows))
        labels = self.nearest(frames).cpu().numpy()
        return np.split(labels, np.cumsum([len(frames) for frames in encoded])[:-1])

    def stored(self, units: np.ndarray) -> StoredUnits:
        """What shards hold of the units of a recording's frames (F,): runs once, merged where this merges.

        InputError for a unit that there is not, where they are merged.
        """
        runs, durations = deduplicate(units)
        if self.merges is None:
            return StoredUnits(ids=runs, durations=durations, unit_durations=durations)
        return self.merges.stored(runs, durations)

    def expanded(self, ids: np.ndarray) -> np.ndarray:
        """Ids of the stream (N,) → the deduplicated units (M,) that they stand for."""
        return np.asarray(ids, dtype=np.int64) if self.merges is None else self.merges.expand(ids)

    def id_vectors(self) -> torch.Tensor:
        """(V, D) float32 of every id of the stream: its centroid, of merged ones the mean of their units'."""
        vectors = self.centroids.detach().cpu().float()
        if self.merges is None:
            return vectors
        return torch.stack([vectors[self.merges.expand(np.asarray([one]))].mean(0) for one in range(self.merges.size)])

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Units (F,) of one recording."""
        return self.encode_batch([samples])[0]

    @property
    def latency_ms(self) -> float | None:
        """From the beginning of a unit's frame to when it is known; None where a recording cannot come by pieces."""
        ahead = self.encoder.look_ahead if self.correction is None else None  # it looks at frames that follow
        return None if ahead is None else 1000.0 * (float(1 / self.frame_rate) + ahead / self.sample_rate)

    def stream(self) -> SamplesToUnits:
        """The tokenizer at the beginning of a recording whose samples come piece by piece, in bounded memory.

        Raises:
            InputError: the encoder looks forward, or what corrects the units does.
        """
        if self.correction is not None:
            raise InputError(
                "invariant units are corrected by frames that follow and cannot be read as they come: fit them without "
                "--invariant"
            )
        return SamplesToUnits(self.encoder.stream(self.layer), self.nearest, self.centroids.shape[1], self.pool)

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return StreamInfo(
            name=self.name,
            kind="units",
            fingerprint=self.fingerprint,
            frame_rate=self.frame_rate,
            cardinalities=(self.cardinality if self.merges is None else self.merges.size,),
            deduplicated=True,
            merged_from=None if self.merges is None else self.cardinality,
        )

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        layer = {} if self.layer is None else {"layer": self.layer}
        pool = {} if self.pool == 1 else {"pool": self.pool}
        self.encoder.save(folder / "encoder")
        spread = {} if self.spread is None else {"spread": self.spread.cpu().contiguous()}
        save_file({"centroids": self.centroids.cpu().contiguous(), **spread}, folder / "centroids.safetensors")
        if self.correction is not None:
            self.correction.save(folder)
        if self.merges is not None:
            self.merges.save(folder)
        write_json(folder / "config.json", {"class": self._class(), "name": self.name, **layer, **pool})

    def _class(self) -> str:
        """Which parts there are: a program that knows no such part refuses the folder, and does not leave it out."""
        parts = {"scaled": self.spread, "invariant": self.correction, "bpe": self.merges}
        return "_".join(["kmeans", *(name for name, part in parts.items() if part is not None)])

    @staticmethod
    def load(folder: Path) -> UnitTokenizer:
        """Read what `save` wrote."""
        tensors = read_tensors(folder / "centroids.safetensors")
        centroids = tensors["centroids"]
        config = read_json(folder / "config.json")
        encoder = load_encoder(folder / "encoder")
        parts = config["class"].split("_")[1:]
        spread = tensors["spread"] if "scaled" in parts else None
        if spread is not None and (spread.shape != centroids.shape[1:] or not bool((spread > 0).all())):
            raise ValueError(f"spread {tuple(spread.shape)} is not one number above 0 for each of {centroids.shape[1]}")
        return UnitTokenizer(
            encoder, centroids, config["name"], layer=config.get("layer"), pool=config.get("pool", 1),
            spread=spread,
            correction=FrameCorrection.load(folder) if "invariant" in parts else None,
            merges=UnitMerges.load(folder, len(centroids)) if "bpe" in parts else None,
        )  # fmt: skip
