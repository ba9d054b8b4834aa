"""Which texts are read aloud, and which are translated."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact
from unitok_tokenizers.text.score_normalizer import basic
from unitok_training.systems.real.settings import Settings
from unitok_training.systems.real_full.reading import LANG, Passage
from unitok_training.systems.real_full.settings import HELD_OUT, TRAIN, pair_files

READ, CAPTION = "read-", "caption-"
"""How ids of what is read begin, by where its text is from."""
LETTERS_A_SECOND = 15.0
"""Of read English, spaces counted."""
SHORTEST, LONGEST = 12, 180
"""Letters of what is read: no bare words, and nothing beyond some twelve seconds."""


def lines_of(path: Path) -> list[str]:
    """Lines of a text file, compressed or not. InputError where it is cut or not UTF-8."""
    opened = gzip.open if path.suffix == ".gz" else open
    with intact(path, "write it again, in UTF-8"), opened(path, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


def passages_to_read(settings: Settings, held_out: Collection[str]) -> list[Passage]:
    """As many as fill `hours`, from both sources in turn; none that is held out, without case and punctuation."""
    titled = (line.split("\t") for line in lines_of(Path(settings["texts"])))
    read = [Passage(id=f"{READ}{fields[0]}", text=fields[1]) for fields in titled if len(fields) > 1]
    captions = [
        Passage(id=f"{CAPTION}{number}", text=text)
        for number, text in enumerate(lines_of(pair_files(settings, TRAIN)[0]))
    ]
    random, found, letters = np.random.default_rng([settings["seed"], 0x4EAD]), list[Passage](), 0
    for one in _in_turn([_drawn(read, held_out, random), _drawn(captions, held_out, random)]):
        if letters >= settings["hours"] * 3600 * LETTERS_A_SECOND:
            break
        found.append(one)
        letters += len(one.text)
    if not found:
        raise InputError(f"{settings['texts']} and {settings['translations']} hold no text that can be read")
    return found


def _drawn(passages: Sequence[Passage], held_out: Collection[str], random: np.random.Generator) -> list[Passage]:
    order = random.permutation(len(passages))
    some = (passages[place] for place in order)
    return [one for one in some if SHORTEST <= len(one.text) <= LONGEST and basic(one.text) not in held_out]


def _in_turn(sources: Sequence[Sequence[Passage]]) -> Iterator[Passage]:
    for place in range(max(map(len, sources))):
        yield from (one[place] for one in sources if place < len(one))


def pairs_of(settings: Settings, part: str) -> list[tuple[str, str]]:
    """(English, translation) of a part.

    Raises:
        InputError: two files that do not have as many lines.
    """
    one, other = pair_files(settings, part)
    english, translations = lines_of(one), lines_of(other)
    if len(english) != len(translations):
        raise InputError(f"{one} has {len(english)} lines, {other} has {len(translations)}: they belong line to line")
    return list(zip(english, translations))


def recorded(settings: Settings) -> list[Row]:
    """Recordings of English, with translations, whose transcripts are translated."""
    return [
        row for row in (read_manifest(settings["spoken"]) if settings["spoken"] else ())
        if row.audio is not None and row.lang == LANG and row.text
        and settings["target"] in row.extras.get("translations", {})
    ]  # fmt: skip


def held_out_pairs(settings: Settings) -> list[tuple[str, str]]:
    """(English, translation) of all that translation is scored by."""
    spoken = [(row.text or "", str(row.extras["translations"][settings["target"]])) for row in recorded(settings)]
    return [*pairs_of(settings, HELD_OUT), *spoken]


def translated_rows(settings: Settings) -> list[Row]:
    """Training rows of text: a line and its translation make a group; none of which a side is held out, without case
    and punctuation."""
    held_out = [{basic(one) for one in side} for side in zip(*held_out_pairs(settings))] or [set(), set()]
    return [
        Row(id=f"{TRAIN}-{number}-{lang}", group=f"{TRAIN}-{number}", lang=lang, text=text)
        for number, pair in enumerate(pairs_of(settings, TRAIN))
        if not any(basic(one) in known for one, known in zip(pair, held_out))
        for lang, text in zip((LANG, settings["target"]), pair)
    ]
