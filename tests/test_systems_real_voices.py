"""The check on real voices: who is learned from and who is not, and what it says where a part is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.ct2_whisper import tiny_whisper, write_ct2
from tests.support.tiny_ears import speaker_file
from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_training.systems.base.bench import SystemConfig
from unitok_training.systems.real.voice_recordings import RealVoicesConfig, Recordings
from unitok_training.systems.real.voices import SYSTEM
from unitok_training.systems.registry import run_system


def manifest(path: Path, speakers: dict[str, tuple[str, int]], *, texts: bool) -> Path:
    """So many recordings of each speaker, of a split."""
    lines, path = [], path / "metadata.jsonl"
    for name, (split, count) in speakers.items():
        for take in range(count):
            file = f"{name}-{take}.wav"
            write_audio(path.parent / file, speech(2.0 + 0.1 * take, seed=len(lines)), RATE)
            row = {"id": file, "audio": file, "lang": "en", "speaker": name, "split": split}
            lines.append(json.dumps({**row, "text": "two green houses" if texts else None}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def given(folder: Path) -> list[str]:
    voices = {**{f"known{one}": ("train", 1) for one in range(3)}, "new0": ("test", 1), "new1": ("test", 1)}
    one = manifest(folder / "voices", voices, texts=False)
    other = manifest(folder / "texts", {"reader": ("train", 2), "new2": ("test", 4)}, texts=True)
    (folder / "whisper").mkdir()
    write_ct2(folder / "whisper", tiny_whisper())
    speaker_file(folder / "whisper")
    return [
        *(f"voices={one}", f"texts={other}", f"whisper={folder / 'whisper'}", "layer=1", "clusters=8"),
        *("counts=[2,3]", "steps=1", "vocoder_steps=1", "seeds=1", "resamples=20"),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("voices", "texts"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_every_arm_is_heard_beside_its_controls(folder: Path) -> None:
    config = SystemConfig(overrides=(*given(folder), "limit=2"), precision="fp32")
    said: list[str] = []
    found = run_system("real_voices", folder / "run", config, report=said.append)
    for arm in ("2", "3"):
        for way in ("copied", "prompted", "unprompted"):
            assert {f"{arm}.{way}.{what}" for what in ("first", "similarity", "wer")} <= set(found)
        assert f"{arm}.wer_over_copied.high" in found and f"{arm}.voice_gain.low" in found
    assert found["voices"] == 2 and found["chance"] == 0.5, "two of one manifest; whom nobody is left to speak for, no"
    assert all(np.isfinite(value) for value in found.values())
    assert [line for line in said if line.startswith("synthesizer of")] != []
    said.clear()
    assert run_system("real_voices", folder / "run", config, report=said.append) == found
    assert not [line for line in said if "steps" in line or "units" in line], "what is done stays done"
    write_audio(folder / "voices" / "known0-0.wav", speech(1.0, seed=99), RATE)
    with pytest.raises(InputError, match="has parts of other recordings"):
        run_system("real_voices", folder / "run", config, report=said.append)


def test_voices_of_fewer_are_the_first_of_more_and_nobody_held_out_is_among_them(folder: Path) -> None:
    some = dict(one.split("=", 1) for one in given(folder))
    config = RealVoicesConfig(voices=some["voices"], texts=some["texts"], counts=(2, 3), limit=2)
    recordings = Recordings(config)
    names = [{row.speaker for row in recordings.learned(count)} for count in (2, 3)]
    assert len(names[0]) == 2 and names[0] < names[1] == {"known0", "known1", "known2"}
    assert {row.speaker for row in recordings.heard} == {*names[1], "reader"}
    voices = recordings.held_out()
    assert [len(one.prompt) for one in voices] == [RATE, RATE], "half of the only recording"
    assert all(one.said.speaker == "new2" for one in voices)
    assert not np.array_equal(voices[0].prompt, voices[0].reference)


def test_nobody_is_held_out_who_was_heard_or_has_no_name(folder: Path) -> None:
    some = dict(one.split("=", 1) for one in given(folder))
    table = Path(some["texts"])
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    config = RealVoicesConfig(voices=some["voices"], texts=str(table), counts=(2, 3), limit=2)

    def written(*more: dict[str, object]) -> Recordings:
        table.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *more)), encoding="utf-8")
        return Recordings(config)

    nameless = written({**rows[-1], "id": "x", "speaker": ""})
    assert all(one.said.speaker for one in nameless.held_out())
    with pytest.raises(InputError, match="speaker 'reader' is held out, and heard in the training too"):
        written({**rows[0], "id": "y", "split": "test"}).held_out()


def test_what_is_missing_is_named(folder: Path) -> None:
    sizes = given(folder)
    for override, wanted in (
        ("counts=[2,4]", "has 3 speakers in its split 'train'"),
        ("counts=[3,2]", "the fewest first"),
        ("steps=0", "steps is 0"),
        ("voices=nowhere.jsonl", "nowhere.jsonl: no such file"),
        ("limit=1", "1 voices are held out"),
        ("limit=9", "has no third recording of another speaker than 'new2'"),
    ):
        config = SystemConfig(overrides=(*sizes, override))
        with pytest.raises(InputError, match=wanted.replace("[", r"\[")):
            run_system("real_voices", folder / override, config)
    verdicts = SYSTEM.verdicts({"recordings.first": 0.95})
    assert list(verdicts.values()).count("not measured") == len(SYSTEM.targets) - 1
