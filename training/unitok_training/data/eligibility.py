"""What the tasks of a mixture can be made of: usable rows, pairs of rows, and why others are left out.

R rows, I items of a task.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.grammar.tasks.base import SPEECH_KINDS
from unitok_training.data.columns import Columns, Items, Needs, Skipped, segment_maximum
from unitok_training.data.mixture import TaskKey


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
            items = Items(self._distinct(usable) if needs.text_only else np.flatnonzero(usable))
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
    def _cell(self) -> np.ndarray:
        """(R,) number of (group, language); rows without a group have one each."""
        columns = self.columns
        groups = np.where(columns.group == "", [f"\0{row}" for row in range(len(columns))], columns.group)
        return np.unique(groups, return_inverse=True)[1] * len(columns.languages) + columns.language

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
        target = self._targets(parsed, needs) & (columns.group != "")
        pool = self._distinct(target) if needs.text_only else np.flatnonzero(target)
        pool = pool[np.argsort(self._cell[pool], kind="stable")]
        cells = self._cell[pool]
        sources = self._distinct(usable) if needs.text_only else np.flatnonzero(usable)
        found = []
        for number, language in enumerate(columns.languages):
            if parsed.target not in (None, language):
                continue
            rows = sources[(columns.language[sources] != number) & (columns.group[sources] != "")]
            wanted = self._cell[rows] - columns.language[rows] + number
            start, stop = np.searchsorted(cells, wanted, "left"), np.searchsorted(cells, wanted, "right")
            some = stop > start
            found.append(np.stack([rows[some], start[some], stop[some]]))
        source, start, stop = np.concatenate(found, axis=1) if found else np.zeros((3, 0), np.int64)
        return Items(source, start, stop, pool)

    def _replies(self, parsed: TaskKey, usable: np.ndarray, needs: Needs) -> Items:
        """Questions with the rows whose extras say `"reply_to": id of the question`."""
        columns = self.columns
        row_of = {str(columns.ids[row]): int(row) for row in np.flatnonzero(usable)}
        pairs = []
        for row in np.flatnonzero(self._targets(parsed, needs)):
            if '"reply_to"' not in columns.extras[row]:
                continue
            question = row_of.get(str(json.loads(columns.extras[row])["reply_to"]))
            if question is not None:
                pairs.append((question, int(row)))
        source, pool = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
        return Items(source, np.arange(len(pool)), np.arange(len(pool)) + 1, pool)


class Voices:
    """Rows with codes by speaker: where voice prompts come from."""

    def __init__(self, columns: Columns) -> None:
        rows = np.flatnonzero(columns.split & (columns.lengths("codes") > 0) & (columns.speaker != ""))
        self.rows = rows[np.argsort(columns.speaker[rows], kind="stable")]
        """Those rows, each speaker's side by side."""
        _, start, speaker, count = np.unique(
            columns.speaker[self.rows], return_index=True, return_inverse=True, return_counts=True
        )
        self.first, self.count = np.zeros(len(columns), np.int64), np.zeros(len(columns), np.int64)
        """(R,) where the rows of a row's speaker begin, and how many there are; 0 rows without a speaker or codes."""
        self.first[self.rows], self.count[self.rows] = start[speaker], count[speaker]
        self.place = np.zeros(len(columns), np.int64)
        """(R,) place of a row among its speaker's."""
        self.place[self.rows] = np.arange(len(rows)) - start[speaker]

    def other(self, row: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """(D,) the row `ahead` places (1 and more, below `count`) behind each row among its speaker's, in a circle.

        A row without a speaker is its own.
        """
        found, some = row.copy(), self.count[row] > 0
        known = row[some]
        found[some] = self.rows[self.first[known] + (self.place[known] + ahead[some]) % self.count[known]]
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
        assert needs.target is not None and items.start is not None and items.stop is not None
        lengths = sizes(needs.target, items.pool)
        bound = bound + segment_maximum(lengths, items.start, items.stop)
    if "voice" in (parsed.of.variant.given or ()):
        marks += voice_frames * columns.codebooks
    return bound + marks
