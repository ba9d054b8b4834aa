"""Rows whose recordings are in memory: what `datasets` gives one by one, from a folder, a file or over the network.

    from datasets import Audio, load_dataset

    data = load_dataset("parquet", data_files="talks/*.parquet", split="train", streaming=True)
    data = data.cast_column("audio", Audio(decode=False))      # undecoded: the reading processes decode
    prepare_shards(rows_of(data), tokenizers, "shards", workers=4)

S samples, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.downmix import Downmix
from unitok_tokenizers.audio.io import LOUDEST, OVERSHOOT_SECONDS, RATES, beginning, read_blocks, resample
from unitok_tokenizers.audio.recording import open_recording
from unitok_tokenizers.data.manifest import STREAM_COLUMNS, Row, row_of
from unitok_tokenizers.data.tables.arrow import cell_value
from unitok_tokenizers.data.tables.base import Finder, Record, TableOptions
from unitok_tokenizers.data.tables.columns import check_chosen_columns, understood, without_origin
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint


@dataclass(frozen=True, kw_only=True)
class HeldRow(Row):
    """An utterance with its recording: samples, or a file's bytes."""

    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), compare=False)
    """(S,) or (C, S) float; none where the file's bytes are given."""
    sample_rate: int = 0
    """Hz of the samples."""
    encoded: bytes = field(default=b"", repr=False)
    """A file that libsndfile reads."""

    @property
    def recorded(self) -> bool:
        """It has a recording."""
        return True

    @property
    def held_bytes(self) -> int:
        """Of the recording."""
        return self.samples.nbytes + len(self.encoded)

    def load(self, sample_rate: int, *, most_seconds: float | None = None) -> np.ndarray:
        """(S,) samples; InputError, naming the row, where there are none, or values that are no samples."""
        seconds = self.seconds
        if most_seconds is not None:
            seconds = most_seconds if seconds is None else min(seconds, most_seconds)
        if not self.encoded:
            return resample(self._part(seconds), self.sample_rate, sample_rate)
        most = None if most_seconds is None else round(most_seconds * sample_rate)
        try:
            blocks = read_blocks(
                "in memory", sample_rate=sample_rate, offset=self.offset, seconds=self.seconds, held=self.encoded
            )
            return beginning(blocks, most)
        except InputError as error:
            raise InputError(f"row {self.id}: {error}") from error

    def _part(self, seconds: float | None) -> np.ndarray:
        """(S,) float32 of the samples at their own rate, as `audio.io` reads a file."""
        start = round(self.offset * self.sample_rate)
        stop = self.samples.shape[-1] if seconds is None else start + round(seconds * self.sample_rate)
        found = np.atleast_2d(self.samples)[:, start:stop]
        short = self.seconds is not None and stop - start - found.shape[1] > OVERSHOOT_SECONDS * self.sample_rate
        if not found.size or (short and seconds == self.seconds):
            raise InputError(
                f"row {self.id}: its recording has {self.samples.shape[-1] / self.sample_rate:.2f} s, and the row "
                f"begins at {self.offset:.2f} s; correct its offset or duration"
            )
        loudest = float(np.abs(found).max())
        if not loudest <= LOUDEST:
            raise InputError(f"row {self.id}: its recording holds the value {loudest:.3g}; scale it to [-1, 1]")
        return Downmix()(np.ascontiguousarray(found.T, dtype=np.float32))

    def length(self) -> float:
        """The utterance's length in seconds."""
        if self.seconds is not None:
            return self.seconds
        if not self.encoded:
            return max(0.0, float(self.samples.shape[-1]) / self.sample_rate - self.offset)
        try:
            with open_recording("in memory", self.encoded) as recording:
                return max(0.0, recording.frames / recording.rate - self.offset)
        except InputError as error:
            raise InputError(f"row {self.id}: {error}") from error

    def stamp(self) -> list[int | str]:
        """What identifies the recording: its content, which no file has the time of."""
        if self.encoded:
            return [len(self.encoded), hashlib.sha256(self.encoded).hexdigest()[:16]]
        return [self.sample_rate, array_fingerprint(self.samples)]


