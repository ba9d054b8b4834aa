"""The benchmark's results as a picture: what is read of the tokens over what they cost."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 40, 56


@dataclass(frozen=True, kw_only=True)
class Point:
    """One stream."""

    name: str
    """As in the table."""
    x: float
    """kbit/s."""
    y: float
    """What is plotted."""
    filled: bool
    """Opus is hollow."""


def points_of(results: Mapping[str, Any]) -> tuple[str, list[Point], float | None]:
    """What is plotted, its points, and the recordings' own value: ears' word errors, else text alignment."""
    every = [*results["contestants"], *results["classical"]]
    keys: tuple[str, ...]
    if any("ears.wer" in one["figures"] for one in every):
        title, keys = "word error rate of the ear", ("ears.wer",)
    else:
        title, keys = "text alignment, nats an utterance", ("text.all.mi", "text.first.mi")
    found = []
    for one in every:
        y = next((one["figures"][key] for key in keys if key in one["figures"]), None)
        if y is not None and "bits.nominal" in one["figures"]:
            x = one["figures"]["bits.nominal"] / 1000
            found.append(Point(name=one["name"], x=x, y=y, filled=one["kind"] != "classical"))
    return title, found, results["recordings"]["figures"].get(keys[0])


def plot(results: Mapping[str, Any]) -> str:
    """An SVG; where nothing could be measured, one that says so."""
    title, points, own = points_of(results)
    parts = [_text(LEFT, 22, f"{title} over kbit/s", size=15)]
    points = [one for one in points if one.x > 0 and math.isfinite(one.y)]
    if points:
        parts += _drawn(points, own)
    else:
        parts.append(_text(LEFT, HEIGHT / 2, "nothing to show: neither ears nor text alignment"))
    style = (
        "text{font-family:system-ui,sans-serif;fill:#1d2430}line{stroke:#c8ccd4}circle{stroke:#3457b2;stroke-width:2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)} over kbit/s"><style>{style}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fbfaf7"/>{"".join(parts)}</svg>\n'
    )


def _drawn(points: list[Point], own: float | None) -> list[str]:
    values = [one.y for one in points] + ([own] if own is not None else [])
    low, high = min(0.0, *values), max(*values, 1e-9)
    left, right = (f(math.log2(one.x) for one in points) for f in (min, max))
    first, last = math.floor(left - 0.2), math.ceil(right + 0.2)

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(x) - first) / (last - first)

    def down(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)

    parts = []
    for power in range(first, last + 1):
        x = across(2.0**power)
        parts += [_line(x, TOP, x, HEIGHT - BOTTOM), _text(x, HEIGHT - BOTTOM + 18, f"{2.0**power:g}", "middle")]
    for step in range(5):
        y = low + (high - low) * step / 4
        parts += [_line(LEFT, down(y), WIDTH - RIGHT, down(y)), _text(LEFT - 8, down(y) + 4, f"{y:.3g}", "end")]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "kbit/s", "middle"))
    if own is not None:
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(own):.1f}" y2="{down(own):.1f}" '
            'style="stroke:#1d7a46;stroke-dasharray:6 4"/>',
            _text(WIDTH - RIGHT, down(own) - 6, "the recordings themselves", "end"),
        ]
    for one in points:
        x, y = across(one.x), down(one.y)
        end = x > WIDTH - 180
        fill = "#3457b2" if one.filled else "none"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" style="fill:{fill}"/>')
        parts.append(_text(x - 9 if end else x + 9, y + 4, one.name, "end" if end else "start"))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{html.escape(text)}</text>'
