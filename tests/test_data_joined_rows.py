"""Rows of several utterances: what is joined, and what shards hold of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.tiny_model import RATE, speech, tokenizers
from unitok_tokenizers.data.joined_rows import joined_rows
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.model_defaults import learned_limits


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    made = []
    for number in range(12):
        for lang in ("en", "de"):
            path = tmp_path / f"{number}-{lang}.wav"
            soundfile.write(path, speech(0.5, number), RATE)
            made.append(
                Row(
                    id=path.stem, group=f"g{number}", lang=lang, speaker="ab"[number % 2], audio=path,
                    split="test" if number > 9 else "train", text=f"{lang} sentence {number}",
                )
            )  # fmt: skip
    return made


def test_utterances_of_one_speaker_are_joined_in_all_their_languages(rows: list[Row]) -> None:
    found = joined_rows(rows, 0.5, seed=0)
    assert len(found) == 10 and len({row.group for row in found}) == 5
    for row in found:
        parts = row.parts  # type: ignore[attr-defined]
        assert 1 <= len(parts) <= 2 and {part.speaker for part in parts} == {row.speaker}
        assert {part.split for part in parts} == {"train"} and {part.lang for part in parts} == {row.lang}
        assert row.text == " ".join(part.text for part in parts)
        assert sum(len(part.load(RATE)) for part in parts) <= len(row.load(RATE)) <= (0.5 * 2 + 1.2 * 3) * RATE
        assert np.array_equal(row.load(RATE), row.load(RATE)) and row.reference == ""
    groups = {row.group: [one for one in found if one.group == row.group] for row in found}
    for pair in groups.values():
        assert [[part.group for part in one.parts] for one in pair][0] == [part.group for part in pair[1].parts]  # type: ignore[attr-defined]
    assert joined_rows(rows, 0.5, seed=0) == found != joined_rows(rows, 0.5, seed=1)


def test_nothing_is_joined_where_nothing_can_be(rows: list[Row]) -> None:
    assert joined_rows(rows, 0.0, seed=0) == [] == joined_rows(rows[20:], 1.0, seed=0)
    assert joined_rows(rows, 0.5, seed=0, most_seconds=4.0) == []
    assert (
        joined_rows(
            [Row(id="t", group="t", lang="en", text="a"), Row(id="u", group="u", lang="en", text="b")], 1.0, seed=0
        )
        == []
    )


def test_shards_hold_joined_rows_and_say_how_long_recordings_become(rows: list[Row], tmp_path: Path) -> None:
    plain = prepare_shards(rows, tokenizers(), tmp_path / "plain")
    shards = prepare_shards(rows, tokenizers(), tmp_path / "joined", joined_share=0.5, seed=0)
    assert len(shards) == len(plain) + 10
    joined = [index for index in range(len(shards)) if str(shards.row(index)["id"]).startswith("joined")]
    for index in joined:
        assert shards.row(index)["audio"] == "" and len(shards.codes(index)) and shards.split[index] == "joined"
    limits = learned_limits(shards)
    assert learned_limits(plain).longest_seconds == pytest.approx(0.48, abs=0.1)
    assert limits.longest_seconds == learned_limits(plain).longest_seconds < limits.whole_seconds


def test_tasks_that_listen_learn_from_joined_rows_and_the_others_do_not(rows: list[Row], tmp_path: Path) -> None:
    shards = prepare_shards(rows, tokenizers(), tmp_path / "joined", joined_share=0.5, seed=0)
    vocabulary = tokenizers().vocabulary(["de", "en"])
    keys = ("asr", "asr.codes", "s2tt", "s2st.chain", "mt", "tts.units", "lm", "slm")
    source = ExampleSource(shards, vocabulary, Mixture(tasks=dict.fromkeys(keys, 1.0)), seed=0)
    found = source.usable()
    assert {key: found[key] for key in keys[:4]} == dict.fromkeys(keys[:4], 30)
    assert {key: found[key] for key in keys[4:]} == dict.fromkeys(keys[4:], 20)
    targets = source.folders[0].of(source.keys.index("s2tt"))
    joined = np.asarray(shards.split) == "joined"
    assert targets.start is not None and targets.pool is not None
    assert np.array_equal(joined[targets.source], joined[targets.pool[targets.start]])


def test_a_joined_row_is_another_one_where_a_part_of_it_is(rows: list[Row]) -> None:
    one = next(row for row in joined_rows(rows, 1.0, seed=0) if len(row.parts) == 2)  # type: ignore[attr-defined]
    before, second = one.stamp(), one.parts[1]  # type: ignore[attr-defined]
    assert replace(one, parts=(one.parts[0], replace(second, offset=0.1))).stamp() != before  # type: ignore[attr-defined, call-arg]
    soundfile.write(second.audio, speech(0.4, 77), RATE)
    assert one.stamp() != before


def test_a_voice_of_the_murmur_that_cannot_be_read_takes_no_other_row_with_it(rows: list[Row], tmp_path: Path) -> None:
    whole = prepare_shards(rows, tokenizers(), tmp_path / "whole", joined_share=1.0, keep_unreadable=True)
    content = rows[3].audio.read_bytes()  # type: ignore[union-attr]
    rows[3].audio.write_bytes(content[: len(content) * 2 // 3])  # type: ignore[union-attr]
    found = prepare_shards(rows, tokenizers(), tmp_path / "cut", joined_share=1.0, keep_unreadable=True)
    counts = [int((one.split == "joined").sum()) for one in (whole, found)]
    assert counts[0] > 4 and counts[0] - 4 <= counts[1] < counts[0], "those of the one recording alone are missing"
