"""`python -m benchmarks.layout_report`: the table and the plot of `docs/layouts.md`, made of `benchmarks/results.json`.

Of several kinds of processors that measured `layouts` the first in the file is shown; RESULTS.md has all of them.
"""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.table import number
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, PLOT = ROOT / "docs/layouts.md", ROOT / "docs/layouts.svg"
BEGIN, END = "<!-- measured -->", "<!-- end -->"
NAMES = ("flat", "depth", "parallel", "delay", "group", "first_nar")
COLUMNS = ("bits", "b1.greedy", "b1.sampled", "b8.greedy", "b8.sampled", "cache", "peak")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 380, 70, 90, 36, 52
STYLE = "text{font:13px system-ui,sans-serif;fill:#1d2430}line{stroke:#c8ccd4}circle{fill:#3457b2}"


def measured(found: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The first kind of processor that measured layouts, and what it did. InputError where none has."""
    for kind, part in found["processors"].items():
        if "layouts" in part["subjects"]:
            return kind, part["subjects"]["layouts"]
    raise InputError("no results of layouts: run `python -m benchmarks layouts` first")


def section(found: Mapping[str, Any]) -> str:
    """The table, and how it was measured, in Markdown."""
    kind, subject = measured(found)
    arms, run = subject["arms"], subject["run"]
    lines = [
        "| layout | bits/s | ms/s, 1, greedy | 1, sampled | 8, greedy | 8, sampled | cache, bytes/s | peak, bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        cells = [_cell(arms[key]["median"]) if (key := f"{name}.{one}") in arms else "—" for one in COLUMNS]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    forced = f", forced: {', '.join(run['forced'])}" if run["forced"] else ""
    seeds = len(arms["depth.bits"]["rounds"])
    lines += [
        "",
        f"{kind}, commit {run['commit'] or '?'}, {run['date']}, seeds {run['seed']} to {run['seed'] + seeds - 1}, "
        f"{run['rounds']} rounds in turn; other work took {run['busy_share']:.0%}{forced}.",
        f"Bits: {subject['notes']['layouts.bits']}. Timed: {subject['notes']['layouts.timed']}.",
        "",
    ]
    for key, value in subject["ratios"].items():
        goal = results.GOALS[key]
        verdict = "not measured" if value is None else "met" if goal.met(value) else "**missed**"
        lines.append(f"- `{key}` ({goal.text}, {goal.sign}): {'—' if value is None else number(value)}, {verdict}")
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{value:.0f}" if 1000 <= value < 1e4 else number(value)


def plot(found: Mapping[str, Any]) -> str:
    """Bits over milliseconds, each of a second of audio, as SVG; milliseconds at batch 1, greedy, in powers of two."""
    arms = measured(found)[1]["arms"]
    points = [
        (name, float(arms[f"{name}.b1.greedy"]["median"]), float(arms[f"{name}.bits"]["median"]))
        for name in NAMES
        if f"{name}.bits" in arms and f"{name}.b1.greedy" in arms
    ]
    title = "bits over milliseconds a second of audio, batch 1"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}"><style>{STYLE}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fbfaf7"/>{_text(LEFT, 22, title)}{_drawn(points)}</svg>\n'
    )


def _drawn(points: Sequence[tuple[str, float, float]]) -> str:
    first, last = (
        math.floor(min(math.log2(x) for _, x, _ in points)),
        math.ceil(max(math.log2(x) for _, x, _ in points)),
    )
    low, high = min(y for *_, y in points), max(y for *_, y in points)
    margin = 0.1 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(x) - first) / max(last - first, 1)

    def down(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)

    parts = []
    for power in range(first, last + 1):
        x = across(2.0**power)
        parts += [_line(x, TOP, x, HEIGHT - BOTTOM), _text(x - 10, HEIGHT - BOTTOM + 18, f"{2.0**power:g}")]
    for share in range(5):
        y = low + (high - low) * share / 4
        parts += [_line(LEFT, down(y), WIDTH - RIGHT, down(y)), _text(18, down(y) + 4, f"{y:.0f}")]
    parts.append(_text(LEFT, HEIGHT - 10, "ms/s (less is better) →   bits/s upward (less is better)"))
    for name, x, y in points:
        parts.append(f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="5"/>')
        parts.append(_text(across(x) + 9, down(y) + 4, name))
    return "".join(parts)


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{html.escape(words)}</text>'


def replaced(document: str, found: Mapping[str, Any]) -> str:
    """The document with what was measured between its marks. InputError where it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{DOCUMENT.name} lacks {BEGIN} or {END}: put them around the table")
    return f"{before}{BEGIN}\n\n{section(found)}\n\n{END}{behind}"


def main() -> int:
    """Write both files."""
    found = results.read(ROOT / "benchmarks/results.json")
    text = replaced(DOCUMENT.read_text(encoding="utf-8"), found)
    atomic_write_bytes(DOCUMENT, text.encode("utf-8"))
    atomic_write_bytes(PLOT, plot(found).encode("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
