"""What the tasks of a mixture can be made of: usable rows, pairs of rows, and why others are left out.

R rows, I items of a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unitok_tokenizers.data.tables.base import MIXED
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.grammar.tasks.base import PROSODY_KINDS, SPEECH_KINDS
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.columns import (
    Columns,
    Items,
    counting,
    row_type,
    rows_in,
    rows_where,
    side_by_side,
    stretches,
)
from unitok_training.data.interleave import ChosenRows
from unitok_training.data.mixture import Needs, TaskKey
from unitok_training.runs.process_memory import give_back
from unitok_training.shard_set import ShardFolder, ShardSet

STREAMS = ("text", "units", "codes", *PROSODY_KINDS)
"""Streams that examples are made of, in the order of a batch's columns from 1 on, those of each folder of shards behind
those of the one before; noisy units come behind all."""


LEAST_FRAMES = 3
"""Of a row inside which a stretch is said anew: one there, and one on either side."""
NO_VOICE = "no other utterance of its speaker"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Rows that a task cannot use."""

    key: str
    """Key of the mixture."""
    reason: str
    """Why."""
    rows: int
    """How many."""


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
            keep(columns.present(ids_column(stream)), f"no {stream}")
        if parsed.of.task.infills:
            keep(self._frames(LEAST_FRAMES), f"fewer than {LEAST_FRAMES} frames")
        if needs.target is None:
            if parsed.of.task.voiced:
                keep(self._voiced(), NO_VOICE)
            items = Items(rows_where(self._distinct(usable) if needs.text_only else usable))
        else:
            task = parsed.of.task
            find = self._replies if task.replies else self._originals if task.answer_named else self._pairs
            items = find(parsed, usable, needs)
            partnered = np.zeros_like(usable)
            for part in stretches(len(items.source)):
                partnered[items.source[part]] = True
            if needs.text_only:
                partnered |= usable & ~self._distinct(usable)  # the same text again, not a loss
            keep(partnered, self._alone(parsed))
        self.skipped += [Skipped(key=key, reason=reason, rows=rows) for reason, rows in reasons]
        if not len(items.source):
            why = ", ".join(f"{rows} {reason}" for reason, rows in reasons) or "none of the language asked for"
            split, remedy = self.split, "prepare shards that have what it needs"
            if parsed.of.task.answer_named:
                split, remedy = self.split + MIXED, "make mixtures of a manifest with `unitok mix`, and prepare them"
            raise InputError(
                f"mixture.{key}: none of the {total} rows of split {split!r} can be used ({why}); "
                f"remove it with mixture.{key}=0, or {remedy}"
            )
        return items

    def _rows(self, parsed: TaskKey) -> np.ndarray:
        """(R,) rows that a task may be made of, a copy."""
        one = parsed.of
        if one.task.answer_named:
            return self.columns.mixed
        answers = one.task.replies or one.task.remakes  # what is said again is learned too
        listens = not answers and any(kind in SPEECH_KINDS for kind in one.variant.given or ())
        return self.columns.split | self.columns.joined if listens else self.columns.split.copy()

    def _is(self, language: str) -> np.ndarray:
        """(R,) whether a row is in a language."""
        languages = self.columns.languages
        return self.columns.language == (languages.index(language) if language in languages else -1)

    @staticmethod
    def by_group(parsed: TaskKey) -> bool:
        """Whether a task's items depend on which rows say the same."""
        needs = Needs.of(parsed.of)
        task = parsed.of.task
        return needs.text_only or (needs.target is not None and not task.replies and not task.answer_named)

    @cached_property
    def group(self) -> np.ndarray:
        """(R,) int32 number of each row's group, -1 without one."""
        return self.columns.named("group")

    @cached_property
    def _groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max(initial=-1)) + 1

    def _distinct(self, usable: np.ndarray) -> np.ndarray:
        """(R,) the first usable row of each (group, language): text that several voices say counts once. Rows without
        a group are each their own."""
        grouped = self.group >= 0
        found = usable & ~grouped
        for number in range(len(self.columns.languages)):
            seen = np.zeros(self._groups, np.bool_)
            for rows in rows_in(usable & grouped & (self.columns.language == number)):
                groups, first = np.unique(self.group[rows], return_index=True)
                new = ~seen[groups]
                found[rows[first[new]]] = seen[groups[new]] = True
        return found

    def _targets(self, parsed: TaskKey, needs: Needs) -> np.ndarray:
        """(R,) whether a row can be an answer."""
        rows = self._rows(parsed)
        if parsed.of.task.answer_named:
            rows = rows | self.columns.split
        target = rows & self.columns.known_language
        for stream in needs.target or ():
            target &= self.columns.present(ids_column(stream))
        return target

    def _pairs(self, parsed: TaskKey, usable: np.ndarray, needs: Needs) -> Items:
        """Every usable source row with every other language in which its group is said.

        The pool holds a language behind another, and in each the rows of a group side by side.
        """
        columns, group = self.columns, self.group
        sources, targets = usable & (group >= 0), self._targets(parsed, needs) & (group >= 0)
        if needs.text_only:
            sources, targets = self._distinct(sources), self._distinct(targets)
        held = row_type(len(columns))
        pools, found, before = [np.zeros(0, held)], [np.zeros((3, 0), held)], 0
        for number, language in enumerate(columns.languages):
            if parsed.target not in (None, language):
                continue
            pool, first = side_by_side(targets & (columns.language == number), group, self._groups)
            for rows in rows_in(sources & (columns.language != number)):
                start, stop = first[group[rows]], first[group[rows] + 1]
                some = stop > start
                found.append(np.stack([rows[some], before + start[some], (stop - start)[some]]).astype(held))
            pools.append(pool)
            before += len(pool)
        # One after another: each is dropped before the next is made.
        source, start = (np.concatenate([one[place] for one in found]) for place in (0, 1))
        most = max(int(one[2].max(initial=0)) for one in found)
        count = np.concatenate([one[2].astype(np.min_scalar_type(most)) for one in found])
        return Items(source, start, count, np.concatenate(pools))

    def _replies(self, parsed: TaskKey, usable: np.ndarray, needs: Needs) -> Items:
        """Questions with the rows whose extras say `"reply_to": id of the question`."""
        target = self._targets(parsed, needs)
        asked = {row: name for row, name in self.columns.naming("reply_to").items() if target[row]}
        row_of = {name: row for name, row in self.columns.rows_named(set(asked.values())) if usable[row]}
        return _paired((row_of[name], row) for row, name in asked.items() if name in row_of)

    def _originals(self, parsed: TaskKey, usable: np.ndarray, needs: Needs) -> Items:
        """Rows with those that their extras name as what they were made of."""
        made = {row: name for row, name in self.columns.naming(parsed.of.task.answer_named).items() if usable[row]}
        target = self._targets(parsed, needs)
        if parsed.of.task.voiced:
            target &= self._voiced()
        row_of = {name: row for name, row in self.columns.rows_named(set(made.values())) if target[row]}
        return _paired((row, row_of[name]) for row, name in made.items() if name in row_of)

    @staticmethod
    def _alone(parsed: TaskKey) -> str:
        """Why a row has no other that answers."""
        task = parsed.of.task
        if task.answer_named:
            return f"extras name no usable row as {task.answer_named!r}" + (f", or {NO_VOICE}" if task.voiced else "")
        return "no reply to it" if task.replies else "no partner in another language"

    def _frames(self, least: int) -> np.ndarray:
        """(R,) rows with so many frames of codes."""
        found = np.zeros(len(self.columns), np.bool_)
        for part in stretches(len(found)):
            rows = np.arange(part.start, part.stop)
            found[part] = self.columns.places(ids_column("codes"), rows)[1] >= least * self.columns.codebooks
        return found

    @cached_property
    def voices(self) -> Voices:
        """Where voice prompts come from."""
        return Voices(self.columns)

    def _voiced(self) -> np.ndarray:
        """(R,) rows whose speaker is heard in another row too."""
        found = np.zeros(len(self.columns), np.bool_)
        for part in stretches(len(found)):
            found[part] = self.voices.count(np.arange(part.start, part.stop)) > 1
        return found


