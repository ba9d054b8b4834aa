"""Token shards made in memory, for tests of what reads shards: the columns of a reader, without files or audio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.files import array_fingerprint
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary

TEXT_PIECES = 24
STYLES, PITCHES, DURATIONS = 6, 9, 4
UNITS = 16
CODEBOOKS, CODES = 2, 8
FRAME_RATE = Fraction(10)
"""Of units and codes alike."""


def streams() -> dict[str, StreamInfo]:
    rate = FRAME_RATE
    return {
        "text": StreamInfo("text", "text", "t0", None, (TEXT_PIECES,)),
        "units": StreamInfo("units", "units", "u0", rate, (UNITS,), deduplicated=True),
        "codes": StreamInfo("codes", "codes", "c0", rate, (CODES,) * CODEBOOKS),
        "style": StreamInfo("style", "prosody", "s0", Fraction(1), (STYLES,)),
        "pitch": StreamInfo("pitch", "prosody", "p0", rate / 2, (PITCHES,)),
        "durations": StreamInfo("durations", "prosody", "d0", None, (DURATIONS,), runs_of="units"),
    }


def vocabulary(languages: Sequence[str] = ("de", "en")) -> Vocabulary:
    text, *others = streams().values()
    return Vocabulary.build(text=text, streams=others, languages=languages)


class ToyShards(Shards):
    """Shards over lists of rows (dictionaries with the columns' names), in memory."""

    def __init__(
        self, rows: Sequence[dict[str, Any]], names: Sequence[str] = tuple(streams()), *, parts: int = 1
    ) -> None:
        described = [info.to_json() for name, info in streams().items() if name in names]
        files = [{"name": "memory", "rows": len(rows), "sha256": array_fingerprint(*map(np.array, map(str, rows)))}]
        super().__init__(Path("the shards"), {"files": files, "streams": described, "skipped": {}})
        edges = np.linspace(0, len(rows), parts + 1).astype(int)
        self.table = pyarrow.concat_tables(
            [self._table(rows[start:stop]) for start, stop in zip(edges, edges[1:])] or [self._table(rows)]
        )

    def _table(self, rows: Sequence[dict[str, Any]]) -> Any:
        columns: dict[str, Any] = {
            name: pyarrow.array([str(row.get(name, "")) for row in rows], pyarrow.string())
            for name in ("id", "lang", "speaker", "split", "group")
        }
        for name in ("words", "extras"):
            columns[name] = pyarrow.array([json.dumps(row[name]) for row in rows], pyarrow.string())
        for name in self.ragged_columns:
            values = [np.asarray(row.get(name, ()), np.int32).reshape(-1).tolist() for row in rows]
            columns[name] = pyarrow.array(values, pyarrow.list_(pyarrow.int32()))
        return pyarrow.table(columns)


def sentence(group: int, lang: str) -> np.ndarray:
    """Text ids of a sentence: pieces 0-11 are English, 12-23 their translations; German has the reverse order."""
    rng = np.random.default_rng([11, group])
    pieces = rng.integers(12, size=int(rng.integers(3, 6)))
    return pieces if lang == "en" else pieces[::-1] + 12


def row(group: int, lang: str, speaker: str, *, split: str = "train") -> dict[str, Any]:
    """One utterance, in which the voice shifts the codes and not the units."""
    text = sentence(group, lang)
    rng = np.random.default_rng([13, group, ord(lang[0]), ord(speaker[-1])])
    units = np.stack([text * 7 % UNITS, (text * 5 + 3) % UNITS], axis=1).reshape(-1)
    units = units[np.insert(np.diff(units) != 0, 0, True)]  # deduplicated
    durations = rng.integers(1, 4, size=len(units))
    frames = np.repeat(units, durations)
    voice = ord(speaker[-1]) % CODES
    codes = np.stack([frames % CODES, (frames // 2 + voice) % CODES], axis=1)
    starts = np.linspace(0, len(frames) / float(FRAME_RATE), len(text) + 1)
    return {
        "id": f"{group}-{lang}-{speaker}",
        "group": f"g{group}",
        "lang": lang,
        "speaker": speaker,
        "split": split,
        "text_ids": text,
        "units": units,
        "units_durations": durations,
        "codes": codes,
        "style": text[: 1 + len(frames) // 10] % STYLES,
        "pitch": (frames[::2] + voice) % PITCHES,
        "durations": durations - 1,
        "words": [(f"w{i}", float(a), float(b)) for i, (a, b) in enumerate(zip(starts, starts[1:]))],
        "extras": {},
    }


def corpus(groups: int = 8, speakers: Sequence[str] = ("a", "b"), split: str = "train") -> list[dict[str, Any]]:
    """Every sentence in English and German by every speaker."""
    return [
        row(group, lang, name, split=split) for group in range(groups) for lang in ("en", "de") for name in speakers
    ]


def dialogues(count: int = 8) -> list[dict[str, Any]]:
    """Questions and replies, tied by the replies' extras."""
    rows = []
    for number in range(count):
        question, reply = row(100 + number, "en", "a"), row(200 + number, "en", "b")
        reply["extras"] = {"reply_to": question["id"]}
        rows += [question, reply]
    return rows


def mixtures(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each row one with noise, the noise alone, and one with another talker, whose codes are of both."""
    found = []
    for number, clean in enumerate(rows):
        rng = np.random.default_rng([17, number])
        noise = rng.integers(CODES, size=clean["codes"].shape)
        other = rows[(number + len(rows) // 2) % len(rows)]["codes"]
        both = (clean["codes"] + other[np.arange(len(noise)) % len(other)]) % CODES
        made = {**clean, "split": f"{clean['split']}_mixed", "words": []}
        names = {name: f"{clean['id']}+{name}" for name in ("noise", "alone", "talker")}
        alone = {**made, "id": names["alone"], "text_ids": (), "speaker": "", "codes": noise}
        noisy = {"codes": (clean["codes"] + noise) % CODES, "extras": {"clean": clean["id"], "noise": names["alone"]}}
        found += [alone, {**made, "id": names["noise"], **noisy}]
        found.append({**made, "id": names["talker"], "codes": both, "extras": {"talker": clean["id"]}})
    return found
