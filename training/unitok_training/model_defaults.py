"""What a model knows from its shards without training: a prompt for every speaker, how long texts and answers become,
and the characters of every language.

One pass over the shards' parts: numbers come from the columns as they are mapped, texts are looked at as the bytes of a
whole part, and no row becomes a Python value but some two thousand texts whose sentences are counted. Memory: some 40
bytes a row while voices are chosen, and for quantiles the largest values alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import numpy as np

from unitok.generation.length_limits import Limits
from unitok_tokenizers.data.joined_rows import SPLIT as JOINED
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of, main_stream
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.normalization.sentences import split_sentences
from unitok_tokenizers.text.normalization.spoken import RARE
from unitok_training.shard_set import ShardSet

VOICE_SECONDS = 1.0
LONGEST_SHARE = 0.98
"""Recordings up to which length are read whole: of the longest ones there were too few to learn from."""
RATIO_SHARE = 0.999
"""Utterances whose ratios of lengths the limits leave room for."""
SENTENCES_SHARE = 0.99
"""Texts whose sentences are read together at most."""
SENTENCES_COUNTED = 2000
"""Most texts whose sentences are counted, or nearly twice as many."""
PART_ROWS = 1 << 16
"""Rows that are looked at together at most."""


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What a model knows from its shards."""

    prompts: dict[str, np.ndarray]
    """Speaker → codes (F, Q) int32 of the beginning of a training utterance."""
    limits: Limits
    """How long texts and answers become."""
    characters: dict[str, str]
    """Language → the characters of its training texts, sorted."""


def main_of(shards: Shards, kind: str, vocabulary: Vocabulary | None) -> StreamInfo | None:
    """The stream of shards that a kind stands for in a vocabulary, in the shards themselves where that is None."""
    main = main_stream(shards.streams, kind) if vocabulary is None else vocabulary.main(kind)
    return None if main is None else shards.streams.get(main.name)


def learned(data: Shards | ShardSet, vocabulary: Vocabulary | None = None) -> Knowledge:
    """What all folders of a run's shards show: of each limit the largest, and voices of one name from the folder with
    the largest weight. Which streams are the units and codes, here and below, `main_of` says."""
    folders = sorted(ShardSet.of(data).folders, key=lambda folder: folder.weight)
    found = [learned_lengths(folder.shards, vocabulary) for folder in folders]
    names = {name for one in found for name in one}
    prompts: dict[str, np.ndarray] = {}
    for folder in folders:
        prompts |= voice_prompts(folder.shards, vocabulary)
    return Knowledge(
        prompts={name: prompts[name] for name in sorted(prompts)},
        limits=Limits(**{name: max(one[name] for one in found if name in one) for name in names}),
        characters=reduce(wider_characters, (learned_texts(folder.shards) for folder in folders)),
    )


