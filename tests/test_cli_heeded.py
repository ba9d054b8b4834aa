"""Every option of `generate` is honored or refused by its name, for every task and way of reading speech."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import unitok
from tests.support.tiny_model import RATE, model_folder, speech
from unitok.cli.heeded import BY_TASK, DEFAULTS, check_heeded, heeded, spelled
from unitok.cli.main import build_parser
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError

TEXT = "the green house"
OF_REQUESTS = {"help", "input", "model", "task", "source", "compiled", "device", "precision"}
"""Options of every request."""
GIVEN = {
    "target": "de", "voice": "anna", "output": "units", "direct": True, "front_end": "tokens", "beams": 2,
    "temperature": 0.9, "top_k": 5, "top_p": 0.5, "seed": 3, "recognizer": "pocketsphinx", "synthesizer": "espeak",
    "units": "a.npy", "codes": "a.npy", "out": "a.wav",
}  # fmt: skip
"""A value of each option that is not its default."""
MUST_WORK = {
    ("asr", "beams"), ("asr", "front_end"), ("asr", "temperature"), ("asr", "units"), ("tts",
    "voice"), ("tts", "output"), ("tts", "temperature"), ("tts", "out"), ("s2tt", "target"),
    ("s2tt", "beams"), ("s2st", "direct"), ("s2st", "voice"), ("s2st", "out"), ("mt", "beams"),
    ("mt", "temperature"), ("lm", "temperature"), ("slm", "out"), ("slm", "units"), ("ilm",
    "temperature"), ("chat", "beams"),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    (commands,) = (one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return commands.choices["generate"]


def options_of(task: str, **given: object) -> argparse.Namespace:
    return argparse.Namespace(**{**DEFAULTS, "task": task, "source": "en", **given})


def test_every_option_is_known_here() -> None:
    actions = {action.dest: action.default for action in parser()._actions if action.dest not in OF_REQUESTS}
    assert actions == DEFAULTS and set(GIVEN) == set(DEFAULTS)
    (task,) = (action for action in parser()._actions if action.dest == "task")
    assert set(task.choices or ()) == set(BY_TASK)


WAYS = [(task, None) for task in BY_TASK] + [
    (task, front_end) for front_end in ("tokens", "latent", "cascade") for task in ("asr", "s2tt", "s2st")
]


@pytest.mark.parametrize(("task", "front_end"), WAYS)
def test_it_is_honored_or_refused_by_its_name(task: str, front_end: str | None) -> None:
    for option, value in GIVEN.items():
        if option == "front_end":
            continue
        more = {"temperature": 0.5} if option in ("top_k", "top_p", "seed") else {}
        options = options_of(task, **{"front_end": front_end, **more, option: value})
        if option in heeded(options) and set(more) <= heeded(options):
            check_heeded(options)
        else:
            with pytest.raises(InputError, match=f"{spelled(option)} changes|--temperature changes"):
                check_heeded(options)


def test_those_that_must_work_do() -> None:
    assert {(task, option) for task, option in MUST_WORK if option not in heeded(options_of(task))} == set()


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(InputError, match="--top-k is of draws"):
        check_heeded(options_of("mt", top_k=3))
    with pytest.raises(InputError, match="--beams searches"):
        check_heeded(options_of("mt", beams=2, temperature=1.0))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heeded")
    model_folder(folder / "m")
    write_audio(folder / "a.wav", speech(0.9, seed=3), RATE)
    return folder


def says(place: Path, *words: object) -> object:
    """What a request answers: what it prints, and its ids where it speaks."""
    ended = unitok("generate", place / "m", *words)
    assert ended.code == 0, ended
    out = place / "out.json"
    return ended.out, json.loads(out.read_text("utf-8")) if "-o" in words else None


def test_options_change_the_answer(place: Path) -> None:
    wav, out = place / "a.wav", ("-o", place / "out.json")
    asr = (wav, "--task", "asr", "--lang", "en")
    assert says(place, *asr) != says(place, *asr, "--temperature", "2", "--seed", "1")
    assert says(place, *asr, "--temperature", "2", "--seed", "1") != says(
        place, *asr, "--temperature", "2", "--seed", "2"
    )
    tts = (TEXT, "--task", "tts", "--lang", "en", *out)
    assert says(place, *tts) != says(place, *tts, "--output", "units")
    st = (wav, "--task", "s2st", "--source", "en", "--target", "de", *out)
    assert says(place, *st) != says(place, *st, "--direct")


def test_the_command_refuses_before_a_model_is_read(place: Path) -> None:
    ended = unitok("generate", place / "none", TEXT, "--task", "tts", "--lang", "en", "--beams", "4")
    assert ended.code == 2 and "--beams changes nothing for task tts" in ended.err
    np.testing.assert_equal(ended.out, "")
