"""What the tasks of a mixture can be made of: usable rows, pairs of rows, and why others are left out.

R rows, I items of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.grammar.tasks.base import SPEECH_KINDS
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.columns import (
    Columns,
    Items,
    Needs,
    Skipped,
    compact,
    counting,
    row_numbers,
    segment_maximum,
)
from unitok_training.data.mixture import TaskKey
from unitok_training.runs.process_memory import give_back
from unitok_training.shard_set import ShardFolder, ShardSet


class Selection:
    """Finds the items of task lines; what is left out is counted in `skipped`."""

    def __init__(self, columns: Columns, split: str) -> None:
        self.columns, self.split = columns, split
        self.skipped: list[Skipped] = []

    def items(self, key: str, parsed: TaskKey) -> Items:
        """Usable items of a task; InputError where there is none."""
        if parsed.of.variant.given is None:
            raise InputError(f"mixture.{key}: only `unitok train-latent` takes it; remove it with mixture.{key}=0")
        columns = self.columns
        needs = Needs.of(parsed.of)
        usable = self._rows(parsed)
        total = int(usable.sum())
        reasons: list[tuple[str, int]] = []

        def keep(mask: np.ndarray, reason: str) -> None:
            if lost := int((usable & ~mask).sum()):
                reasons.append((reason, lost))
            usable[~mask] = False

        keep(columns.known_language, "language not in the vocabulary")
        if parsed.source:
            usable &= self._is(parsed.source)  # asked for, so not reported as skipped
        for stream in needs.source:
            keep(columns.lengths(ids_column(stream)) > 0, f"no {stream}")
        if needs.target is None:
            items = Items(row_numbers(self._distinct(usable) if needs.text_only else np.flatnonzero(usable)))
        else:
            replies = parsed.of.task.replies
            items = (self._replies if replies else self._pairs)(parsed, usable, needs)
            partnered = np.zeros_like(usable)
            partnered[items.source] = True
            if needs.text_only:
                partnered |= usable & ~self._mask(self._distinct(usable))  # the same text again, not a loss
            keep(partnered, "no reply to it" if replies else "no partner in another language")
        self.skipped += [Skipped(key=key, reason=reason, rows=rows) for reason, rows in reasons]
        if not len(items.source):
            why = ", ".join(f"{rows} {reason}" for reason, rows in reasons) or "none of the language asked for"
            raise InputError(
                f"mixture.{key}: none of the {total} rows of split {self.split!r} can be used ({why}); "
                f"remove it with mixture.{key}=0, or prepare shards that have what it needs"
            )
        return items

    def _rows(self, parsed: TaskKey) -> np.ndarray:
        """(R,) rows that a task may be made of, a copy."""
        one = parsed.of
        listens = not one.task.replies and any(kind in SPEECH_KINDS for kind in one.variant.given or ())
        return self.columns.split | self.columns.joined if listens else self.columns.split.copy()

    def _is(self, language: str) -> np.ndarray:
        """(R,) whether a row is in a language."""
        languages = self.columns.languages
        return self.columns.language == (languages.index(language) if language in languages else -1)

    def _mask(self, rows: np.ndarray) -> np.ndarray:
        mask = np.zeros(len(self.columns), np.bool_)
        mask[rows] = True
        return mask

    @cached_property
    def _group(self) -> np.ndarray:
        """(R,) int32 number of each row's group, -1 without one."""
        return self.columns.named("group")

    @cached_property
    def _cell(self) -> np.ndarray:
        """(R,) number of (group, language); rows without a group have one each."""
        number, languages = self._group.astype(np.int64), len(self.columns.languages)
        alone = number < 0
        groups = int(number.max(initial=-1)) + 1
        number[alone] = groups + np.arange(int(alone.sum()))
        cells = number * languages + self.columns.language
        return cells.astype(np.int32) if (groups + len(number)) * languages < 1 << 31 else cells

    def _distinct(self, usable: np.ndarray) -> np.ndarray:
        """The first usable row of each (group, language): text that several voices say counts once."""
        rows = np.flatnonzero(usable)
        return rows[np.sort(np.unique(self._cell[rows], return_index=True)[1])]

    def _targets(self, parsed: TaskKey, needs: Needs) -> np.ndarray:
        """(R,) whether a row can be an answer."""
        target = self._rows(parsed) & self.columns.known_language
        for stream in needs.target or ():
            target &= self.columns.lengths(ids_column(stream)) > 0
        return target

    def _pairs(self, parsed: TaskKey, usable: np.ndarray, needs: Needs) -> Items:
        """Every usable source row with every other language in which its group is said."""
        columns = self.columns
        target = self._targets(parsed, needs) & (self._group >= 0)
        pool = self._distinct(target) if needs.text_only else np.flatnonzero(target)
        pool = pool[np.argsort(self._cell[pool], kind="stable")]
        cells = self._cell[pool]
        sources = self._distinct(usable) if needs.text_only else np.flatnonzero(usable)
        found = []
        for number, language in enumerate(columns.languages):
            if parsed.target not in (None, language):
                continue
            rows = sources[(columns.language[sources] != number) & (self._group[sources] >= 0)]
            wanted = self._cell[rows] - columns.language[rows] + number
            start, stop = np.searchsorted(cells, wanted, "left"), np.searchsorted(cells, wanted, "right")
            some = stop > start
            found.append(np.stack([rows[some], start[some], stop[some]]))
        source, start, stop = np.concatenate(found, axis=1) if found else np.zeros((3, 0), np.int64)
        return Items(row_numbers(source), row_numbers(start), compact(stop - start), row_numbers(pool))

    def _replies(self, parsed: TaskKey, usable: np.ndarray, needs: Needs) -> Items:
        """Questions with the rows whose extras say `"reply_to": id of the question`."""
        target = self._targets(parsed, needs)
        asked = {row: name for row, name in self.columns.replies().items() if target[row]}
        row_of = {name: row for name, row in self.columns.rows_named(set(asked.values())) if usable[row]}
        pairs = sorted((row_of[name], row) for row, name in asked.items() if name in row_of)
        source, pool = np.array(pairs, np.int32).reshape(-1, 2).T
        return Items(source, counting(len(pool), pool.dtype), np.ones(len(pool), np.uint8), pool)


