"""What is wrong with shards is refused where it is certain, and counted with its first rows where it is not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command import unitok
from tests.support.tiny_model import tokenizers
from unitok_tokenizers.data.held_rows import HeldRow
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.shard_checks import frames_of, validate_shards
from unitok_tokenizers.data.shard_writer import write_part
from unitok_tokenizers.data.shards import FORMAT, Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import sha256_file, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.language_scripts import LANGUAGES, LETTERS, SCRIPTS, foreign_letters, other_script

TEXT = StreamInfo("text", "text", "t", None, (500,))
UNITS = StreamInfo("units", "units", "u", Fraction(50), (100,), deduplicated=True)
CODES = StreamInfo("codes", "codes", "c", Fraction(25, 2), (64, 64))


def shards(folder: Path, streams: list[StreamInfo], rows: list[dict[str, Any]]) -> Path:
    """Shards of rows as they are given: what `prepare` would refuse to write, or would write otherwise."""
    folder.mkdir(exist_ok=True)
    plain: dict[str, Any] = {"group": "g", "lang": "en", "speaker": "", "split": "train", "seconds": 2.0,
                             "text": "a house", "text_ids": [1, 2], "words": "[]", "audio": "", "offset": 0.0,
                             "extras": "{}"}  # fmt: skip
    whole = [{**plain, "id": f"r{number}", **row} for number, row in enumerate(rows)]
    names = ["id", *plain, *(name for name in rows[0] if name not in plain and name != "id")]
    write_part(folder / "part-00000.arrow", {name: [row[name] for row in whole] for name in names}, [TEXT, *streams])
    file = {"name": "part-00000.arrow", "rows": len(rows), "sha256": sha256_file(folder / "part-00000.arrow")}
    described = [one.to_json() for one in (TEXT, *streams)]
    write_json(folder / "manifest.json", {"format": FORMAT, "files": [file], "skipped": {}, "streams": described})
    return folder


def units(seconds: float, rate: float = 50.0) -> dict[str, Any]:
    frames = round(seconds * rate)
    return {"units": [index % 100 for index in range(frames // 2)], "units_durations": [2] * (frames // 2)}


def codes(seconds: float) -> dict[str, Any]:
    return {"codes": [index % 64 for index in range(2 * round(seconds * 12.5))]}


def found(folder: Path) -> list[tuple[str, str, int, tuple[str, ...]]]:
    return [(one["check"], one["stream"], one["rows"], one["first"]) for one in validate_shards(folder)["warnings"]]


def test_frames_are_durations_added_up(tmp_path: Path) -> None:
    rows = [{"units": [1, 2], "units_durations": [3, 4]}, {"units": [], "units_durations": []}]
    opened = Shards.open(shards(tmp_path, [UNITS], [*rows, {"units": [5], "units_durations": [9]}]))
    assert frames_of(opened, UNITS).tolist() == [7, 0, 9]


def test_what_tokenizers_make_is_not_warned_of(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 40000).astype(np.float32)
    rows = [HeldRow(id=str(number), group="g", lang="en", text="we buy two books", samples=sound[: 9000 + 999 * number],
                    sample_rate=16000) for number in range(8)]  # fmt: skip
    from unitok_tokenizers.data.prepare import prepare_shards

    prepare_shards([*rows, Row(id="t", group="t", lang="en", text="no sound")], tokenizers(), tmp_path / "s")
    assert validate_shards(tmp_path / "s")["warnings"] == []


def test_lengths_that_do_not_add_up(tmp_path: Path) -> None:
    rows = [{**units(2.0), **codes(2.0)} for _ in range(6)]
    rows[1] = {**units(4.0), **codes(2.0)}  # longer than its recording, and than its codes
    rows[4] = {**units(1.0), **codes(2.0)}
    rows[5] = {**units(1.0), **codes(1.0)}  # silence was left out
    assert found(shards(tmp_path, [UNITS, CODES], rows)) == [
        ("length", "units", 1, ("r1",)),
        ("streams", "codes", 2, ("r1", "r4")),
    ]
    silent = [{**row, "seconds": 0.0} for row in rows]  # nobody knows how long the recordings are
    assert found(shards(tmp_path, [UNITS, CODES], silent)) == [("streams", "codes", 2, ("r1", "r4"))]


@pytest.mark.parametrize(("rate", "warned"), [(50, False), (40, False), (20, True), (60, True)])
def test_another_rate_than_declared_is_counted(rate: float, warned: bool, tmp_path: Path) -> None:
    folder = shards(tmp_path, [UNITS], [units(2.0, rate) for _ in range(3)])
    assert found(folder) == ([("rate", "units", 3, ("r0", "r1", "r2"))] if warned else [])


def test_more_ids_than_recordings_can_have_are_refused(tmp_path: Path) -> None:
    folder = shards(tmp_path, [UNITS], [units(2.0, 100.0) for _ in range(6)])
    ended = unitok("validate", folder)
    assert ended.code == 2 and "units have 100 frames a second, their stream declares 50" in ended.err


def test_units_must_be_the_codebook_that_they_view(tmp_path: Path) -> None:
    view = replace(UNITS, frame_rate=Fraction(25, 2), cardinalities=(64,), views="codes")
    flat = [1, 9, 1, 9, 3, 9, 3, 9]
    good = {"units": [1, 3], "units_durations": [2, 2], "codes": flat, "seconds": 0.3}
    assert found(shards(tmp_path, [view, CODES], [good, good])) == []
    with pytest.raises(InputError, match="row r1 has 5 frames of units and 4 of codes"):
        validate_shards(shards(tmp_path, [view, CODES], [good, {**good, "units_durations": [2, 3]}]))
    with pytest.raises(InputError, match="units differ from the first codebook of codes"):
        validate_shards(shards(tmp_path, [view, CODES], [good, {**good, "units": [1, 4]}]))
    text = {"units": [], "units_durations": [], "codes": [], "seconds": 0.0}
    alone = {**text, "units": [1], "units_durations": [2], "seconds": 0.15}
    for without in ([text], [text, alone]):
        validate_shards(shards(tmp_path, [view, CODES], [*without, good]))
        with pytest.raises(InputError, match="units differ from the first codebook of codes"):
            validate_shards(shards(tmp_path, [view, CODES], [*without, good, {**good, "units": [1, 4]}]))


def test_text_of_another_language_is_counted(tmp_path: Path) -> None:
    texts = [("en", "the green house"), ("en", "Der Bär läuft über die Straße"), ("en", "naïve café"), ("ru", "дом"),
             ("ru", "green house"), ("de", "зелёный дом"), ("xx", "зелёный дом"), ("en", "Mr Müller")]  # fmt: skip
    rows = [{**units(2.0), "lang": lang, "text": text} for lang, text in texts]
    rows.append({**units(2.0), "words": '[["late", 3.0, 4.0]]'})
    folder = shards(tmp_path, [UNITS], rows)
    assert found(folder) == [
        ("words", "text", 1, ("r8",)),
        ("script", "text", 2, ("r4", "r5")),
        ("letters", "text", 1, ("r1",)),
    ]
    ended = unitok("validate", folder)
    assert ended.code == 0 and "2 rows, r4, r5: text of language 'ru' is written with Latin script" in ended.err
    assert "written with ßäü, which it does not have" in ended.err and "valid" in ended.err


@pytest.mark.parametrize(
    ("text", "lang", "script"),
    [
        ("東京に行く", "ja", None), ("サッカー", "ja", None), ("I go", "ja", "Latin"), ("我去", "zh-CN", None),
        ("안녕하세요", "ko", None), ("Здраво", "sr", None), ("Zdravo svete", "sr", None), ("USB", "ru", "Latin"),
        ("12 3", "ru", None), ("ok", "ru", None), ("مرحبا بكم", "ar", None), ("שלום עולם", "ar", "Hebrew"),
    ],
)  # fmt: skip
def test_scripts(text: str, lang: str, script: str | None) -> None:
    assert other_script(text, lang) == script


def test_letters_are_those_of_a_language_that_is_written_with_them() -> None:
    assert all("Latin" in LANGUAGES[lang] for lang in LETTERS)
    assert {name for names in LANGUAGES.values() for name in names} == set(SCRIPTS)
    assert foreign_letters("u\u0308ber die Stra\u00dfe", "de") == "" and foreign_letters("über Straße", "nl") == ""
    assert foreign_letters("zażółć gęślą", "de") == "óąćęłśż"
