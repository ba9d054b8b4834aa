"""What never changes by accident: ids, packs, what may follow, settings, commands, and the keys of finished stages.

Run alone with `pytest tests/test_formats_goldens.py`. A change that is meant: `python -m tests.support.goldens NAME`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.goldens import FOLDER, GOLDENS, as_text, plain


def differences(kept: Any, found: Any, place: str = "") -> list[str]:
    """Where two JSON values differ, each place with both values."""
    if isinstance(kept, dict) and isinstance(found, dict):
        names = dict.fromkeys([*kept, *found])
        return [line for name in names for line in differences(kept.get(name), found.get(name), f"{place}/{name}")]
    return [] if kept == found else [f"{place}: was {kept}, is {found}"]


@pytest.mark.parametrize("name", GOLDENS)
def test_it_is_what_it_was(name: str) -> None:
    kept = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert differences(kept, plain(GOLDENS[name]())) == []


def test_a_difference_is_named_with_its_place() -> None:
    assert differences({"a": {"b": [1]}, "c": 2}, {"a": {"b": [3]}, "c": 2}) == ["/a/b: was [1], is [3]"]
    assert differences({"a": 1}, {"a": 1, "b": 2}) == ["/b: was None, is 2"]


def test_files_hold_what_was_written() -> None:
    value = {"a": {"b": [1, 2], "c": "x"}, "d": [], "e": {}}
    assert json.loads(as_text(value)) == value and json.loads(as_text([value, 1])) == [value, 1]
