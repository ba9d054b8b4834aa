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
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of, main_stream
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.normalization.sentences import split_sentences
from unitok_tokenizers.text.normalization.spoken import learned_characters

VOICE_SECONDS = 1.0
LONGEST_SHARE = 0.98
"""Recordings up to which length are read whole: of the longest ones there were too few to learn from."""
SENTENCES_COUNTED = 2000
"""Most texts whose sentences are counted."""


def main_of(shards: Shards, kind: str, vocabulary: Vocabulary | None) -> StreamInfo | None:
    """The stream of shards that a kind stands for in a vocabulary, in the shards themselves where that is None."""
    main = main_stream(shards.streams, kind) if vocabulary is None else vocabulary.main(kind)
    return None if main is None else shards.streams.get(main.name)


def voice_prompts(shards: Shards, vocabulary: Vocabulary | None = None) -> dict[str, np.ndarray]:
    """Codes (F, Q) int32 of the beginning of one training utterance of every speaker who is heard."""
    codes = main_of(shards, "codes", vocabulary)
    if codes is None:
        return {}
    prompts = {}
    frames = max(1, round(VOICE_SECONDS * float(codes.frame_rate or 1)))
    heard = (shards.split == "train") & (np.diff(shards.ragged(codes.name)[1]) > 0)
    for speaker in sorted(set(shards.speaker[heard].tolist()) - {""}):
        rows = np.flatnonzero((shards.speaker == speaker) & heard)
        row = int(rows[np.argsort(shards.seconds[rows])[len(rows) // 2]])
        prompts[speaker] = shards.codes(row, codes.name)[:frames].astype(np.int32)
    return prompts


def learned_limits(shards: Shards, margin: float = 1.3, *, vocabulary: Vocabulary | None = None) -> Limits:
    """Length limits: the largest ratios that training shows, with a margin; and the longest texts that it holds."""
    train_rows = np.flatnonzero(shards.split == "train")
    units, codes = (main_of(shards, kind, vocabulary) for kind in ("units", "codes"))
    texts = np.diff(shards.ragged("text_ids")[1])[train_rows] if "text_ids" in shards.table.column_names else None
    found = {} if texts is None else longest_texts(shards, train_rows, texts)
    if units is None:
        return Limits(**found)
    found["longest_seconds"] = longest_seconds(shards, units=units)
    found["whole_seconds"] = longest_seconds(shards, "train", JOINED, units=units)
    if texts is None:
        return Limits(**found)
    sizes = np.diff(shards.ragged(units.name)[1])[train_rows]
    both = (texts > 2) & (sizes > 2)
    if not both.any():
        return Limits(**found)
    text, spoken = texts[both], sizes[both]
    values = {"text_per_unit": text / spoken, "units_per_text": spoken / text}
    if codes is not None:
        width = len(codes.cardinalities)
        values["frames_per_unit"] = np.diff(shards.ragged(codes.name)[1])[train_rows][both] / width / spoken
    longest = {name: float(np.quantile(value, 0.999)) * margin for name, value in values.items()}
    found |= {name: value for name, value in longest.items() if value > 0}
    return Limits(**found)


def longest_seconds(shards: Shards, *splits: str, units: StreamInfo | None = None) -> float:
    """How long rows of splits (the training where none are named) are, but for the longest few, by their units."""
    stream = units or main_stream(shards.streams, "units")
    assert stream is not None, "shards without units"
    column, durations = columns_of(stream)
    rows = np.flatnonzero(np.isin(shards.split, splits or ("train",)) & (np.diff(shards.ragged(column)[1]) > 0))
    rate = stream.frame_rate
    if not len(rows) or rate is None:
        return Limits().longest_seconds
    values, offsets = shards.ragged(durations if stream.deduplicated else column)
    if stream.deduplicated:
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
