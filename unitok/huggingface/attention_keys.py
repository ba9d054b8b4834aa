"""What a stock `config.json` says of attention beside its sizes: rotary positions and windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError

ROPE_KEYS: Mapping[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def above_zero(value: Any, kind: Any) -> bool:
    """Whether a value is a finite number above 0 of a kind."""
    return isinstance(value, kind) and not isinstance(value, bool) and 0 < value < math.inf


def rope_of(full: Mapping[str, Any], where: Path) -> tuple[float, dict[str, Any] | None]:
    """Base and scaling of the rotary positions: `rope_parameters`, or `rope_theta` and `rope_scaling` of old files."""
    given = full.get("rope_scaling") or full.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or any(isinstance(value, Mapping) for value in given.values()):
        raise InputError(
            f"{where}: the rotary positions are {given!r} in config.json; one base and scaling for all layers, as "
            "names and numbers, can be imported"
        )
    rope = dict(given)
    theta = rope.pop("rope_theta", full["rope_theta"])
    if not above_zero(theta, int | float):
        raise InputError(
            f"{where}: rope_theta is {theta!r} in config.json: it is a number above 0; take the file again"
        )
    theta = float(theta)
    legacy = rope.pop("type", "default")
    kind = rope.pop("rope_type", legacy)
    partial = rope.pop("partial_rotary_factor", full.get("partial_rotary_factor")) or 1.0
    if partial != 1.0:
        raise InputError(f"{where}: partial_rotary_factor {partial} is not supported; give a model that rotates all")
    if kind == "default":
        return theta, None
    if not isinstance(kind, str) or kind not in ROPE_KEYS:
        raise InputError(
            f"{where}: rope scaling {kind!r} is not supported; default, {' and '.join(ROPE_KEYS)} are: "
            "give a model that uses one of them"
        )
    missing = [key for key in ROPE_KEYS[kind] if rope.get(key) is None]
    if missing:
        raise InputError(f"{where}: rope scaling {kind!r} lacks {', '.join(missing)}; take config.json again")
    wrong = [key for key in ROPE_KEYS[kind] if isinstance(rope[key], bool) or not isinstance(rope[key], int | float)]
    if wrong or min(float(rope[key]) for key in ROPE_KEYS[kind]) <= 0:
        raise InputError(f"{where}: rope scaling is {rope!r}: give numbers above 0; take config.json again")
    return theta, {"rope_type": kind, **{key: rope[key] for key in ROPE_KEYS[kind]}}


def window_of(full: Mapping[str, Any], where: Path) -> tuple[int | None, bool]:
    """(positions that one sees, where a layer has a window; whether all layers have it)."""
    kind, window = full["model_type"], full.get("sliding_window")
    if window is None or (kind != "mistral" and not full.get("use_sliding_window")):
        return None, False
    if not above_zero(window, int):
        raise InputError(
            f"{where}: sliding_window is {window!r} in config.json: positions, or null; take the file again"
        )
    if kind == "mistral":
        return window, True
    if isinstance(kinds := full.get("layer_types"), list):
        slide = [one == "sliding_attention" for one in kinds]
    else:
        slide = [layer >= full["max_window_layers"] for layer in range(full["num_hidden_layers"])]
    return (window, all(slide)) if any(slide) else (None, False)
