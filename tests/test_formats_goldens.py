"""What never changes by accident: ids, packs, what may follow, settings, commands, and the keys of finished stages.

Run alone with `pytest tests/test_formats_goldens.py`. A change that is meant: `python -m tests.support.goldens NAME`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.goldens import FOLDER, GOLDENS, as_text, plain


def differences(kept: Any, found: Any, place: str = "") -> list[str]:
    """Where what was kept is no longer so, each place with both values.

    What came since is no difference: a name that was not there, or what stands behind a list of names.
    """
    if isinstance(kept, dict) and isinstance(found, dict):
        return [line for name in kept for line in differences(kept[name], found.get(name), f"{place}/{name}")]
    if isinstance(kept, list) and isinstance(found, list) and place.endswith("/choices"):
        return [f"{place}: {one} is gone" for one in kept if one not in found]
    if isinstance(kept, list) and isinstance(found, list) and place.endswith("/controls"):
        found = found[: len(kept)]
    return [] if kept == found else [f"{place}: was {kept}, is {found}"]


@pytest.mark.parametrize("name", GOLDENS)
def test_it_is_what_it_was(name: str) -> None:
    kept = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert differences(kept, plain(GOLDENS[name]())) == []


def test_a_difference_is_named_with_its_place() -> None:
    assert differences({"a": {"b": [1]}, "c": 2}, {"a": {"b": [3]}, "c": 2}) == ["/a/b: was [1], is [3]"]
    assert differences({"a": 1}, {"a": 1, "b": 2}) == [] and differences({"a": 1}, {}) == ["/a: was 1, is None"]
    assert differences({"choices": ["a", "b"]}, {"choices": ["c", "b"]}) == ["/choices: a is gone"]
    assert differences({"controls": [1, 2]}, {"controls": [1, 2, 3]}) == []
    assert differences({"controls": [1, 2]}, {"controls": [1, 3, 2]})


def test_files_hold_what_was_written() -> None:
    value = {"a": {"b": [1, 2], "c": "x"}, "d": [], "e": {}}
    assert json.loads(as_text(value)) == value and json.loads(as_text([value, 1])) == [value, 1]
