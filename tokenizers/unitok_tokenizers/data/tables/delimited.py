"""Fields between tabs, commas, semicolons or bars, with a header or without (LJSpeech and its descendants)."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unitok_tokenizers.data.tables.base import AUDIO_SUFFIXES, lines_of, plain_suffix
from unitok_tokenizers.data.tables.columns import NONE, is_called, is_known
from unitok_tokenizers.errors import InputError

TABLES = (".tsv", ".csv", ".psv")
"""Suffixes of files whose first row is a header if it has one known name; in others, two."""
NOT_A_NUMBER = ("nan", "NaN")
"""What pandas writes into a cell without a value."""
FRACTION = re.compile(r"\d*\.\d+")
NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
SAME_WORDS = 0.5
"""Share of words that two columns have in common where both are the same sentence, one of them normalized."""
WRITTEN_QUOTED = re.compile(r'"(?:[^"]|"")*"')
"""A field in quotes, whose own quotes are doubled."""
SEPARATOR_TOLD = re.compile(r'"?sep=(?P<mark>[,;|\t])"?')
"""What a spreadsheet writes in front of a table."""
REMEDY = "say which is which by number (--columns audio=1 text=2)"


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """A table before its columns are understood."""

    source: Path
    rows: Sequence[tuple[int, list[str]]]
    """(line, fields)."""

    def where(self, line: int) -> str:
        return f"{self.source}:{line}"


def delimited_records(source: Path, chosen: Mapping[str, str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file and line, number, column → cell) of every row.

    Raises:
        InputError: rows of other lengths than the first, or, without a header, columns that could be several things.
    """
    cells = _read(source)
    if not cells.rows:
        return
    line, first = cells.rows[0]
    header = _has_header(first, chosen, table=plain_suffix(source) in TABLES)
    rows = cells.rows[1:] if header else cells.rows
    for number, fields in rows:
        if len(fields) < 2 and not header:
            raise InputError(
                f"{cells.where(number)}: {fields[0]!r} has no text; write the recording's name, a tab, its text"
            )
        if len(fields) != len(first):
            few = "fewer" if len(fields) < len(first) else "more"
            raise InputError(
                f"{cells.where(number)}: {few} fields than " + ("the header names" if header else f"line {line} has")
                + "; write every row with the same columns (in R: row.names = FALSE)"
            )  # fmt: skip
    if header:
        names = [name.strip() for name in first]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{cells.where(line)}: two columns are called {twice!r}; rename one of them")
    elif chosen:
        names = [str(index + 1) for index in range(len(first))]
    else:
        names = _unnamed(cells, len(first))
    for number, fields in rows:
        yield cells.where(number), number, dict(zip(names, (_cell(field, header) for field in fields)))


def _has_header(first: Sequence[str], chosen: Mapping[str, str], *, table: bool) -> bool:
    """Whether the first row names the columns. Columns that are chosen by number are those of a table without a header,
    whatever its cells say, unless all of these numbers are names in it, or it names what is chosen where it stands.
    The name of a file is no name of a column."""
    known, names = sum(is_known(name) for name in first), set(chosen.values()) - {NONE}
    if known < 2 and not names & set(first) and any(one.strip().lower().endswith(AUDIO_SUFFIXES) for one in first):
        return False
    if names and all(name.isdecimal() for name in names):
        places = {ours: int(name) for ours, name in chosen.items() if name != NONE}
        named = any(0 < at <= len(first) and is_called(first[at - 1], ours) for ours, at in places.items())
        return known >= 2 or names <= set(first) or (table and named)
    return known + 2 * bool(names & set(first)) >= (1 if table else 2)


def _cell(field: str, header: bool) -> str | float:
    return math.nan if field in NOT_A_NUMBER else field if header else field.strip()


