"""What a model knows from its shards without training: a prompt for every speaker, and how long answers become."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from unitok.limits import Limits
from unitok_tokenizers.shards import Shards

VOICE_SECONDS = 1.0
LONGEST_SHARE = 0.98
"""Recordings up to which length are read whole: of the longest ones there were too few to learn from."""


def voice_prompts(shards: Shards) -> dict[str, np.ndarray]:
    """Codes (F, Q) int32 of the beginning of one training utterance of every speaker who is heard."""
    if "codes" not in shards.streams:
        return {}
    prompts = {}
    frames = round(VOICE_SECONDS * float(shards.streams["codes"].frame_rate or 1))
    heard = (shards.split == "train") & (np.diff(shards.ragged("codes")[1]) > 0)
    for speaker in sorted(set(shards.speaker[heard].tolist()) - {""}):
        rows = np.flatnonzero((shards.speaker == speaker) & heard)
        row = int(rows[np.argsort(shards.seconds[rows])[len(rows) // 2]])
        prompts[speaker] = shards.codes(row)[:frames].astype(np.int32)
    return prompts


def learned_limits(shards: Shards, margin: float = 1.3) -> Limits:
    """Length limits: the largest ratios that training shows, with a margin."""
    if "units" not in shards.streams:
        return Limits()
    longest = longest_seconds(shards)
    train_rows = np.flatnonzero(shards.split == "train")
    size = {name: np.diff(shards.ragged(name)[1])[train_rows] for name in ("text_ids", "units")}
    both = (size["text_ids"] > 2) & (size["units"] > 2)
    if not both.any():
        return Limits(longest_seconds=longest)
    text, spoken = size["text_ids"][both], size["units"][both]
    values = {"text_per_unit": text / spoken, "units_per_text": spoken / text}
    if "codes" in shards.streams:
        width = len(shards.streams["codes"].cardinalities)
        values["frames_per_unit"] = np.diff(shards.ragged("codes")[1])[train_rows][both] / width / spoken
    most: dict[str, Any] = {name: float(np.quantile(value, 0.999)) * margin for name, value in values.items()}
    return Limits(longest_seconds=longest, **{name: value for name, value in most.items() if value > 0})


def longest_seconds(shards: Shards) -> float:
    """How long the recordings were that training has seen, but for the longest few: as long as their units."""
    rows = np.flatnonzero((shards.split == "train") & (np.diff(shards.ragged("units")[1]) > 0))
    rate = shards.streams["units"].frame_rate
    if not len(rows) or rate is None:
        return Limits().longest_seconds
    values, offsets = shards.ragged("units_durations" if shards.streams["units"].deduplicated else "units")
    if shards.streams["units"].deduplicated:
        sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        frames = sums[offsets[rows + 1]] - sums[offsets[rows]]
    else:
        frames = np.diff(offsets)[rows]
    return float(np.quantile(frames, LONGEST_SHARE)) / float(rate)


def wider_limits(one: Limits, other: Limits) -> Limits:
    """The larger of each limit."""
    return Limits(**{item.name: max(getattr(one, item.name), getattr(other, item.name)) for item in fields(Limits)})
