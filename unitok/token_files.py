"""Files of ids: units and codes that were made elsewhere, read for a model and written by it.

N units, F frames, Q codebooks.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.results import Result
from unitok_tokenizers.audio.embedded import TABLES, Table
from unitok_tokenizers.data.token_sources import array_of, checked_ids, open_tokens, read_npy
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, read_json
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary

SUFFIXES = (".npy", ".npz", ".json", ".jsonl")
"""Files of ids that are written."""
READ = (*SUFFIXES, ".safetensors", *TABLES)
"""Files of ids that are read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Utterance:
    """Ids of one utterance of a file."""

    key: str
    """Its id in the file, or its number from 0 on."""
    where: str
    """File and place, for messages."""
    ids: np.ndarray
    """Units (N,) or codes (F, Q), int64."""


def names_ids(path: Path | str) -> bool:
    """Whether a file of this name holds ids rather than sound."""
    return str(path).lower().endswith(SUFFIXES)


def described_stream(model: Path | str, kind: str) -> StreamInfo | None:
    """What a model directory says of its main stream of a kind; None where it is none, or has no such stream."""
    path = Path(model) / "vocabulary.json"
    return Vocabulary.load(path).main(kind) if path.is_file() else None


def read_ids(path: Path | str, kind: str, stream: StreamInfo | None = None) -> list[np.ndarray]:
    """The ids of every utterance of a file; see `utterances_of`."""
    return [one.ids for one in utterances_of(path, kind, stream)]


def utterances_of(path: Path | str, kind: str, stream: StreamInfo | None = None) -> Iterator[Utterance]:
    """Utterances of a file in its order, one in memory at a time.

    `.npy` holds one array; `.npz` and `.safetensors` one under each key; Arrow and Parquet tables one a row; `.json`
    one list, or an object that has it; `.jsonl` one of these a line, such as the rows of a manifest. In tables and
    objects the ids go by the stream's name, or by that of its kind.

    Args:
        path: the file.
        kind: units or codes.
        stream: the model's, which ids are compared with; None takes ids of any width and size.

    Raises:
        InputError: another kind of file, or what is no list of ids of that stream, with file and line or key.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    names = list(dict.fromkeys([*([] if stream is None else [stream.name]), kind]))
    count = 0
    for key, value, where in _entries(source, suffix, names):
        count += 1
        yield Utterance(key=key, where=where, ids=_ids(array_of(value, where), kind, where, stream))
    if not count:
        raise InputError(f"{source} holds no ids; write one list a line")


def _entries(source: Path, suffix: str, names: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    """(key, ids as they are stored, file and place) of every utterance. `names` are those that the ids may go by."""
    if suffix == ".npy":
        yield source.stem, read_npy(source), str(source)
    elif suffix == ".json":
        yield source.stem, _listed(read_json(source), names, str(source)), str(source)
    elif suffix == ".jsonl":
        yield from _lines(source, names)
    elif suffix in READ:
        held = Table.open(source).names if suffix in TABLES else []
        found = open_tokens(source, next((name for name in names if name in held), names[0]), numbered=True)
        for key in found.places:
            yield key, *found.raw(key)
    else:
        raise InputError(f"{source}: ids are read from {', '.join(READ)}; write one of these")


def _lines(source: Path, names: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    try:
        with source.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        value = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        message = f"{source}:{number}: not JSON ({error}); write one list of ids a line"
                        raise InputError(message) from None
                    where = f"{source}:{number}"
                    key = value.get("id") if isinstance(value, dict) else None
                    yield str(number - 1 if key is None else key), _listed(value, names, where), where
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {source}: {error}; give a JSON Lines file") from error


def _listed(value: Any, names: Sequence[str], where: str) -> Any:
    """Ids of a JSON value: a list, or an object that has it under one of the names."""
    if not isinstance(value, dict):
        return value
    held = next((name for name in names if value.get(name) is not None), None)
    if held is None:
        wanted = " and no ".join(map(repr, names))
        raise InputError(f"{where}: no {wanted}, only {', '.join(map(repr, value)) or 'nothing'}; add them")
    return value[held]


def _ids(array: np.ndarray, kind: str, where: str, stream: StreamInfo | None) -> np.ndarray:
    if stream is not None:
        return checked_ids(array, where, stream)
    dimensions = (1,) if kind == "units" else (1, 2)
    if array.dtype.kind not in "iu" or array.ndim not in dimensions or not array.size or int(array.min()) < 0:
        wanted = "ids (N,)" if kind == "units" else "frames of ids (F, Q)"
        raise InputError(
            f"{where}: {kind} are {array.dtype} of shape {array.shape}: give {wanted} of one utterance, "
            "none negative, not empty; several utterances are lines of a .jsonl"
        )
    return array.astype(np.int64) if kind == "units" else array.reshape(len(array), -1).astype(np.int64)


def speech_ids(result: Result) -> np.ndarray | None:
    """Units (N,) or codes (F, Q) of an answer's speech, of all its pieces; of the last kind where it has both. None
    where it has none."""
    last = next((span.kind for span in reversed(result.outputs) if span.kind in ("units", "codes")), None)
    return None if last is None else ids_by_kind(result.outputs)[last]


def ids_by_kind(outputs: Sequence[Span]) -> dict[str, np.ndarray]:
    """Kind → the ids of all spans of it, one behind the other: a long answer has a span for each of its pieces."""
    found: dict[str, list[np.ndarray]] = {}
    for span in outputs:
        found.setdefault(span.kind, []).append(span.content)
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def lines_of(result: Result, texts: Sequence[str]) -> list[str]:
    """An answer's outputs in their order: a text as it is, units and codes as JSON lists. `texts` are its texts."""
    said = iter(texts)
    lines = (next(said, None) if span.kind == "text" else json.dumps(span.content.tolist()) for span in result.outputs)
    return [line for line in lines if line is not None]


def write_ids(path: Path | str, results: Sequence[Result]) -> Path:
    """Write the speech of each answer: `.npy` and `.json` of one, `.jsonl` one list a line, `.npz` one array each.

    The arrays of an `.npz` are named by their numbers from 0 on.

    Raises:
        InputError: an answer without speech, several answers for a file of one, or a file that cannot be written.
    """
    target = Path(path)
    suffix, found = target.suffix.lower(), [speech_ids(result) for result in results]
    ids = [one for one in found if one is not None]
    if len(ids) < len(found):
        raise InputError(f"cannot write {target}: the answer is text alone; leave -o out to print it")
    if suffix not in (".jsonl", ".npz") and len(ids) != 1:
        raise InputError(f"cannot write {target}: there are {len(ids)} answers; name a .jsonl or .npz file")
    buffer = io.BytesIO()
    if suffix == ".npz":
        np.savez(buffer, **{str(number): one for number, one in enumerate(ids)})  # type: ignore[arg-type]
        content = buffer.getvalue()
    elif suffix == ".npy":
        np.save(buffer, ids[0], allow_pickle=False)
        content = buffer.getvalue()
    else:
        content = "".join(json.dumps(one.tolist()) + "\n" for one in ids).encode()
    atomic_write_bytes(target, content)
    return target
