"""What a model knows from its shards: the same as row by row, from shards of many shapes, in one quick pass."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest

from benchmarks.long_runs import alone, finish, write_shards
from unitok.generation.length_limits import Limits
from unitok_tokenizers.data.joined_rows import SPLIT as JOINED
from unitok_tokenizers.data.shard_writer import write_part
from unitok_tokenizers.data.shards import FORMAT, Shards
from unitok_tokenizers.files import write_json
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.normalization.sentences import split_sentences
from unitok_tokenizers.text.normalization.spoken import learned_characters
from unitok_training.model_defaults import Largest, learned, learned_limits, learned_texts, voice_prompts
from unitok_training.shard_set import ShardFolder, ShardSet

LETTERS = "abcdefgh ABC .,!?äöüé\u0301\u0308ïñ日本語。\n\r\t😀-"


def random_shards(
    folder: Path, seed: int, *, rows: int, parts: int, names: tuple[str, ...] = ("units", "codes"), runs: bool = True,
    rate: Fraction | None = Fraction(25),
) -> Shards:  # fmt: skip
    """Shards with everything that can be missing missing somewhere."""
    random = np.random.default_rng(seed)
    streams = [StreamInfo("text", "text", "t", None, (50,))]
    streams += [StreamInfo("units", "units", "u", rate, (9,), deduplicated=runs)] * ("units" in names)
    streams += [StreamInfo("codes", "codes", "c", Fraction(10), (7, 7))] * ("codes" in names)
    folder.mkdir(parents=True)
    files = []
    for number, count in enumerate(np.diff(np.linspace(0, rows, parts + 1).astype(int)).tolist()):

        def drawn(choices: list[Any], count: int = count) -> list[Any]:
            return [choices[place] for place in random.integers(0, len(choices), count)]

        def lists(most: int, width: int = 1, count: int = count) -> list[list[int]]:
            sizes = random.integers(0, most, count) * width * (random.random(count) < 0.8)
            return [random.integers(1, 5, size).tolist() for size in sizes]

        units = lists(40)
        columns: dict[str, list[Any]] = {
            "id": [f"{number}-{row}" for row in range(count)], "group": [""] * count,
            "lang": drawn(["en", "de", "ja"]), "speaker": drawn(["", "zoë", "anna", "b", "a"]),
            "split": drawn(["train", "train", "train", "dev", JOINED]),
            "seconds": random.integers(1, 6, count).astype(float).tolist(),  # many are equal
            "text": [None if random.random() < 0.1 else _text(random) for _ in range(count)],
            "text_ids": lists(30), "words": ["[]"] * count, "audio": [""] * count, "offset": [0.0] * count,
            "extras": ["{}"] * count, "units": units,
            "units_durations": [random.integers(1, 4, len(one)).tolist() for one in units], "codes": lists(20, 2),
        }  # fmt: skip
        held = {column for stream in streams for column in columns_of(stream)}
        for column in {"units", "units_durations", "codes"} - held:
            del columns[column]
        name = f"part-{number:05d}.arrow"
        write_part(folder / name, columns, streams)
        files.append({"name": name, "rows": count, "sha256": f"{seed} {number}"})
    described = [stream.to_json() for stream in streams]
    write_json(folder / "manifest.json", {"format": FORMAT, "files": files, "streams": described, "skipped": {}})
    return Shards.open(folder)


def _text(random: np.random.Generator) -> str:
    return "".join(LETTERS[place] for place in random.integers(0, len(LETTERS), int(random.integers(0, 40))))


# What one would write without a thought for time and memory, as it stood here before.


def prompts_by_rows(shards: Shards) -> dict[str, np.ndarray]:
    if "codes" not in shards.streams:
        return {}
    prompts = {}
    frames = round(float(shards.streams["codes"].frame_rate or 1))
    heard = (shards.split == "train") & (np.diff(shards.ragged("codes")[1]) > 0)
    for speaker in sorted(set(shards.speaker[heard].tolist()) - {""}):
        rows = np.flatnonzero((shards.speaker == speaker) & heard)
        row = int(rows[np.argsort(shards.seconds[rows])[len(rows) // 2]])
        values, offsets = shards.ragged("codes")
        prompts[speaker] = values[offsets[row] : offsets[row + 1]].reshape(-1, 2)[:frames].astype(np.int32)
    return prompts


def limits_by_rows(shards: Shards, margin: float = 1.3) -> Limits:
    train_rows = np.flatnonzero(shards.split == "train")
    held = [name for name in ("text_ids", "units") if name in shards.table.column_names]
    size = {name: np.diff(shards.ragged(name)[1])[train_rows] for name in held}
    found = texts_by_rows(shards, train_rows, size["text_ids"])
    if "units" not in shards.streams:
        return Limits(**found)
    found["longest_seconds"] = seconds_by_rows(shards, "train")
    found["whole_seconds"] = seconds_by_rows(shards, "train", JOINED)
    both = (size["text_ids"] > 2) & (size["units"] > 2)
    if not both.any():
        return Limits(**found)
    text, spoken = size["text_ids"][both], size["units"][both]
    values = {"text_per_unit": text / spoken, "units_per_text": spoken / text}
    if "codes" in shards.streams:
        values["frames_per_unit"] = np.diff(shards.ragged("codes")[1])[train_rows][both] / 2 / spoken
    longest = {name: float(np.quantile(value, 0.999)) * margin for name, value in values.items()}
    return Limits(**{**found, **{name: value for name, value in longest.items() if value > 0}})


def seconds_by_rows(shards: Shards, *splits: str) -> float:
    rows = np.flatnonzero(np.isin(shards.split, splits) & (np.diff(shards.ragged("units")[1]) > 0))
    rate = shards.streams["units"].frame_rate
    if not len(rows) or rate is None:
        return Limits().longest_seconds
    values, offsets = shards.ragged("units_durations" if shards.streams["units"].deduplicated else "units")
    if shards.streams["units"].deduplicated:
        frames = np.array([values[offsets[row] : offsets[row + 1]].sum() for row in rows])
    else:
        frames = np.diff(offsets)[rows]
    return float(np.quantile(frames, 0.98)) / float(rate)


def texts_by_rows(shards: Shards, rows: np.ndarray, sizes: np.ndarray) -> dict[str, Any]:
    if not (sizes > 0).any():
        return {}
    chosen = rows[sizes > 0][:: max(1, int((sizes > 0).sum()) // 2000)]
    counts = [len(split_sentences(shards.text[row] or "", str(shards.lang[row]))) for row in chosen.tolist()]
    return {
        "longest_text": max(1, int(np.quantile(sizes[sizes > 0], 0.999))),
        "sentences_together": max(1, int(np.quantile(counts, 0.99))),
    }


def characters_by_rows(shards: Shards) -> dict[str, str]:
    train, found = shards.split == "train", dict[str, str]()
    for lang in sorted(set(shards.lang.tolist())):
        rows = np.flatnonzero(train & (shards.lang == lang)).tolist()
        if known := learned_characters(shards.text[row] or "" for row in rows):
            found[lang] = "".join(sorted(known))
    return found


SHAPES: dict[str, dict[str, Any]] = {
    "one part": {"rows": 400, "parts": 1},
    "many parts": {"rows": 900, "parts": 40},
    "more parts than rows": {"rows": 5, "parts": 8},
    "one row": {"rows": 1, "parts": 1},
    "no row": {"rows": 0, "parts": 1},
    "every frame": {"rows": 300, "parts": 3, "runs": False},
    "no rate": {"rows": 300, "parts": 3, "rate": None},
    "no codes": {"rows": 300, "parts": 3, "names": ("units",)},
    "text alone": {"rows": 300, "parts": 3, "names": ()},
    "every fourth text": {"rows": 14000, "parts": 14, "names": ()},
}


@pytest.mark.parametrize("name", SHAPES)
def test_one_pass_says_what_a_look_at_every_row_says(name: str, tmp_path: Path) -> None:
    for seed in range(1 if SHAPES[name]["rows"] > 1000 else 4):
        shards = random_shards(tmp_path / str(seed), seed, **SHAPES[name])
        assert learned_limits(shards) == limits_by_rows(shards)
        assert learned_texts(shards) == characters_by_rows(shards)
        found, wanted = voice_prompts(shards), prompts_by_rows(shards)
        assert list(found) == list(wanted)
        assert all(np.array_equal(found[speaker], wanted[speaker]) for speaker in wanted)
        known = learned(shards)
        assert known.limits == limits_by_rows(shards) and known.characters == characters_by_rows(shards)
        assert list(known.prompts) == list(wanted)


def test_parts_are_looked_at_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of rows that is cut has offsets that do not begin at 0."""
    shards = random_shards(tmp_path / "s", 7, rows=500, parts=2)
    monkeypatch.setattr("unitok_training.model_defaults.PART_ROWS", 13)
    assert learned_limits(shards) == limits_by_rows(shards) and learned_texts(shards) == characters_by_rows(shards)


