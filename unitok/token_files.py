"""Files of ids: units and codes that were made elsewhere, read for a model and written by it.

N units, F frames, Q codebooks.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitok.results import Result
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, read_json

SUFFIXES = (".npy", ".json", ".jsonl")


def names_ids(path: Path | str) -> bool:
    """Whether a file of this name holds ids rather than sound."""
    return str(path).lower().endswith(SUFFIXES)


def read_ids(path: Path | str, stream: str) -> list[np.ndarray]:
    """Units (N,) or codes (F, Q), int64, of every utterance of a file.

    `.npy` holds one array; `.json` one list, or an object with the list under the stream's name; `.jsonl` one of these
    a line, such as the rows of a manifest.

    Raises:
        InputError: another kind of file, or what is no list of ids.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    if suffix == ".npy":
        return [_ids(_read_npy(source), stream, str(source))]
    if suffix == ".json":
        return [_listed(read_json(source), stream, str(source))]
    if suffix != ".jsonl":
        raise InputError(f"{source}: ids are read from {', '.join(SUFFIXES)}; write one of these")
    try:
        lines = source.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {source}: {error}; give a JSON Lines file") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{source}:{number}: not JSON ({error}); write one list of ids a line") from None
            found.append(_listed(value, stream, f"{source}:{number}"))
    if not found:
        raise InputError(f"{source} holds no ids; write one list a line")
    return found


def _read_npy(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"no file {path}; check the path") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no array of numpy ({error}); write it with numpy.save") from error
    return np.asarray(found)


def _listed(value: Any, stream: str, where: str) -> np.ndarray:
    """Ids of a JSON value: a list, or an object that has it under the stream's name."""
    if isinstance(value, dict):
        if value.get(stream) is None:
            raise InputError(f"{where}: no {stream!r}, only {', '.join(map(repr, value)) or 'nothing'}; add them")
        value = value[stream]
    try:
        return _ids(np.asarray(value), stream, where)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: {stream} are {repr(value)[:60]}: write a list of ids ({error})") from None


def _ids(array: np.ndarray, stream: str, where: str) -> np.ndarray:
    dimensions = (1,) if stream == "units" else (1, 2)
    if array.dtype.kind not in "iu" or array.ndim not in dimensions or not array.size or int(array.min()) < 0:
        wanted = "ids (N,)" if stream == "units" else "frames of ids (F, Q)"
        raise InputError(
            f"{where}: {stream} are {array.dtype} of shape {array.shape}: give {wanted} of one utterance, "
            "none negative, not empty; several utterances are lines of a .jsonl"
        )
    return array.astype(np.int64) if stream == "units" else array.reshape(len(array), -1).astype(np.int64)


def speech_ids(result: Result) -> np.ndarray | None:
    """Units (N,) or codes (F, Q) of an answer's last speech; None where it has none."""
    return next((span.content for span in reversed(result.outputs) if span.kind in ("units", "codes")), None)


def lines_of(result: Result, texts: Sequence[str]) -> list[str]:
    """An answer's outputs in their order: a text as it is, units and codes as JSON lists. `texts` are its texts."""
    said = iter(texts)
    return [next(said) if span.kind == "text" else json.dumps(span.content.tolist()) for span in result.outputs]


def write_ids(path: Path | str, results: Sequence[Result]) -> Path:
    """Write the last speech of each answer: `.npy` and `.json` of one answer, `.jsonl` one list a line.

    Raises:
        InputError: an answer without speech, several answers for a file of one, or a file that cannot be written.
    """
    target = Path(path)
    suffix, found = target.suffix.lower(), [speech_ids(result) for result in results]
    ids = [one for one in found if one is not None]
    if len(ids) < len(found):
        raise InputError(f"cannot write {target}: the answer is text alone; leave -o out to print it")
    if suffix != ".jsonl" and len(ids) != 1:
        raise InputError(f"cannot write {target}: there are {len(ids)} answers; name a .jsonl file")
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, ids[0], allow_pickle=False)
        content = buffer.getvalue()
    else:
        content = "".join(json.dumps(one.tolist()) + "\n" for one in ids).encode()
    atomic_write_bytes(target, content)
    return target
