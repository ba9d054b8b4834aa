"""Figures of two evaluations beside each other, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NOT_MEASURED = ("count", "chance", "seconds")
"""Last parts of keys that are the same by whichever model, or say nothing of it."""
NONE = "-"
"""Where one of the two has no such figure."""


def figures(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(dotted key, value) of every number that measures something."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from figures(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key not in NOT_MEASURED:
            yield f"{prefix}{key}", float(value)


def beside(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A table of the figures of both: key, before, after, and their difference where both have one."""
    old, new = dict(figures(before)), dict(figures(after))
    keys = [*new, *(key for key in old if key not in new)]
    rows = [("", "before", "after", "change")]
    for key in keys:
        change = f"{new[key] - old[key]:+.4g}" if key in old and key in new else NONE
        rows.append((key, _shown(old.get(key)), _shown(new.get(key)), change))
    wide = [max(len(row[place]) for row in rows) for place in range(4)]
    return [
        "  ".join([row[0].ljust(wide[0]), *(cell.rjust(width) for cell, width in zip(row[1:], wide[1:]))]).rstrip()
        for row in rows
    ]


def _shown(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"