def test_strays_are_no_characters(tmp_path: Path) -> None:
    """A character must be a millionth of all; a line break between texts is none of theirs."""
    table = {"text": ["ab" * 700_000, "x"], "lang": ["en"] * 2, "split": ["train"] * 2}
    shards = random_shards(tmp_path / "s", 0, rows=2, parts=1)
    shards.table = pyarrow.table(table)
    assert learned_texts(shards) == {"en": "ab"}


@pytest.mark.parametrize("share", [0.98, 0.999])
def test_the_largest_values_give_the_quantile_of_all(share: float) -> None:
    random = np.random.default_rng(0)
    for count in [1, 2, 3, 10, 49, 50, 51, 99, 1000, 1001, 2345, 20_000]:
        for values in (random.random(count) * 100, random.integers(0, 40, count), random.lognormal(size=count)):
            found = Largest(share, count + int(random.integers(0, 3000)))
            for part in np.array_split(values, 7):
                found.add(part)
            assert len(found) == count
            assert found.quantile(share) == float(np.quantile(values, share))


def test_several_folders_know_the_most_of_each(tmp_path: Path) -> None:
    one = random_shards(tmp_path / "one", 1, rows=300, parts=2)
    two = random_shards(tmp_path / "two", 2, rows=300, parts=2, names=("units",))
    both = learned(ShardSet.of([ShardFolder(shards=one), ShardFolder(shards=two, weight=2.0)]))
    for name in ("units_per_text", "longest_text", "longest_seconds", "sentences_together"):
        known = [getattr(limits_by_rows(shards), name) for shards in (one, two)]
        assert getattr(both.limits, name) == max(known)
    assert both.limits.frames_per_unit == limits_by_rows(one).frames_per_unit, "a folder without codes says nothing"
    assert list(both.prompts) == list(prompts_by_rows(one))
    heavier = random_shards(tmp_path / "three", 3, rows=300, parts=2)
    found = learned(ShardSet.of([ShardFolder(shards=one), ShardFolder(shards=heavier, weight=2.0)]))
    wanted = {**prompts_by_rows(one), **prompts_by_rows(heavier)}
    assert all(np.array_equal(found.prompts[speaker], wanted[speaker]) for speaker in wanted)