def _read(source: Path) -> _Cells:
    numbered = [(number, line) for number, line in lines_of(source) if line.strip()]
    told = SEPARATOR_TOLD.fullmatch(numbered[0][1]) if numbered else None
    skipped = numbered[0][0] if told else 0
    numbered = numbered[1:] if told else numbered
    first = numbered[0][1] if numbered else ""
    mark = told["mark"] if told else separator_of(source, first)
    rows: list[tuple[int, list[str]]] = []
    if mark == " ":
        rows = [(number, line.strip().split(maxsplit=1)) for number, line in numbered]
        return _Cells(source=source, rows=rows)
    quoted: Literal[0, 3] = csv.QUOTE_MINIMAL if mark in ",;" or _quoting(source, numbered, mark) else csv.QUOTE_NONE
    lines = (line + "\n" for number, line in lines_of(source) if number > skipped)
    reader = csv.reader(lines, delimiter=mark, quoting=quoted, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((reader.line_num + skipped, [field.removesuffix("\n") for field in fields]))
    except csv.Error as error:
        raise InputError(
            f"{source}:{reader.line_num + skipped}: {error}; write one row a line, its fields between {_called(mark)}"
        ) from None
    return _Cells(source=source, rows=rows)


def _quoting(source: Path, lines: Sequence[tuple[int, str]], mark: str) -> bool:
    """Whether fields between tabs or bars are quoted as pandas does, which doubles quotes inside: all that begin with a
    quote are, and one of them has a doubled one or a quote of its own, or they are all of the first line.

    Raises:
        InputError: some fields are written so and others are not.
    """
    begun = [(number, field) for number, line in lines for field in line.split(mark) if field.startswith('"')]
    whole = [bool(WRITTEN_QUOTED.fullmatch(field)) for _, field in begun]
    first = lines[0][1].split(mark) if lines else [""]
    named = sum(is_known(field.strip('"')) for field in first) >= 2
    # R, and pandas where it is asked to quote all
    every = all(WRITTEN_QUOTED.fullmatch(field) for field in first) and (named or all(whole))
    if not every and not any('""' in field[1:-1] for (_, field), fits in zip(begun, whole) if fits):
        return False  # nobody doubles quotes here: a quote is one
    if not all(whole):
        number, field = next(one for one, fits in zip(begun, whole) if not fits)
        raise InputError(
            f"{source}:{number}: {field[:60]!r} begins with a quote that does not end it, and other fields are quoted "
            'with their own quotes doubled; write all of them in one way (in R: qmethod = "double")'
        )
    return True


def _called(mark: str) -> str:
    return {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}[mark]


def separator_of(source: Path, first: str) -> str:
    """What parts the fields: a tab in a .tsv; else what parts known names in the first line, or the first of tab, bar,
    semicolon (in a .csv, comma) that stands in it; in other files a space behind the name."""
    suffix = plain_suffix(source)
    if suffix == ".tsv":
        return "\t"
    marks = "\t|;," if suffix == ".csv" else "\t|"
    for mark in marks:
        if sum(is_known(name.strip('"')) for name in first.split(mark)) >= 2:
            return mark
    found = next((mark for mark in marks if mark in first), None)
    return found or ("," if suffix == ".csv" else " ")


def _unnamed(cells: _Cells, count: int) -> list[str]:
    """Names of the columns of a table without a header: the recording, then the text, and nothing that is guessed.

    Fractions are durations. Two texts that say the same are LJSpeech's, of which the second is normalized. All else is
    refused.
    """
    where = cells.where(cells.rows[0][0])
    columns = [[fields[index].strip() for _, fields in cells.rows] for index in range(count)]
    if count < 2:
        raise InputError(f"{where}: {columns[0][0]!r} has no text; write the recording's name, a tab, its text")
    names = ["audio", *(f"column_{index + 1}" for index in range(1, count))]
    left = []
    for index in range(1, count):
        filled = [cell for cell in columns[index] if cell and cell not in NOT_A_NUMBER]
        numbers = all(NUMBER.fullmatch(cell) for cell in filled)
        if not filled or (numbers and any(FRACTION.fullmatch(cell) for cell in filled)):
            continue
        left.append(index)
    if len(left) == 2 and _say_the_same(columns[left[0]], columns[left[1]]):
        left = left[1:]
    if len(left) != 1:
        shown = ", ".join(f"{index + 1} ({columns[index][0][:40]!r})" for index in range(count))
        what = "several columns could be the text" if left else "no column could be the text"
        raise InputError(f"{where}: there is no header, and {what}: {shown}; {REMEDY}")
    if all(NUMBER.fullmatch(cell) for cell in columns[left[0]] if cell):
        raise InputError(f"{where}: column {left[0] + 1} holds numbers where the text should be; {REMEDY}")
    names[left[0]] = "text"
    return names


def _say_the_same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two columns are the same sentences in two spellings."""
    common = total = 0
    for one, other in zip(first, second):
        words, others = (
            {"".join(filter(str.isalnum, word)) for word in text.casefold().split()} for text in (one, other)
        )
        common += len(words & others)
        total += max(len(words), 1)
    return common >= SAME_WORDS * total