def rows_of(
    records: Iterable[Mapping[str, Any]],
    *,
    default_lang: str = "en",
    columns: Mapping[str, str] | None = None,
    streams: Sequence[str] = (),
) -> Iterator[Row]:
    """Rows of a data set as they come; a recording is in memory, or a path.

    Args:
        records: anything that gives dictionaries, such as a `datasets.Dataset` or `IterableDataset`. Columns are those
            of manifests, under their own names or other tools'; a recording is `{"array", "sampling_rate"}`,
            `{"bytes"}` of a file, `{"path"}`, or a path, which starts at the current folder.
        default_lang: language of rows that name none.
        columns: our name of a column → the data set's own.
        streams: names of streams made elsewhere, of which columns of those names hold the ids.

    Raises:
        InputError: what is not understood, or an id that comes twice; the message names the row, from 0.
    """
    labels = {name: getattr(one, "names", None) for name, one in (getattr(records, "features", None) or {}).items()}
    options = TableOptions(columns=columns or {}, streams=tuple(streams))
    check_chosen_columns(options)
    finder, seen = Finder(Path()), set[str]()
    for number, record in enumerate(records):
        where = f"row {number} of the data set"
        plain = {name: _value(value, labels.get(name)) for name, value in record.items()}
        if any(map(_is_recording, plain.values())):
            plain = dict(without_origin(plain, options.columns))
        value = understood(plain, where, options.columns, options)
        held = _held(value.get("audio"), where)
        if held:
            del value["audio"]
        extras = value.get("extras")
        if isinstance(extras, dict):  # further recordings, and pictures, are not held beside the one that is read
            value["extras"] = {name: one for name, one in extras.items() if not _is_recording(one)}
        row = row_of(
            Record(where=where, value=value, number=number + 1), finder, default_lang, (*STREAM_COLUMNS, *streams)
        )
        if row.id in seen:
            raise InputError(f"{where}: id {row.id!r} came before; make ids unique")
        seen.add(row.id)
        yield HeldRow(**{one.name: getattr(row, one.name) for one in fields(Row)}, **held) if held else row


def _value(value: Any, labels: Any) -> Any:
    if hasattr(value, "get_all_samples"):
        raise InputError(
            "the data set decodes recordings itself; leave that to unitok, which does it in several processes: "
            'data.cast_column("audio", datasets.Audio(decode=False))'
        )
    if _is_recording(value):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    return value.tolist() if isinstance(value, np.ndarray) else cell_value(value, labels)


def _is_recording(value: Any) -> bool:
    return isinstance(value, Mapping) and not value.keys().isdisjoint(("bytes", "array"))


def _held(value: Any, where: str) -> dict[str, Any]:
    """What `HeldRow` has more than `Row`; nothing for a path, or no recording."""
    if not isinstance(value, Mapping):
        return {}
    if value.get("array") is not None:
        return _samples(value["array"], value.get("sampling_rate"), where)
    if isinstance(value.get("bytes"), bytes):
        if not value["bytes"]:
            raise InputError(f"{where}: its recording has no bytes; leave the row out")
        return {"encoded": value["bytes"]}
    if isinstance(value.get("path"), str):
        return {}
    raise InputError(
        f"{where}: audio has {', '.join(map(repr, value)) or 'nothing'}; give 'array' and 'sampling_rate', 'bytes', or "
        "'path'"
    )


def _samples(array: Any, rate: Any, where: str) -> dict[str, Any]:
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"{where}: sampling_rate is {rate!r}; give {RATES[0]} to {RATES[1]} Hz")
    found = np.asarray(array)
    channels = found.ndim == 1 or (found.ndim == 2 and 0 < found.shape[0] <= found.shape[1])
    if found.dtype.kind != "f" or not channels or not found.size:
        raise InputError(
            f"{where}: array is {found.dtype} of shape {found.shape}; give samples within [-1, 1] as floats, (S,) or "
            "(channels, S)"
        )
    return {"samples": np.ascontiguousarray(found, dtype=np.float32), "sample_rate": int(rate)}
