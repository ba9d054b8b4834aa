"""Draw what a model is shown: for every example index a task, rows of the shards, and the plan that renders them.

Everything is a pure function of (seed, index): the schedule names the task and how many of its examples came before;
that number walks through a permutation of the task's items, a new one per epoch; whatever else is drawn (which voice
says the target, which second is the voice prompt, where text turns into speech) comes from a generator seeded with
(seed, task, number). Each task says which rows it cannot use and why.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar import Plan, Span, render
from unitok_tokenizers.shards import Shards
from unitok_tokenizers.vocabulary import Vocabulary
from unitok_training.batch import Document
from unitok_training.columns import COLUMN_NAMES, NEEDS, Columns, Items, Skipped, segment_maximum
from unitok_training.interleave import interleave, word_pieces
from unitok_training.mixture import Mixture, Schedule, TaskKey, parse_key

TARGET_CHOICES = ("any", "same-speaker", "fixed")
OUT_UNITS, OUT_CODES, CHAIN = "<out:units>", "<out:codes>", "<chain>"


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What is drawn around a row."""

    split: str = "train"
    """Split of the shards that examples come from."""
    voice_share: float = 0.9
    """Share of the examples with acoustic output that get a voice prompt, where the speaker has another utterance."""
    voice_min_seconds: float = 1.0
    """Shortest voice prompt, in seconds (a shorter utterance is used whole)."""
    voice_max_seconds: float = 2.0
    """Longest voice prompt, in seconds."""
    target_row: str = "any"
    """Which utterance is the target where several voices say it: "any", "same-speaker" (as the source, where there is
    one) or "fixed" (always the first in the shards)."""
    condition_noise: float = 0.0
    """Share of the source units that are dropped or replaced at random: makes reading them robust."""
    text_weight: float = 1.0
    """Weight of the loss of text ids, of which an utterance has far fewer than of units or codes."""
    codes_weight: float = 1.0
    """Weight of the loss of acoustic codes."""
    interleave_words: float = 3.0
    """Mean length of a stretch of one modality in `ilm`, in words."""
    interleave_sentences: int = 3
    """Sentences in an `ilm` example where words are not aligned and the modality changes between sentences."""

    repeat: int = 0
    """Only this many examples, over and over; 0 for an endless stream. Shows whether a model can learn at all."""

    def __post_init__(self) -> None:
        if self.target_row not in TARGET_CHOICES:
            raise InputError(f"plans.target_row is {self.target_row!r}: choose from {', '.join(TARGET_CHOICES)}")
        if not 0 < self.voice_min_seconds <= self.voice_max_seconds:
            raise InputError(
                f"plans.voice_min_seconds is {self.voice_min_seconds} and voice_max_seconds {self.voice_max_seconds}: "
                "they must rise and be above 0"
            )
        for name in ("interleave_words", "interleave_sentences"):
            if getattr(self, name) < 1:
                raise InputError(f"plans.{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("text_weight", "codes_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"plans.{name} is {getattr(self, name)}: it must be above 0")
        for name in ("voice_share", "condition_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"plans.{name} is {getattr(self, name)}: a share lies between 0 and 1")


class PlanSource:
    """Plans and documents by example index.

    `pieces` are the text tokenizer's, needed only to cut `ilm` examples at words. InputError where a task of the
    mixture has no row at all, or the shards' streams are not the vocabulary's.
    """

    def __init__(
        self,
        shards: Shards,
        vocabulary: Vocabulary,
        mixture: Mixture,
        *,
        seed: int,
        options: PlanOptions | None = None,
        pieces: Sequence[str] | None = None,
    ) -> None:
        for stream in shards.streams.values():
            vocabulary.check(stream)
        self.vocabulary = vocabulary
        self.seed = seed
        self.options = options or PlanOptions()
        self.columns = Columns(shards, vocabulary, self.options.split)
        self.schedule = Schedule(mixture, seed=seed)
        self.keys = self.schedule.keys
        self.parsed = [parse_key(key) for key in self.keys]
        self.skipped: list[Skipped] = []
        self.items = [self._select(key, parsed) for key, parsed in zip(self.keys, self.parsed)]
        self.word_start = None if pieces is None else word_pieces(pieces)
        self.id_weights = self._id_weights()
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self._makers: dict[str, Callable[[TaskKey, int, int, np.random.Generator], Plan]] = {
            "asr": self._read,
            "tts": self._speak,
            "s2tt": self._read,
            "s2st": self._speak_translation,
            "mt": self._read,
            "lm": self._continue,
            "slm": self._continue,
            "ilm": self._interleave,
            "chat": self._answer,
        }

    # ---- what may be drawn

    def _select(self, key: str, parsed: TaskKey) -> Items:
        """Usable items of a task; what is left out is counted in `skipped`."""
        if parsed.line not in NEEDS:
            raise InputError(f"mixture.{key}: only `unitok train-latent` takes it; remove it with mixture.{key}=0")
        columns = self.columns
        source_needs, target_needs = NEEDS[parsed.line]
        usable = columns.split.copy()
        total = int(usable.sum())
        reasons: list[tuple[str, int]] = []

        def keep(mask: np.ndarray, reason: str) -> None:
            if lost := int((usable & ~mask).sum()):
                reasons.append((reason, lost))
            usable[~mask] = False

        keep(columns.known_language, "language not in the vocabulary")
        if parsed.source:
            usable &= columns.lang == parsed.source  # asked for, so not reported as skipped
        for name in source_needs:
            keep(columns.lengths(name) > 0, f"no {COLUMN_NAMES[name]}")
        if target_needs is None:
            items = Items(self._distinct(usable) if parsed.line == "lm" else np.flatnonzero(usable))
        else:
            find = self._replies if parsed.task == "chat" else self._pairs
            items = find(parsed, usable, target_needs)
            partnered = np.zeros_like(usable)
            partnered[items.source] = True
            if parsed.line == "mt":
                partnered |= usable & ~self._mask(self._distinct(usable))  # the same text again, not a loss
            keep(partnered, "no reply to it" if parsed.task == "chat" else "no partner in another language")
        self.skipped += [Skipped(key=key, reason=reason, rows=rows) for reason, rows in reasons]
        if not len(items.source):
            why = ", ".join(f"{rows} {reason}" for reason, rows in reasons) or "none of the language asked for"
            raise InputError(
                f"mixture.{key}: none of the {total} rows of split {self.options.split!r} can be used ({why}); "
                f"remove it with mixture.{key}=0, or prepare shards that have what it needs"
            )
        return items

    def _mask(self, rows: np.ndarray) -> np.ndarray:
        mask = np.zeros(len(self.columns.lang), np.bool_)
        mask[rows] = True
        return mask

    @cached_property
    def _cell(self) -> np.ndarray:
        """(R,) number of (group, language); rows without a group have one each."""
        columns = self.columns
        groups = np.where(columns.group == "", [f"\0{row}" for row in range(len(columns.group))], columns.group)
        return np.unique(groups, return_inverse=True)[1] * len(self._languages) + self._language

    @cached_property
    def _languages(self) -> list[str]:
        return sorted(set(self.columns.lang.tolist()))

    @cached_property
    def _language(self) -> np.ndarray:
        """(R,) index of the row's language."""
        return np.searchsorted(self._languages, self.columns.lang)

    def _distinct(self, usable: np.ndarray) -> np.ndarray:
        """The first usable row of each (group, language): text that several voices say counts once."""
        rows = np.flatnonzero(usable)
        return rows[np.sort(np.unique(self._cell[rows], return_index=True)[1])]

    def _pairs(self, parsed: TaskKey, usable: np.ndarray, target_needs: Sequence[str]) -> Items:
        """Every usable source row with every other language in which its group is said."""
        columns = self.columns
        target = columns.split & columns.known_language & (columns.group != "")
        for name in target_needs:
            target &= columns.lengths(name) > 0
        pool = np.flatnonzero(target)
        if parsed.line == "mt":
            pool = self._distinct(target)
        pool = pool[np.argsort(self._cell[pool], kind="stable")]
        cells = self._cell[pool]
        sources = self._distinct(usable) if parsed.line == "mt" else np.flatnonzero(usable)
        found = []
        for number, language in enumerate(self._languages):
            if parsed.target not in (None, language):
                continue
            rows = sources[(self._language[sources] != number) & (columns.group[sources] != "")]
            wanted = self._cell[rows] - self._language[rows] + number
            start, stop = np.searchsorted(cells, wanted, "left"), np.searchsorted(cells, wanted, "right")
            some = stop > start
            found.append(np.stack([rows[some], start[some], stop[some]]))
        source, start, stop = np.concatenate(found, axis=1) if found else np.zeros((3, 0), np.int64)
        return Items(source, start, stop, pool)

    def _replies(self, parsed: TaskKey, usable: np.ndarray, target_needs: Sequence[str]) -> Items:
        """Questions with the rows whose extras say `"reply_to": id of the question`."""
        columns = self.columns
        target = columns.split & columns.known_language
        for name in target_needs:
            target &= columns.lengths(name) > 0
        row_of = {str(columns.ids[row]): int(row) for row in np.flatnonzero(usable)}
        pairs = []
        for row in np.flatnonzero(target):
            if '"reply_to"' not in columns.extras[row]:
                continue
            question = row_of.get(str(json.loads(columns.extras[row])["reply_to"]))
            if question is not None:
                pairs.append((question, int(row)))
        source, pool = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
        return Items(source, np.arange(len(pool)), np.arange(len(pool)) + 1, pool)

    @cached_property
    def _voices(self) -> dict[str, np.ndarray]:
        """Speaker → usable rows with codes."""
        columns = self.columns
        rows = np.flatnonzero(columns.split & (columns.lengths("codes") > 0) & (columns.speaker != ""))
        rows = rows[np.argsort(columns.speaker[rows], kind="stable")]
        names, starts = np.unique(columns.speaker[rows], return_index=True)
        return {str(name): part for name, part in zip(names, np.split(rows, starts[1:]))}

    def _id_weights(self) -> np.ndarray | None:
        """(V,) float32 loss weight of every id as a label; None where all weigh the same."""
        by_block = {"text": self.options.text_weight, "codes": self.options.codes_weight}
        if set(by_block.values()) == {1.0}:
            return None
        weights = np.ones(self.vocabulary.size, dtype=np.float32)
        for extent in self.vocabulary.extents:
            weights[extent.start : extent.start + extent.size] = by_block.get(extent.block, 1.0)
        return weights

    # ---- drawing

    def plan(self, index: int) -> Plan:
        """The plan of an example."""
        return self._draw(index)[0]

    example = plan

    def document(self, index: int) -> Document:
        """The example rendered."""
        plan, task, source = self._draw(index)
        rendered = render(plan, self.vocabulary)
        name = f"{self.keys[task]} example from row {self.columns.ids[source]}"
        weights = rendered.loss_weight
        if self.id_weights is not None:
            weights = weights * self.id_weights[rendered.ids]
        return Document(
            ids=rendered.ids, loss_weight=weights, task=task, name=name, prefix_length=rendered.prefix_length
        )

    def _draw(self, index: int) -> tuple[Plan, int, int]:
        """(plan, task, source row)."""
        task, number = self.schedule.draw(index % self.options.repeat if self.options.repeat else index)
        key, items = self.parsed[task], self.items[task]
        rng = np.random.default_rng([self.seed, self._salt[task], number])
        item = self._order(task, number)
        source = int(items.source[item])
        target = source if items.pool is None else self._target(items, item, rng)
        return self._makers[key.task](key, source, target, rng), task, source

    @cached_property
    def _salt(self) -> list[int]:
        """A number per task from its key alone: adding a task to a mixture changes no draw of the others."""
        return [zlib.crc32(key.encode()) for key in self.keys]

    def _order(self, task: int, number: int) -> int:
        """Item of a task's n-th example: every epoch is a permutation of all items."""
        epoch, place = divmod(number, len(self.items[task].source))
        cached = self._orders.get(task)
        if cached is None or cached[0] != epoch:
            rng = np.random.default_rng([self.seed, self._salt[task], epoch, 1])
            cached = self._orders[task] = (epoch, rng.permutation(len(self.items[task].source)))
        return int(cached[1][place])

    def _target(self, items: Items, item: int, rng: np.random.Generator) -> int:
        assert items.pool is not None and items.start is not None and items.stop is not None
        candidates = items.pool[items.start[item] : items.stop[item]]
        if self.options.target_row == "same-speaker":
            same = candidates[self.columns.speaker[candidates] == self.columns.speaker[items.source[item]]]
            candidates = same if len(same) else candidates
        elif self.options.target_row == "fixed":
            candidates = candidates[:1]
        return int(candidates[0] if len(candidates) == 1 else candidates[rng.integers(len(candidates))])

    def _lang(self, row: int) -> str:
        return str(self.columns.lang[row])

    def _source_units(self, row: int, rng: np.random.Generator) -> Span:
        span, share = self.columns.units(row), self.options.condition_noise
        if not share:
            return span
        units = span.content.copy()
        hit, drop = rng.random(len(units)) < share, rng.random(len(units)) < 0.5
        size = self.columns.shards.streams["units"].cardinalities[0]
        units[hit & ~drop] = rng.integers(size, size=int((hit & ~drop).sum()))
        kept = units[~(hit & drop)]
        return Span("units", kept if len(kept) else span.content, "units")

    def _voice(self, row: int, rng: np.random.Generator) -> tuple[Span, ...]:
        """A second or two of another utterance of the row's speaker, or nothing."""
        options, columns = self.options, self.columns
        if rng.random() >= options.voice_share:
            return ()
        others = self._voices.get(str(columns.speaker[row]))
        if others is None or len(others) < 2:
            return ()
        place = int(np.searchsorted(others, row))
        place = (place + int(rng.integers(1, len(others)))) % len(others)  # any but the row itself
        codes = columns.codes(int(others[place])).content
        seconds = rng.uniform(options.voice_min_seconds, options.voice_max_seconds)
        frames = min(self._frames(seconds), len(codes))
        start = int(rng.integers(len(codes) - frames + 1))
        return (Span("voice", codes[start : start + frames], "codes"),)

    def _frames(self, seconds: float) -> int:
        rate = self.columns.shards.streams["codes"].frame_rate
        assert rate is not None, "codes have a frame rate"
        return max(1, round(seconds * float(rate)))

    # ---- one plan per task line

    def _read(self, key: TaskKey, source: int, target: int, rng: np.random.Generator) -> Plan:
        """asr, s2tt, mt: something in, text out."""
        if key.task == "mt":
            condition = self.columns.text(source)
        else:
            condition = self.columns.codes(source) if key.variant == "codes" else self._source_units(source, rng)
        other = None if key.task == "asr" else self._lang(target)
        return Plan(key.task, self._lang(source), other, (), (condition,), (self.columns.text(target),))

    def _spoken(
        self, key: TaskKey, target: int, rng: np.random.Generator
    ) -> tuple[str, tuple[Span, ...], tuple[Span, ...]]:
        """(flag, voice prompt, outputs) of a task that speaks."""
        if key.variant == "codes":
            return OUT_CODES, self._voice(target, rng), (self.columns.units(target), self.columns.codes(target))
        return OUT_UNITS, (), (self.columns.units(target),)

    def _speak(self, key: TaskKey, source: int, target: int, rng: np.random.Generator) -> Plan:
        flag, voice, outputs = self._spoken(key, target, rng)
        return Plan("tts", self._lang(source), None, (flag,), (*voice, self.columns.text(source)), outputs)

    def _speak_translation(self, key: TaskKey, source: int, target: int, rng: np.random.Generator) -> Plan:
        flag, voice, outputs = self._spoken(key, target, rng)
        flags: tuple[str, ...] = (flag,)
        if key.variant == "chain":
            flags, outputs = (CHAIN, flag), (self.columns.text(source), self.columns.text(target), *outputs)
        conditions = (*voice, self._source_units(source, rng))
        return Plan("s2st", self._lang(source), self._lang(target), flags, conditions, outputs)

    def _continue(self, key: TaskKey, source: int, target: int, rng: np.random.Generator) -> Plan:
        """lm, slm: nothing in, everything is learnt."""
        span = self.columns.text(source) if key.task == "lm" else self.columns.units(source)
        return Plan(key.task, self._lang(source), None, (), (), (span,))

    def _answer(self, key: TaskKey, source: int, target: int, rng: np.random.Generator) -> Plan:
        columns = self.columns
        outputs = (columns.text(source), columns.text(target), columns.units(target))
        return Plan("chat", self._lang(source), None, (), (self._source_units(source, rng),), outputs)

    def _interleave(self, key: TaskKey, source: int, target: int, rng: np.random.Generator) -> Plan:
        spans = self._word_spans(source, rng)
        if spans is None:
            rows = self.items[self.keys.index(self._key_of(key))].source
            rows = rows[self._language[rows] == self._language[source]]
            extra = rng.choice(rows, size=max(self.options.interleave_sentences - 1, 1))
            textual = bool(rng.integers(2))
            spans = []
            for row in (source, *(int(row) for row in extra)):
                spans.append(self.columns.text(row) if textual else self.columns.units(row))
                textual = not textual
        return Plan("ilm", self._lang(source), None, (), (), tuple(spans))

    def _word_spans(self, row: int, rng: np.random.Generator) -> list[Span] | None:
        """Spans of one utterance that change modality at word boundaries; None where its words are not aligned."""
        words = self.columns.words(row) if self.word_start is not None else None
        rate = self.columns.shards.streams["units"].frame_rate
        if not words or rate is None:
            return None
        durations = self.columns.get("units_durations", row) if self.columns.ragged("units_durations") else None
        assert self.word_start is not None
        return interleave(
            self.columns.get("text_ids", row),
            self.columns.get("units", row),
            durations,
            words,
            word_start=self.word_start,
            frame_rate=float(rate),
            mean_words=self.options.interleave_words,
            rng=rng,
        )

    def _key_of(self, parsed: TaskKey) -> str:
        return self.keys[self.parsed.index(parsed)]

    # ---- limits and reports

    def check(self, capacity: int) -> None:
        """InputError, naming the row, where an example could be longer than a pack of `capacity` positions.

        Looks at every item before training begins, without drawing any: the bound takes the longest candidate target
        and the longest voice prompt.
        """
        for task, (parsed, items) in enumerate(zip(self.parsed, self.items)):
            bounds = self._bounds(parsed, items)
            worst = int(np.argmax(bounds))
            if bounds[worst] > capacity:
                raise InputError(
                    f"mixture.{self.keys[task]}: an example from row {self.columns.ids[items.source[worst]]} can have "
                    f"{bounds[worst]} tokens, a pack holds {capacity}: raise train.pack_size to {bounds[worst]}, or "
                    f"leave long rows out of the shards ({int((bounds > capacity).sum())} are too long)"
                )

    def _bounds(self, parsed: TaskKey, items: Items) -> np.ndarray:
        """(I,) most tokens an item can render to."""
        columns = self.columns
        source_needs, target_needs = NEEDS[parsed.line]
        marks = 24  # header, flags, at most five spans with two marks each, eos
        if parsed.task == "ilm":
            both = columns.lengths("text_ids") + columns.lengths("units")
            longest = int(np.maximum(columns.lengths("text_ids"), columns.lengths("units"))[items.source].max())
            several = longest * max(self.options.interleave_sentences, 2)
            aligned = self.word_start is not None
            return both[items.source] * 2 + marks if aligned else np.full(len(items.source), several + marks)
        bound = sum((columns.lengths(name)[items.source] for name in source_needs), np.zeros(len(items.source), int))
        if items.pool is not None:
            assert target_needs is not None and items.start is not None and items.stop is not None
            lengths = sum((columns.lengths(name)[items.pool] for name in target_needs), np.zeros(len(items.pool), int))
            bound = bound + segment_maximum(lengths, items.start, items.stop)
        if parsed.variant == "codes" and parsed.task in ("tts", "s2st"):
            marks += self._frames(self.options.voice_max_seconds) * columns.codebooks
        return bound + marks

    def usable(self) -> dict[str, int]:
        """Items per task: rows, or pairs of a row and a language."""
        return {key: len(items.source) for key, items in zip(self.keys, self.items)}

    def report(self) -> list[str]:
        """A line per task with what it uses, and one per reason for which it skips rows."""
        lines = [f"{key}: {count} items" for key, count in self.usable().items()]
        return lines + [f"{skip.key}: skips {skip.rows} rows: {skip.reason}" for skip in self.skipped]

    def key_counts(self, examples: int) -> Counter[str]:
        """How often each key comes among the first examples."""
        return Counter(self.keys[self.schedule.draw(index)[0]] for index in range(examples))
