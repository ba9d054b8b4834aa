"""Draw what a model is shown: for every example index a task, rows of the shards, and the document made of them.

Everything is a pure function of (seed, index): the schedule names the task and how many of its examples came before;
that number walks through a permutation of the task's items, a new one per epoch; whatever else is drawn (which voice
says the target, which second is the voice prompt, where text turns into speech) is a function of (seed, task, number).
Where there are several folders of shards, the number names one of them too, by their weights, and each has permutations
of its own. Many examples are drawn at once, as segments of the shards' columns; the plan of one is what its ids parse
to.

D documents drawn together.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.grammar.tasks.registry import TaskVariant
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.columns import Column, Columns, Items, spread
from unitok_training.data.documents import Document
from unitok_training.data.eligibility import STREAMS, FolderItems, Skipped, items_of
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.hash_rng import EpochOrder, below, uniform
from unitok_training.data.interleave import interleave, word_pieces
from unitok_training.data.longest import Longest, most_ids
from unitok_training.data.mixture import BLOCK, Curriculum, Mixture, Schedule, Shares, parse_key
from unitok_training.data.segments import (
    ColumnSpans,
    DrawnDocuments,
    Segments,
    SpecialTokens,
    compose,
    compose_interleaved,
    left_out,
)
from unitok_training.runs.process_memory import give_back
from unitok_training.shard_set import ShardSet

FOLDERS = 0xF01D
"""Separates the random stream that draws folders from those that draw what is in them."""
TARGET, HAS_VOICE, VOICE_ROW, VOICE_SECONDS, VOICE_START, NOISE, DROPOUT, CUT_LENGTH, CUT_START = range(9)
"""Names of what is drawn for an example."""


@dataclass(frozen=True)
class DrawnExamples:
    """Examples of one task variant, from one folder of shards."""

    folder: int
    """Its index."""
    of: TaskVariant
    """The variant."""
    task: int
    """Its index in the mixture."""
    number: np.ndarray
    """(D,) how many examples of the task came before."""
    source: np.ndarray
    """(D,) row that is given."""
    target: np.ndarray
    """(D,) row of the answer; the source itself where there is no other."""


class ExampleSource:
    """Documents and plans by example index.

    `pieces` are the text tokenizer's, needed only to cut `ilm` examples at words. InputError where a task of the
    mixture has no row at all, or the shards' streams are not the vocabulary's.
    """

    def __init__(
        self,
        shards: Shards | ShardSet,
        vocabulary: Vocabulary,
        mixture: Mixture,
        *,
        seed: int,
        options: ExampleOptions | None = None,
        pieces: Sequence[str] | None = None,
    ) -> None:
        self.shards = ShardSet.of(shards)
        self.shards.check(vocabulary)
        self.vocabulary, self.seed = vocabulary, seed
        self.options = options or ExampleOptions()
        self.mixture, self.curriculum = mixture, Curriculum()
        self.schedule = Schedule(mixture, seed=seed)
        self.keys = self.schedule.keys
        self.parsed = [parse_key(key) for key in self.keys]
        self.folders = items_of(self.shards, vocabulary, list(zip(self.keys, self.parsed)), self.options.split)
        self.shares = [self._shares(task) for task in range(len(self.keys))]
        self.marks = SpecialTokens(vocabulary)
        self.word_start = None if pieces is None else word_pieces(pieces)
        self.id_weights = self.options.id_weights(vocabulary)
        self._banks = [bank for folder in self.folders for bank in folder.banks]
        self._orders: dict[tuple[int, int], EpochOrder] = {}

    def _shares(self, task: int) -> tuple[list[int], Shares]:
        """The folders that have items of a task, and how often each is drawn from."""
        having = [number for number, folder in enumerate(self.folders) if folder.items[task] is not None]
        weights = [self.folders[number].weight for number in having]
        return having, Shares(weights, self.seed, self._salt[task], FOLDERS)

    @cached_property
    def _salt(self) -> list[int]:
        """A number per task from its key alone: adding a task to a mixture changes no draw of the others."""
        return [zlib.crc32(key.encode()) for key in self.keys]

    def documents(self, indices: np.ndarray) -> DrawnDocuments:
        """The examples of indices (D,), as segments that become ids when packs are laid out."""
        chosen = np.asarray(indices, np.int64)
        tasks, numbers = self.schedule.draw_all(chosen % self.options.repeat if self.options.repeat else chosen)
        rows, owner = np.zeros((2, len(chosen)), np.int64)
        # An absent column is never referred to; the place of another keeps the numbers of the rest.
        present = next(bank for bank in self._banks if bank is not None)
        columns = [bank or present for bank in self._banks]
        groups = []
        for task in np.flatnonzero(np.bincount(tasks)).tolist():
            for of, drawn in self._drawn(task, np.flatnonzero(tasks == task), numbers):
                rows[of], owner[of] = drawn.source, drawn.folder
                groups.append((of, self._segments(drawn, columns)))
        return DrawnDocuments(
            columns, self.marks, groups, tasks, id_weights=self.id_weights,
            name=lambda number: f"{self.keys[tasks[number]]} example from row "
            + self.folders[owner[number]].columns.name(rows[number]),
        )  # fmt: skip

    def document(self, index: int) -> Document:
        """One example, rendered."""
        found = self.documents(np.array([index]))
        ids, weight = found.rendered(np.array([0]))
        return Document(
            ids=ids.astype(np.int64), loss_weight=weight, task=int(found.tasks[0]), name=found.name(0),
            prefix_length=int(found.prefix_lengths[0]), frames=found.frames(np.array([0])),
        )  # fmt: skip

    def plan(self, index: int) -> SequenceSpec:
        """The plan of an example."""
        found = self.document(index)
        return parse(found.ids, self.vocabulary, found.frames).plan()

    example = plan

    def _drawn(self, task: int, of: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, DrawnExamples]]:
        """Examples `of` a task (D,) among all `numbers`, by folder."""
        having, shares = self.shares[task]
        if len(having) == 1:
            yield of, self._draw(task, having[0], numbers[of], numbers[of])
            return
        places, before = shares.draw_all(numbers[of])
        for place, folder in enumerate(having):
            here = places == place
            if here.any():
                yield of[here], self._draw(task, folder, numbers[of[here]], before[here])

    def _draw(self, task: int, folder: int, number: np.ndarray, inside: np.ndarray) -> DrawnExamples:
        """Rows of a task's examples, of which so many came before, and so many inside the folder."""
        items = self.folders[folder].of(task)
        item = self._order(task, folder).items(inside)
        source = items.source[item]
        keys = (self.seed, self._salt[task], number)
        target = source if items.pool is None else self._target(self.folders[folder], items, item, keys)
        return DrawnExamples(folder, self.parsed[task].of, task, number, source, target)

    def _order(self, task: int, folder: int) -> EpochOrder:
        """The order of a task's items in a folder: every epoch is a permutation of all."""
        if (task, folder) not in self._orders:
            found = self.folders[folder]
            own = () if self.shards.alone else (int(found.identity, 16),)
            before = (self.seed, self._salt[task], *own)
            self._orders[task, folder] = EpochOrder(len(found.of(task).source), before, (1,))
        return self._orders[task, folder]

    def _target(
        self, folder: FolderItems, items: Items, item: np.ndarray, keys: tuple[int, int, np.ndarray]
    ) -> np.ndarray:
        """(D,) the row of each answer, among those that say it."""
        assert items.pool is not None and items.start is not None and items.count is not None
        start, count = items.start[item], items.count[item].astype(np.int64)
        if self.options.target_row == "fixed":
            return items.pool[start]
        if self.options.target_row == "any":
            return items.pool[start + below(count, *keys, TARGET)]
        owner = np.repeat(np.arange(len(item)), count)
        candidates = items.pool[spread(start, count)]
        speaker = folder.columns.speaker
        same = speaker[candidates] == speaker[items.source[item]][owner]
        some = np.bincount(owner[same], minlength=len(item)) > 0
        kept = same | ~some[owner]  # any voice where the speaker does not say it
        candidates, count = candidates[kept], np.bincount(owner[kept], minlength=len(item))
        return candidates[np.cumsum(count) - count + below(count, *keys, TARGET)]

    def _keys(self, drawn: DrawnExamples) -> tuple[int, int, np.ndarray]:
        return self.seed, self._salt[drawn.task], drawn.number

    def _header(self, drawn: DrawnExamples) -> ColumnSpans:
        columns, task = self.folders[drawn.folder].columns, drawn.of.task
        source, target = (columns.language[rows].astype(np.int64) for rows in (drawn.source, drawn.target))
        if task.languages != 2:
            target = np.full(len(source), -1)
        return self.marks.headers(task.name, drawn.of.variant.flags, columns.languages, source, target)

    def _row(self, folder: int, stream: str, rows: np.ndarray) -> ColumnSpans:
        """The whole of each row in a stream."""
        start, length = self.folders[folder].columns.places(ids_column(stream), rows)
        return ColumnSpans(self._column(folder, stream), start, length)

    def _column(self, folder: int, stream: str) -> int:
        """Number of a stream of a folder among a batch's columns."""
        return 1 + folder * len(STREAMS) + STREAMS.index(stream)

    def _source_units(self, drawn: DrawnExamples, columns: list[Column]) -> ColumnSpans:
        """Units that are given: noisy ones are made here and become one more column."""
        units, share = self._row(drawn.folder, "units", drawn.source), self.options.condition_noise
        if not share:
            return units
        clean = columns[units.column - 1]
        values = clean.local(units.start, units.length)
        seed, salt, number = self._keys(drawn)
        keys = (seed, salt, np.repeat(number, units.length), NOISE, spread(np.zeros_like(units.start), units.length))
        hit, drop = uniform(*keys, 0) < share, uniform(*keys, 1) < 0.5
        values = np.where(hit, below(clean.width, *keys, 2), values).astype(np.int32)
        first = np.cumsum(units.length) - units.length
        kept = np.add.reduceat(~(hit & drop), first, dtype=np.int64)
        stays = ~(hit & drop) | np.repeat(kept == 0, units.length)  # never nothing at all
        length = np.where(kept == 0, units.length, kept)
        columns.append(Column(clean.name, [values[stays]], self.vocabulary, "noisy units"))
        return ColumnSpans(len(columns), np.cumsum(length) - length, length)

    def _voice(self, drawn: DrawnExamples) -> ColumnSpans:
        """A second or two of another utterance of each target's speaker, or nothing."""
        options, folder, keys = self.options, self.folders[drawn.folder], self._keys(drawn)
        voices, books = folder.voices, folder.columns.codebooks
        assert voices is not None
        count = voices.count(drawn.target)
        there = (uniform(*keys, HAS_VOICE) < (drawn.of.task.voiced or options.voice_share)) & (count > 1)
        row = voices.other(drawn.target, 1 + below(np.maximum(count - 1, 1), *keys, VOICE_ROW))
        codes = self._row(drawn.folder, "codes", row)
        span = options.voice_max_seconds - options.voice_min_seconds
        seconds = options.voice_min_seconds + span * uniform(*keys, VOICE_SECONDS)
        frames = np.minimum(self._frames(folder, seconds), codes.length // books)
        start = below(codes.length // books - frames + 1, *keys, VOICE_START)
        return ColumnSpans(codes.column, codes.start + start * books, np.where(there, frames * books, 0))

    def _cut_out(self, drawn: DrawnExamples) -> tuple[ColumnSpans, ColumnSpans, ColumnSpans]:
        """Codes before a stretch of each example, the stretch, and those behind it: a frame of each, and more."""
        options, books, keys = self.options, self.folders[drawn.folder].columns.codebooks, self._keys(drawn)
        codes = self._row(drawn.folder, "codes", drawn.source)
        frames, share = codes.length // books, options.cut_share(uniform(*keys, CUT_LENGTH))
        length = np.clip(np.rint(frames * share).astype(np.int64), 1, frames - 2)
        first = 1 + below(frames - 1 - length, *keys, CUT_START)
        return codes.parted(first * books, (first + length) * books)

    def _frames(self, folder: FolderItems, seconds: np.ndarray | float) -> np.ndarray:
        if (rate := getattr(folder.columns.stream("codes"), "frame_rate", None)) is None:
            raise InputError("the shards' codes have no frame rate, by which voice prompts are measured; describe it")
        return np.maximum(np.rint(np.asarray(seconds) * float(rate)).astype(np.int64), 1)

    def _segments(self, drawn: DrawnExamples, columns: list[Column]) -> Segments:
        """Examples as their row of the task table has them: what is given, and the outputs."""
        if (one := drawn.of).task.interleaved:
            return self._interleave(drawn)
        given = [(kind, self._given(kind, drawn, columns)) for kind in one.variant.given or ()]
        if one.task.infills:
            before, *outputs, behind = (("codes", part) for part in self._cut_out(drawn))
            given = [*(each for each in given if each[0] != "codes"), before, behind]
            return compose(one.task.name, self._header(drawn), given, outputs, self.marks)
        if share := self.options.condition_dropout:
            given = left_out(given, uniform(*self._keys(drawn), DROPOUT) < share, self.options.dropped_conditions)
        rows = [drawn.source if one.opens_with_transcript else drawn.target, *[drawn.target] * len(one.outputs)]
        outputs = [(kind, self._row(drawn.folder, kind, row)) for kind, row in zip(one.outputs, rows)]
        return compose(one.task.name, self._header(drawn), given, outputs, self.marks)

    def _given(self, kind: str, drawn: DrawnExamples, columns: list[Column]) -> ColumnSpans:
        """One condition of each example."""
        if kind == "voice":
            return self._voice(drawn)
        if kind == "units":
            return self._source_units(drawn, columns)
        return self._row(drawn.folder, kind, drawn.source)

    def _interleave(self, drawn: DrawnExamples) -> Segments:
        """Cuts fall at words, of which every row has its own: here examples are made one by one."""
        spans, folder = [], self.folders[drawn.folder]
        for number, row in zip(drawn.number.tolist(), drawn.source.tolist()):
            rng = np.random.default_rng([self.seed, self._salt[drawn.task], number])
            cuts = self._word_cuts(folder.columns, row, rng)
            if cuts is None:
                rows = folder.of_language(drawn.task, int(folder.columns.language[row]))
                extra = rng.choice(len(rows), size=max(self.options.interleave_sentences - 1, 1))
                textual = bool(rng.integers(2))
                cuts = []
                for one in (row, *(rows[number] for number in extra.tolist())):
                    cuts.append((one, "text" if textual else "units", 0, None))
                    textual = not textual
            spans.append([self._cut(drawn.folder, *cut) for cut in cuts])
        return compose_interleaved(self._header(drawn), spans, self.marks)

    def _cut(self, folder: int, row: int, kind: str, begin: int, end: int | None) -> tuple[str, int, int, int]:
        """(kind, column, start, length) of a part of a row."""
        whole = self._row(folder, kind, np.array([row]))
        return kind, whole.column, int(whole.start[0]) + begin, (int(whole.length[0]) if end is None else end) - begin

    def _word_cuts(
        self, columns: Columns, row: int, rng: np.random.Generator
    ) -> list[tuple[int, str, int, int | None]] | None:
        """(row, kind, begin, end) of stretches that change modality at word boundaries; None without aligned words."""
        words = columns.words(row) if self.word_start is not None else None
        units = columns.stream("units")
        if not words or units is None or units.frame_rate is None:
            return None
        assert self.word_start is not None
        cell = columns.cell
        found = interleave(
            cell("text_ids", row),
            cell("units_durations", row) if units.deduplicated else np.ones(len(cell("units", row)), int),
            words,
            word_start=self.word_start,
            frame_rate=float(units.frame_rate),
            mean_words=self.options.interleave_words,
            rng=rng,
        )
        return None if found is None else [(row, *cut) for cut in found]

    def check(self, capacity: int) -> None:
        """InputError, naming the row, where an example could be longer than a pack of `capacity` positions.

        Looks at every item before training begins, without drawing any: the bound takes the longest candidate target
        and the longest voice prompt.
        """
        for task, key in enumerate(self.keys):
            for folder in self.folders:
                if folder.items[task] is None:
                    continue
                found = Longest.of(self._most_ids(task, folder), capacity)
                if found.above:
                    where = "" if self.shards.alone else f" of {folder.name}"
                    name = folder.columns.name(int(folder.of(task).source[found.item]))
                    raise InputError(
                        f"mixture.{key}: an example from row {name}{where} can have {found.ids} tokens, a pack holds "
                        f"{capacity}: raise train.pack_size to {found.ids}, or leave long rows out of the shards "
                        f"({found.above} are too long)"
                    )
        give_back()

    def _most_ids(self, task: int, folder: FolderItems) -> Iterator[np.ndarray]:
        spoken = folder.columns.stream("codes") is not None
        return most_ids(
            folder.columns, self.parsed[task], folder.of(task),
            sentences=self.options.interleave_sentences,
            aligned=self.word_start is not None,
            voice_frames=int(self._frames(folder, self.options.voice_max_seconds)) if spoken else 0,
        )  # fmt: skip

    def most_ids(self, task: int) -> np.ndarray:
        """(I,) most ids that an item of a task can render to, folder by folder."""
        having = self.shares[task][0]
        return np.concatenate([part for number in having for part in self._most_ids(task, self.folders[number])])

    def usable(self) -> dict[str, int]:
        """Items per task: rows, or pairs of a row and a language."""
        return {
            key: sum(len(self.folders[number].of(task).source) for number in self.shares[task][0])
            for task, key in enumerate(self.keys)
        }

    @property
    def skipped(self) -> list[Skipped]:
        """Rows that tasks cannot use, folder by folder."""
        return [skip for folder in self.folders for skip in folder.skipped]

    def report(self) -> list[str]:
        """A line per task with what it uses, and one per reason for which it skips rows; of each folder."""
        lines = list(self.shards.notes)
        for folder in self.folders:
            of = "" if self.shards.alone else f" of {folder.name}"
            found = zip(self.keys, folder.items)
            lines += [f"{key}: {len(items.source)} items{of}" for key, items in found if items is not None]
            lines += [f"{skip.key}: skips {skip.rows} rows{of}: {skip.reason}" for skip in folder.skipped]
        return lines

    def follow(self, curriculum: Curriculum, positions: float) -> None:
        """Let tasks join in as a run of so many positions goes on."""
        found = self.documents(np.arange(4 * BLOCK))
        sums, counts = (np.bincount(found.tasks, weights, len(self.keys)) for weights in (found.lengths, None))
        joins = curriculum.joins(self.mixture, dict(zip(self.keys, (sums / counts).tolist())), positions)
        self.curriculum, self.schedule = curriculum, Schedule(self.mixture, seed=self.seed, joins=joins)

    def key_counts(self, examples: int) -> Counter[str]:
        """How often each key comes among the first examples."""
        return Counter(self.keys[task] for task in self.schedule.draw_all(np.arange(examples))[0])