def _paired(found: Iterable[tuple[int, int]]) -> Items:
    """Items of (row that is given, row of the answer), one answer each."""
    source, pool = np.array(sorted(found), np.int32).reshape(-1, 2).T
    return Items(source, counting(len(pool), pool.dtype), np.ones(len(pool), np.uint8), pool)


class Voices:
    """Rows with codes by speaker: where voice prompts come from. 6 bytes a row, 8 where there are 32,768 speakers."""

    def __init__(self, columns: Columns) -> None:
        speaker = columns.speaker
        with_codes = columns.split & columns.present("codes") & (speaker >= 0)
        self.rows, first = side_by_side(with_codes, speaker, int(speaker.max(initial=-1)) + 1)
        """Those rows, each speaker's side by side."""
        self.speaker = speaker
        """(R,) number of each row's speaker, -1 without one."""
        self._first = first.astype(np.int64)
        self._counts = np.append(np.diff(self._first), 0)  # the last: of no speaker

    def place(self, row: np.ndarray) -> np.ndarray:
        """(D,) int64 place of a row among its speaker's, whose rows are in order; -1 where it is none of these rows."""
        speaker = self.speaker[row]
        first, count = self._first[speaker], self._counts[speaker]  # of no speaker: the end, and none
        low, high = first.copy(), first + count
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = self.rows.take(middle, mode="clip") < row
            low = np.where(open_ & before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        there = low < first + count
        if len(self.rows):
            there &= self.rows.take(low, mode="clip") == row
        return np.where(there, low - first, -1)

    def count(self, row: np.ndarray) -> np.ndarray:
        """(D,) how many rows its speaker has, it among them; 0 for a row without a speaker or codes."""
        return np.where(self.place(row) >= 0, self._counts[self.speaker[row]], 0)

    def other(self, row: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """(D,) the row `ahead` places (1 and more, below `count`) behind each row among its speaker's, in a circle.

        A row without a speaker is its own.
        """
        place = self.place(row)
        found, some = row.copy(), place >= 0
        speaker = self.speaker[row[some]]
        behind = (place[some] + ahead[some]) % self._counts[speaker]
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
        self.banks = [self.columns.column(ids_column(stream)) for stream in STREAMS]
        """The columns of ids that examples are made of."""
        self.items: list[Items | None] = []
        """Of each task; None where the folder has none for it."""
        self.without: dict[str, str] = {}
        """Key of a task → why it has none."""
        spoken = any("voice" in (parsed.of.variant.given or ()) for _, parsed in tasks)
        selection = Selection(self.columns, split)
        self._read(selection, tasks, spoken)
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
        self.voices = selection.voices if spoken else None  # now, while free memory is still to be given back
        """Where voice prompts come from; None where no task has any."""
        self.columns.release()
        self._of_language: dict[tuple[int, int], ChosenRows] = {}

    def _read(self, selection: Selection, tasks: Sequence[tuple[str, TaskKey]], spoken: bool) -> None:
        """Read the columns that take most memory while there is little else, and forget the files."""
        shards = self.columns.shards
        if any(parsed.of.variant.given is not None and selection.by_group(parsed) for _, parsed in tasks):
            _ = selection.group
        if spoken:
            _ = self.columns.speaker
        for stream in STREAMS:
            if held := self.columns.held(ids_column(stream)):
                shards.offsets(held)
        shards.release()

    def of(self, task: int) -> Items:
        """Items of a task that the folder has some for."""
        found = self.items[task]
        assert found is not None, f"{self.name} has nothing for task {task}"
        return found

    def of_language(self, task: int, language: int) -> ChosenRows:
        """Rows of a task in one language."""
        if (task, language) not in self._of_language:
            chosen = ChosenRows(self.of(task).source, self.columns.language, language)
            self._of_language[task, language] = chosen
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