class Voices:
    """Rows with codes by speaker: where voice prompts come from. 8 bytes a row. P speakers with codes."""

    def __init__(self, columns: Columns) -> None:
        speaker = columns.speaker
        rows = np.flatnonzero(columns.split & (columns.lengths("codes") > 0) & (speaker >= 0))
        self.rows = row_numbers(rows[np.argsort(speaker[rows], kind="stable")])
        """Those rows, each speaker's side by side."""
        self.speaker = speaker
        """(R,) number of each row's speaker, -1 without one."""
        speakers = int(speaker.max(initial=-1)) + 1
        self._counts = np.append(np.bincount(speaker[rows], minlength=speakers), 0)  # the last: of no speaker
        self._first = np.cumsum(self._counts) - self._counts
        self.place = np.full(len(columns), -1, np.int32)
        """(R,) place of a row among its speaker's; -1 where it is none of these rows."""
        self.place[self.rows] = np.arange(len(rows)) - self._first[speaker[self.rows]]

    def count(self, row: np.ndarray) -> np.ndarray:
        """(D,) how many rows its speaker has, it among them; 0 for a row without a speaker or codes."""
        return np.where(self.place[row] >= 0, self._counts[self.speaker[row]], 0)

    def other(self, row: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """(D,) the row `ahead` places (1 and more, below `count`) behind each row among its speaker's, in a circle.

        A row without a speaker is its own.
        """
        found, some = row.copy(), self.place[row] >= 0
        known = row[some]
        speaker = self.speaker[known]
        behind = (self.place[known] + ahead[some]) % self._counts[speaker]
        found[some] = self.rows[self._first[speaker] + behind]
        return found


class FolderItems:
    """What the tasks of a mixture are made of in one folder of shards.

    Args:
        folder: the shards, and which tasks they are for.
        vocabulary: the model's.
        tasks: (key, its parts) of the mixture.
        split: of the shards that examples come from.
        alone: whether no other folder could serve what this one cannot.

    Raises:
        InputError: no row for a task, where the folder is alone or was named for that task to train on.
    """

    def __init__(
        self,
        folder: ShardFolder,
        vocabulary: Vocabulary,
        tasks: Sequence[tuple[str, TaskKey]],
        *,
        split: str,
        alone: bool,
    ) -> None:
        self.name, self.weight, self.identity = folder.name, folder.weight, folder.identity
        self.columns = Columns(folder.shards, vocabulary, split)
        self.items: list[Items | None] = []
        """Of each task; None where the folder has none for it."""
        self.without: dict[str, str] = {}
        """Key of a task → why it has none."""
        selection = Selection(self.columns, split)
        for key, parsed in tasks:
            found = None
            if not folder.serves(key):
                self.without[key] = "not for this task"
            else:
                try:
                    found = selection.items(key, parsed).sharing(one for one in self.items if one is not None)
                except InputError as error:
                    if alone:
                        raise
                    if folder.tasks and split == "train":  # of others it need not have rows
                        raise InputError(f"{self.name}, which was named for it: {error}") from error
                    self.without[key] = str(error)
            self.items.append(found)
        self.skipped = selection.skipped
        if any("voice" in (parsed.of.variant.given or ()) for _, parsed in tasks):
            _ = self.voices  # now, while free memory is still to be given back
        self._of_language: dict[tuple[int, int], np.ndarray] = {}

    def of(self, task: int) -> Items:
        """Items of a task that the folder has some for."""
        found = self.items[task]
        assert found is not None, f"{self.name} has nothing for task {task}"
        return found

    @cached_property
    def voices(self) -> Voices:
        """Where voice prompts come from."""
        return Voices(self.columns)

    def of_language(self, task: int, language: int) -> np.ndarray:
        """Rows of a task in one language."""
        if (task, language) not in self._of_language:
            rows = self.of(task).source
            self._of_language[task, language] = rows[self.columns.language[rows] == language]
        return self._of_language[task, language]


def items_of(
    shards: ShardSet, vocabulary: Vocabulary, tasks: Sequence[tuple[str, TaskKey]], split: str
) -> list[FolderItems]:
    """What each folder has for the tasks; InputError for a task that none has anything for, or that is no task here."""
    keys = [key for key, _ in tasks]
    for folder in shards.folders:
        for name in folder.tasks:
            if not any(name in (key, key.partition("@")[0]) for key in keys):
                raise InputError(
                    f"{folder.name} is named for task {name!r}, which the mixture does not have: it has "
                    f"{', '.join(keys)}"
                )
    found = [FolderItems(folder, vocabulary, tasks, split=split, alone=shards.alone) for folder in shards.folders]
    for task, key in enumerate(keys):
        if all(folder.items[task] is None for folder in found):
            why = "; ".join(f"{folder.name}: {folder.without[key]}" for folder in found)
            raise InputError(
                f"mixture.{key}: no folder of shards has a row for it; remove it with mixture.{key}=0 ({why})"
            )
    give_back()
    return found


def most_ids(
    columns: Columns, parsed: TaskKey, items: Items, *, sentences: int, aligned: bool, voice_frames: int
) -> np.ndarray:
    """(I,) most ids that an example of an item can render to, whatever is drawn around it."""
    needs = Needs.of(parsed.of)
    marks = 24  # header, flags, at most five spans with two marks each, eos
    if parsed.of.task.interleaved:
        text, units = columns.lengths("text_ids"), columns.lengths("units")
        if aligned:
            return (text + units)[items.source] * 2 + marks
        several = int(np.maximum(text, units)[items.source].max()) * max(sentences, 2)
        return np.full(len(items.source), several + marks)

    def sizes(streams: Sequence[str], rows: np.ndarray) -> np.ndarray:
        return sum((columns.lengths(ids_column(stream))[rows] for stream in streams), np.zeros(len(rows), int))

    bound = sizes(needs.source, items.source)
    if items.pool is not None:
        assert needs.target is not None and items.start is not None
        lengths = sizes(needs.target, items.pool)
        bound = bound + segment_maximum(lengths, items.start, items.stop)
    if "voice" in (parsed.of.variant.given or ()):
        marks += voice_frames * columns.codebooks
    return bound + marks
