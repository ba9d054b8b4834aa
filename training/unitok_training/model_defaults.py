"""What a model knows from its shards without training: a prompt for every speaker, how long texts and answers become,
and the characters of every language.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from unitok.generation.length_limits import Limits
from unitok_tokenizers.data.joined_rows import SPLIT as JOINED
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.text.normalization.sentences import split_sentences
from unitok_tokenizers.text.normalization.spoken import learned_characters

VOICE_SECONDS = 1.0
LONGEST_SHARE = 0.98
"""Recordings up to which length are read whole: of the longest ones there were too few to learn from."""
SENTENCES_COUNTED = 2000
"""Most texts whose sentences are counted."""


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
    """Length limits: the largest ratios that training shows, with a margin; and the longest texts that it holds."""
    train_rows = np.flatnonzero(shards.split == "train")
    held = [name for name in ("text_ids", "units") if name in shards.table.column_names]
    size = {name: np.diff(shards.ragged(name)[1])[train_rows] for name in held}
    found = longest_texts(shards, train_rows, size["text_ids"]) if "text_ids" in size else {}
    if "units" in shards.streams:
        found["longest_seconds"] = longest_seconds(shards)
        found["whole_seconds"] = longest_seconds(shards, "train", JOINED)
    if "units" not in shards.streams or "text_ids" not in size:
        return Limits(**found)
    both = (size["text_ids"] > 2) & (size["units"] > 2)
    if not both.any():
        return Limits(**found)
    text, spoken = size["text_ids"][both], size["units"][both]
    values = {"text_per_unit": text / spoken, "units_per_text": spoken / text}
    if "codes" in shards.streams:
        width = len(shards.streams["codes"].cardinalities)
        values["frames_per_unit"] = np.diff(shards.ragged("codes")[1])[train_rows][both] / width / spoken
    longest = {name: float(np.quantile(value, 0.999)) * margin for name, value in values.items()}
    found |= {name: value for name, value in longest.items() if value > 0}
    return Limits(**found)


def longest_seconds(shards: Shards, *splits: str) -> float:
    """How long rows of splits (the training where none are named) are, but for the longest few, by their units."""
    rows = np.flatnonzero(np.isin(shards.split, splits or ("train",)) & (np.diff(shards.ragged("units")[1]) > 0))
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


def longest_texts(shards: Shards, rows: np.ndarray, sizes: np.ndarray) -> dict[str, Any]:
    """`longest_text` and `sentences_together` of `Limits`: what nearly all training texts (N,) keep."""
    if not (sizes > 0).any():
        return {}
    chosen = rows[sizes > 0][:: max(1, int((sizes > 0).sum()) // SENTENCES_COUNTED)]
    counts = [len(split_sentences(shards.text[row] or "", str(shards.lang[row]))) for row in chosen.tolist()]
    return {
        "longest_text": max(1, int(np.quantile(sizes[sizes > 0], 0.999))),
        "sentences_together": max(1, int(np.quantile(counts, 0.99))),
    }


def learned_texts(shards: Shards) -> dict[str, str]:
    """Language → the characters of its training texts, sorted."""
    train, found = shards.split == "train", dict[str, str]()
    for lang in shards.languages:
        rows = np.flatnonzero(train & (shards.lang == lang)).tolist()
        known = learned_characters(shards.text[row] or "" for row in rows)
        if known:
            found[lang] = "".join(sorted(known))
    return found


def wider_characters(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """The characters of both, for each language."""
    return {lang: "".join(sorted({*one.get(lang, ""), *other.get(lang, "")})) for lang in sorted({*one, *other})}


def wider_limits(one: Limits, other: Limits) -> Limits:
    """The larger of each limit."""
    return Limits(**{item.name: max(getattr(one, item.name), getattr(other, item.name)) for item in fields(Limits)})
