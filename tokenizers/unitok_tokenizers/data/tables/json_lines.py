"""JSON Lines: our own manifests, NeMo's, `datasets`' metadata; also one JSON list of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitok_tokenizers.data.tables.base import lines_of, plain_suffix
from unitok_tokenizers.errors import InputError

HALF_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that UTF-8 cannot hold unless another half follows."""


def json_records(source: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file and line, number, object) of every line that is not empty."""
    numbered = lines_of(source)
    first = next(numbered, None)
    if first is not None and plain_suffix(source) == ".json" and first[1].lstrip().startswith("["):
        yield from _listed(source, "\n".join([first[1], *(line for _, line in numbered)]))
        return
    for number, line in [first] if first else []:
        yield from _one(source, number, line)
    for number, line in numbered:
        yield from _one(source, number, line)


def parsed(text: str, where: str, remedy: str) -> Any:
    """The value of JSON text that UTF-8 can hold; InputError otherwise."""
    try:
        value = json.loads(text)
        if HALF_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = "half of a surrogate pair" if isinstance(error, UnicodeEncodeError) else str(error)
        raise InputError(f"{where}: not JSON ({reason}); {remedy}") from None
    return value


def _one(source: Path, number: int, line: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    if not line.strip():
        return
    where = f"{source}:{number}"
    value = parsed(line, where, "write one JSON object a line")
    if not isinstance(value, dict):
        raise InputError(f"{where}: a {type(value).__name__}, not a JSON object; write {{…}} a line")
    yield where, number, value


def _listed(source: Path, text: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    values = parsed(text, str(source), "write one JSON object a line, or one list of objects")
    for number, value in enumerate(values, 1):
        where = f"{source}[{number - 1}]"
        if not isinstance(value, dict):
            raise InputError(f"{where}: a {type(value).__name__}, not a JSON object; write {{…}} a row")
        yield where, number, value