NAMES = {"units": "hubert", "units_durations": "hubert_durations", "codes": "mimi"}


@pytest.mark.parametrize("name", ["many parts", "every frame", "no codes", "text alone"])
def test_a_kind_stands_for_its_main_stream(name: str, tmp_path: Path) -> None:
    plain = random_shards(tmp_path / "s", 5, **SHAPES[name])
    text, *speech = (replace(one, name=NAMES.get(one.name, one.name)) for one in plain.streams.values())
    held = [one.to_json() for one in (text, *speech)]
    named = Shards(plain.folder, {**plain.manifest, "streams": held})
    columns = [NAMES.get(column, column) for column in plain.table.column_names]
    named.table = plain.table.rename_columns(columns)
    other = StreamInfo("wavlm", "units", "w", Fraction(50), (9,))
    hubert = [one for one in speech if one.kind == "units"]
    both = Vocabulary.build(text=text, streams=[*speech, other], languages=["en"])
    for vocabulary in (None, *(both.choose({"units": one.name}) for one in hubert)):
        found, wanted = learned(named, vocabulary), learned(plain)
        assert (found.limits, found.characters) == (wanted.limits, wanted.characters)
        assert list(found.prompts) == list(wanted.prompts)
        assert all(np.array_equal(found.prompts[speaker], wanted.prompts[speaker]) for speaker in wanted.prompts)
    found = learned(named, both.choose({"units": "wavlm"}))
    assert found.limits.units_per_text == Limits().units_per_text, "these shards hold none of the main units"
    assert found.limits.longest_text == learned(plain).limits.longest_text


def test_the_finish_is_quick_and_small(tmp_path: Path) -> None:
    """A tenth of the rows and speakers of `benchmarks.long_runs`, with ten times the time: a loop over speakers or
    rows takes longer."""
    folder = write_shards(tmp_path / "rows", 30_000, 6000)
    found = alone(finish, folder, write_shards(tmp_path / "few", 64, 4))
    assert found["seconds"] < 5 and found["peak_megabytes"] < 60, json.dumps(found)
