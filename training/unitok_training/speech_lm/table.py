"""The figures as a table for people: each beside its interval, what guessing reaches, and a model without a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

Row = tuple[str, str, str, str, str]
"""What is measured, the figure, its interval, chance or what it is compared with, how many."""
HEAD: Row = ("", "figure", "95 %", "beside it", "of")
NAMES = {
    "words": "words over pseudo-words",
    "sentences": "sentences over wrong ones",
    "pairs": "recorded pairs",
    "order": "real order over another",
}
DIRECTIONS = {"s_s": "speech → speech", "t_t": "text → text", "t_s": "text → speech", "s_t": "speech → text"}


def number(value: Any) -> str:
    """Four digits; a dash for what there is not."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def share(title: str, found: Mapping[str, Any], beside: str = "") -> Row:
    """A row of a share."""
    interval = f"{found['low']:.3f} – {found['high']:.3f}"
    chance = f"chance {found['chance']:.3g}" + (f", {beside}" if beside else "")
    return title, number(found["accuracy"]), interval, chance, str(found["count"])


def rows_of(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """Rows of everything that was measured."""
    if "prediction" in metrics:
        yield from _prediction(metrics["prediction"])
    for name, title in NAMES.items():
        if name in metrics:
            yield from _pairs(title, metrics[name])
    if "cloze" in metrics:
        for key, title in DIRECTIONS.items():
            if key in metrics["cloze"]:
                found = metrics["cloze"][key]
                yield share(f"cloze, {title}", found["per_id"], f"alone {number(found['alone']['accuracy'])}")
    if "prosody" in metrics:
        yield from _prosody(metrics["prosody"])
    if "curve" in metrics:
        yield from _curve(metrics["curve"])


def _prediction(found: Mapping[str, Any]) -> Iterator[Row]:
    grams = [
        name for name in found if name.endswith("_gram") and isinstance(found[name], Mapping) and "ppl" in found[name]
    ]
    for key, title in (("ppl", "perplexity of a unit"), ("bits_per_second", "bits a second of speech")):
        if key not in found["model"]:
            continue
        interval = f"{number(found['model'][f'{key}_low'])} – {number(found['model'][f'{key}_high'])}"
        beside = ", ".join(f"{name.replace('_', '-')} {number(found[name][key])}" for name in grams)
        yield title, number(found["model"][key]), interval, beside, str(found["count"])


def _pairs(title: str, found: Mapping[str, Any]) -> Iterator[Row]:
    beside = f"5-gram {number(found['n_gram']['accuracy'])}" if "n_gram" in found else ""
    yield share(title, found["per_id"], beside)
    for name, one in found.get("by_set", {}).items():
        yield share(f"  {name}", one)


def _prosody(found: Mapping[str, Any]) -> Iterator[Row]:
    for way in ("units", "prosody"):
        one = found.get(way, {})
        if "likelihood" in one:
            yield share(f"prosody goes on, by likelihood ({way})", one["likelihood"]["per_id"])
        if "sound" in one:
            beside = f"copied {number(one['sound']['copied']['accuracy'])}"
            yield share(f"prosody goes on, by sound ({way})", one["sound"]["generated"], beside)


def _curve(found: Mapping[str, Any]) -> Iterator[Row]:
    points = {**{f"temperature {name}": one for name, one in found["temperatures"].items()}}
    for title, one in {"real texts": found["real_texts"], "real speech": found["real_speech"], **points}.items():
        beside = f"VERT {number(one['vert'])}, empty {one['empty']:.2f}"
        interval = f"{number(one['ppx_low'])} – {number(one['ppx_high'])}"
        yield f"PPX, {title}", number(one["ppx"]), interval, beside, f"{one['count']:.0f}"


def as_text(results: Mapping[str, Any]) -> str:
    """A table in Markdown, and below it what is missing and why."""
    rows = [HEAD, *rows_of(results["metrics"])]
    wide = [max(len(row[place]) for row in rows) for place in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, wide)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in wide) + "|")
    why = [f"not measured: {name}: {reason}" for name, reason in results["not_measured"].items()]
    for name, one in results["metrics"].items():
        inner = one.get("not_measured", {})
        why += [f"not measured: {name} {part}: {reason}" for part, reason in inner.items()]
    return "\n".join([*lines, *([""] if why else []), *why])
