"""Lists that are kept as they are made: a command that is stopped, or that meets a recording that it cannot read, is
repeated for those that are missing.

While they are made they stand in `NAME.made.jsonl`, and what they are made with beside it. At the end all of them have
the name that was asked for, in their order, and that file is gone unless some could not be made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitok.many.results_file import ResultsFile
from unitok.nbest.lists import NBest, to_json
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, check_no_device

MADE = ".made.jsonl"
"""What is behind the name of the file while lists are made."""


class KeptLists:
    """The lists of one command, begun or continued.

    Args:
        path: the file that they come to.
        request: what they depend on beside their recordings, by names that a person knows.

    Raises:
        InputError: the file cannot be written, another process makes it, or what was made before was made otherwise.
    """

    def __init__(self, path: Path | str, request: Mapping[str, Any]) -> None:
        self.path = Path(path)
        check_no_device(self.path)
        self._file = ResultsFile(self.path.with_name(self.path.name + MADE), request)
        self._lists: dict[str, Any] = {key: line["list"] for key, line in self._file.finished.items() if "list" in line}

    def finished(self, target: str | None) -> set[str]:
        """Utterances that have a list, of translations into `target` where that is given."""
        return {value["id"] for value in self._lists.values() if value["target"] == target}

    def append(self, made: NBest) -> None:
        """Keep a list."""
        key, value = _key(made.id, made.target), to_json(made)
        self._file.append({"id": key, "input": made.id, "list": value})
        self._lists[key] = value

    def finish(self, order: Sequence[tuple[str, str | None]], *, missing: int = 0) -> int:
        """Write all lists in the order of (utterance, target); returns how many. With some missing, what was made is
        kept for a repeat."""
        found = [self._lists[key] for key in (_key(*one) for one in order) if key in self._lists]
        if not found:
            raise InputError(f"none of {len(order)} lists could be made, so {self.path} is not written")
        atomic_write_bytes(self.path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found).encode())
        if not missing:
            self._file.remove()
        return len(found)

    def close(self) -> None:
        """Let others write it."""
        self._file.close()


def _key(utterance: str, target: str | None) -> str:
    return utterance if target is None else f"{target}/{utterance}"