def voice_prompts(shards: Shards, vocabulary: Vocabulary | None = None) -> dict[str, np.ndarray]:
    """Codes (F, Q) int32 of the beginning of the training utterance of median length of every speaker who is heard."""
    codes = main_of(shards, "codes", vocabulary)
    if codes is None:
        return {}
    frames = max(1, round(VOICE_SECONDS * float(codes.frame_rate or 1)))
    split, splits = shards.factors("split")
    speaker, speakers = shards.factors("speaker")
    names, train = speakers.to_pylist(), _place(splits.to_pylist(), "train")
    rows = np.flatnonzero(
        (split == train) & (speaker != _place(names, "")) & (shards.offsets(codes.name).lengths() > 0)
    )  # fmt: skip
    if not len(rows):
        return {}
    rows = rows[np.argsort(speaker[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(speaker[rows], prepend=-1, append=-1))
    seconds = shards.seconds[rows]
    prompts = {}
    for start, stop in zip(edges.tolist(), edges[1:].tolist()):
        middle = start + int(np.argsort(seconds[start:stop])[(stop - start) // 2])
        prompts[names[speaker[rows[start]]]] = shards.codes(int(rows[middle]), codes.name)[:frames].astype(np.int32)
    return dict(sorted(prompts.items()))


def _place(names: Sequence[str], name: str) -> int:
    """Where a name stands; -1 where it does not."""
    return names.index(name) if name in names else -1


def learned_limits(shards: Shards, vocabulary: Vocabulary | None = None) -> Limits:
    """Length limits: the largest ratios that training shows, with a margin; and the longest texts that it holds."""
    return Limits(**learned_lengths(shards, vocabulary))


def learned_lengths(shards: Shards, vocabulary: Vocabulary | None = None, margin: float = 1.3) -> dict[str, Any]:
    """Fields of `Limits` that the training rows of shards show."""
    passed = LengthPass(shards, *(main_of(shards, kind, vocabulary) for kind in ("units", "codes")))
    for part in _parts(shards, "split", *passed.columns):
        passed.add(part)
    found: dict[str, Any] = {}
    if len(passed.texts):
        found["longest_text"] = max(1, int(passed.texts.quantile(RATIO_SHARE)))
        found["sentences_together"] = sentences_together(shards, len(passed.texts))
    if passed.units is not None:
        found["longest_seconds"], found["whole_seconds"] = passed.longest_seconds(passed.units)
    longest = {
        name: values.quantile(RATIO_SHARE) * margin for name, values in passed.ratios.items() if len(values)
    }  # fmt: skip
    if frames := longest.pop("frames_per_text", 0.0):  # as `Limits.of` has them where no units stand between
        longest["frames_per_unit"] = 2 * frames / Limits().units_per_text
    return found | {name: value for name, value in longest.items() if value > 0}


class LengthPass:
    """How long the training's texts, units and codes are, part by part.

    Args:
        shards: whose rows come.
        units: their stream of units, None where there is none.
        codes: their stream of codes, None where there is none.
    """

    def __init__(self, shards: Shards, units: StreamInfo | None, codes: StreamInfo | None) -> None:
        self.units, self.codes, rows = units, codes, len(shards)
        speech = [column for stream in (units, codes) if stream is not None for column in columns_of(stream)]
        self.columns = [*(["text_ids"] if "text_ids" in shards.ragged_columns else []), *speech]
        self.texts = Largest(RATIO_SHARE, rows)
        """Text ids of rows with text."""
        self.frames = {splits: Largest(LONGEST_SHARE, rows) for splits in (("train",), ("train", JOINED))}
        """Unit frames of rows with units, without joined ones and with them."""
        names = ("text_per_unit", "units_per_text", "frames_per_unit", "frames_per_text")
        self.ratios = {name: Largest(RATIO_SHARE, rows) for name in names}

    def add(self, part: Any) -> None:
        """Count the rows of a record batch."""
        train, joined = _among(part, "train"), _among(part, JOINED)
        size = {name: np.diff(np.asarray(part[name].offsets)) for name in self.columns}
        if "text_ids" in size:
            texts = size["text_ids"][train]
            self.texts.add(texts[texts > 0])
        if self.units is None:
            if self.codes is not None and "text_ids" in size:
                frames = size[columns_of(self.codes)[0]] / len(self.codes.cardinalities)
                both = train & (size["text_ids"] > 2) & (frames > 0)
                self.ratios["frames_per_text"].add(frames[both] / size["text_ids"][both])
            return
        column, durations = columns_of(self.units)[:2]
        frames, spoken = size[column], size[column] > 0
        if self.units.deduplicated:
            offsets = np.asarray(part[durations].offsets)
            sums = np.concatenate([[0], np.cumsum(np.asarray(part[durations].flatten()), dtype=np.int64)])
            frames = np.diff(sums[offsets - offsets[0]])
        for splits, values in self.frames.items():
            values.add(frames[spoken & (train | joined if JOINED in splits else train)])
        if "text_ids" in size:
            both = train & (size["text_ids"] > 2) & (size[column] > 2)
            text, units = size["text_ids"][both], size[column][both]
            self.ratios["text_per_unit"].add(text / units)
            self.ratios["units_per_text"].add(units / text)
            if self.codes is not None:
                width = len(self.codes.cardinalities)
                self.ratios["frames_per_unit"].add(size[self.codes.name][both] / width / units)

    def longest_seconds(self, units: StreamInfo) -> tuple[float, ...]:
        """How long rows are, but for the longest few, by their units: without joined ones and with them."""
        rate, unknown = units.frame_rate, Limits().longest_seconds
        return tuple(
            values.quantile(LONGEST_SHARE) / float(rate) if rate is not None and len(values) else unknown
            for values in self.frames.values()
        )


class Largest:
    """The largest of many numbers: enough of them for one quantile, however many come.

    Args:
        share: the quantile, near 1.
        most: numbers that may come.
    """

    def __init__(self, share: float, most: int) -> None:
        self.kept = int((1 - share) * most) + 3
        self.count = 0
        self._values = np.zeros(0)

    def __len__(self) -> int:
        return self.count

    def add(self, values: np.ndarray) -> None:
        """Count more numbers (N,)."""
        self.count += len(values)
        self._values = np.concatenate([self._values, values])
        if len(self._values) > 2 * self.kept:
            self._values = np.partition(self._values, -self.kept)[-self.kept :]

    def quantile(self, share: float) -> float:
        """What `numpy.quantile` says of all of them."""
        ordered = np.sort(self._values)
        place = (self.count - 1) * np.float64(share)
        below = int(place)
        behind = len(ordered) - self.count  # what was not kept stands in front
        low = ordered[behind + below]
        high = ordered[min(behind + below + 1, len(ordered) - 1)]
        part = place - below
        return float(high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part)


def sentences_together(shards: Shards, texts: int) -> int:
    """How many sentences nearly every training text has at most, by every so-and-so-many-th of these `texts`."""
    step, seen = max(1, texts // SENTENCES_COUNTED), 0
    counts: list[int] = []
    for part in _parts(shards, "split", "text_ids", "text", "lang"):
        rows = np.flatnonzero(_among(part, "train") & (np.diff(np.asarray(part["text_ids"].offsets)) > 0))
        chosen = rows[-seen % step :: step]
        seen += len(rows)
        for text, lang in zip(part["text"].take(chosen).to_pylist(), part["lang"].take(chosen).to_pylist()):
            counts.append(len(split_sentences(text or "", lang)))
    return max(1, int(np.quantile(counts, SENTENCES_SHARE)))


def learned_texts(shards: Shards) -> dict[str, str]:
    """Language → the characters of its training texts, sorted; strays of a large corpus left out."""
    counts: dict[str, np.ndarray] = {}
    for part in _parts(shards, "split", "lang", "text"):
        train = _among(part, "train")
        number, langs = _numbered(part["lang"])
        for place, lang in enumerate(langs):
            found = character_counts(part["text"], train & (number == place))
            known = counts.get(lang, np.zeros(0, np.int64))
            longer, shorter = (found, known) if len(found) > len(known) else (known, found)
            longer[: len(shorter)] += shorter
            counts[lang] = longer
    learned = {
        lang: "".join(map(chr, np.flatnonzero((found > 0) & (found >= RARE * int(found.sum()))).tolist()))
        for lang, found in sorted(counts.items())
    }
    return {lang: characters for lang, characters in learned.items() if characters}


def character_counts(texts: Any, chosen: np.ndarray) -> np.ndarray:
    """How often each character (by its code point) comes in chosen texts of a string array, in NFC."""
    import pyarrow
    import pyarrow.compute

    lines = texts.filter(pyarrow.array(chosen)).drop_null()
    if not len(lines):
        return np.zeros(0, np.int64)
    # A line break between texts: no character joins with it, so that all of them become NFC at once.
    apart = pyarrow.compute.binary_join_element_wise(lines, "", "\n")
    _, offsets, data = apart.buffers()
    joined = bytes(memoryview(data)[: int(np.frombuffer(offsets, np.int32)[len(apart)])])
    if joined.isascii():
        found = np.bincount(np.frombuffer(joined, np.uint8))
    else:
        text = unicodedata.normalize("NFC", joined.decode("utf-8"))
        found = np.bincount(np.frombuffer(text.encode("utf-32-le"), np.uint32))
    found[ord("\n")] -= len(lines)
    return found


def _parts(shards: Shards, *columns: str) -> Iterator[Any]:
    """The shards' rows as record batches of some columns."""
    yield from shards.table.select(list(dict.fromkeys(columns))).to_batches(max_chunksize=PART_ROWS)


def _among(part: Any, split: str) -> np.ndarray:
    """(N,) whether rows of a record batch are of a split."""
    import pyarrow.compute

    return np.asarray(pyarrow.compute.equal(part["split"], split).to_numpy(zero_copy_only=False), np.bool_)


def _numbered(strings: Any) -> tuple[np.ndarray, list[str]]:
    """A string array as numbers (N,), and what they stand for."""
    encoded = strings.dictionary_encode()
    return np.asarray(encoded.indices), encoded.dictionary.to_pylist()


def wider_characters(one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """The characters of both, for each language."""
    return {lang: "".join(sorted({*one.get(lang, ""), *other.get(lang, "")})) for lang in sorted({*one, *other})}


def wider_limits(one: Limits, other: Limits) -> Limits:
    """The larger of each limit."""
    return Limits(**{item.name: max(getattr(one, item.name), getattr(other, item.name)) for item in fields(Limits)})
