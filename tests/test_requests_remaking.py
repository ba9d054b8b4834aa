"""Speech that is said again: without noise, one of two talkers, with other words, in another voice."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command import refused, works
from tests.support.tiny_model import RATE, model_folder, speech, tiny_model
from unitok.generation.length_limits import Limits
from unitok.model import Model
from unitok.requests.request import GenerationConfig, Request, check_request
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import Span

SOUND = (np.concatenate([np.zeros(RATE // 2, np.float32), speech(1.0, seed=4)]), RATE)
"""Half a second of silence first: tasks that read what is spoken would leave it out."""
OTHER = (speech(0.8, seed=7), RATE)
TEXT = "the green house"


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(limits=Limits(floor=4, units_per_text=0.5))


def asked(task: str, **given: Any) -> Request:
    config = GenerationConfig(max_tokens=400)
    return Request(**{"task": task, "source": "en", "audio": SOUND, "config": config, **given})


def codes_of(model: Model, request: Request) -> list[tuple[str, int]]:
    return [(span.kind, len(span)) for span in model.prompt_request(request).plan.conditions]


def answered(model: Model, request: Request) -> np.ndarray:
    result = model.answer(request)
    assert result.audio is not None
    (span,) = result.outputs
    assert span.kind == "codes"
    return span.content


def test_noise_is_taken_from_all_of_a_recording(model: Model) -> None:
    assert model.codec is not None
    frames = len(model.codec.encode(SOUND[0]))
    assert codes_of(model, asked("se")) == codes_of(model, asked("sr")) == [("codes", frames)]
    assert [kind for kind, _ in codes_of(model, asked("se", text=TEXT))] == ["text", "codes"]
    assert 0 < len(answered(model, asked("se", config=GenerationConfig()))) <= frames + model.limits.floor
    given = model.codec.encode(SOUND[0])
    assert answered(model, asked("se", audio=given)).tolist() == answered(model, asked("se")).tolist()


def test_whose_speech_is_wanted_stands_first(model: Model) -> None:
    for voice in ("anna", OTHER):
        kinds = [kind for kind, _ in codes_of(model, asked("tse", voice=voice, text=TEXT))]
        assert kinds == ["voice", "text", "codes"]
    scores = {model.answer(asked("tse", voice=voice)).score for voice in ("anna", OTHER)}
    assert len(scores) == 2, "the voice is read"


def test_an_edit_changes_what_is_cut_and_nothing_else(model: Model) -> None:
    assert model.codec is not None
    whole, rate = model.codec.encode(SOUND[0]), float(model.vocabulary.streams["codes"].frame_rate or 0)
    for begin, end in ((0.4, 0.9), (0.0, 0.5), (1.0, 1.5), (0.7, 0.7)):
        request = asked("edit", text=TEXT, cut=(begin, end))
        plan = model.prompt_request(request).plan
        assert [span.kind for span in plan.conditions] == ["text", "codes", "codes"]
        before, behind = (span.content for span in plan.conditions[1:])
        assert len(before) and len(behind) and abs(len(before) - begin * rate) <= 1
        assert np.array_equal(before, whole[: len(before)]) and np.array_equal(behind, whole[-len(behind) :])
        made = answered(model, request)
        assert len(made) > len(before) + len(behind), "something is said there"
        assert np.array_equal(made[: len(before)], before) and np.array_equal(made[-len(behind) :], behind)


def test_a_recording_is_converted_through_its_units(model: Model) -> None:
    result = model.answer(asked("vc", voice=OTHER))
    assert {span.kind for span in result.outputs} == {"codes"} and result.audio is not None
    assert model.answer(asked("vc", voice="anna")).score != result.score
    units = model.units_of([SOUND])[0]
    plan = model.prompt_request(asked("vc", voice="anna", audio=units)).plan
    assert [span.kind for span in plan.conditions] == ["voice", "units"]


def test_many_are_answered_as_one_is(model: Model) -> None:
    requests = [
        asked("se"),
        asked("edit", text=TEXT, cut=(0.4, 0.9)),
        asked("tse", voice="anna"),
        asked("se", text=TEXT),
    ]
    found = dict(model.answer_many(requests))
    for place, request in enumerate(requests):
        result = found[place]
        assert not isinstance(result, InputError)
        assert [one.content.tolist() for one in result.outputs] == [answered(model, request).tolist()]
    last = [*model.stream(requests[1])][-1].result
    assert last is not None and last.outputs[0] == Span("codes", answered(model, requests[1]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "tse"}, "task tse needs voice, a known speaker or a recording"),
        ({"task": "vc"}, "task vc needs voice"),
        ({"task": "edit", "text": TEXT}, "task edit needs cut"),
        ({"task": "edit", "cut": (0.1, 0.2)}, "task edit needs text"),
        ({"task": "edit", "text": TEXT, "cut": (0.3, 0.2)}, "seconds that rise"),
        ({"task": "edit", "text": TEXT, "cut": [0.1, 0.2]}, "seconds that rise"),
        ({"task": "se", "audio": None, "text": TEXT}, "says a recording again; give audio"),
        ({"task": "se", "voice": "anna"}, "voice changes nothing for task se"),
        ({"task": "se", "cut": (0.1, 0.2)}, "cut changes nothing for task se"),
        ({"task": "se", "voice_text": TEXT}, "voice_text changes nothing for task se"),
        ({"task": "se", "front_end": "latent"}, "takes no vectors"),
        ({"task": "vc", "voice": "anna", "front_end": "cascade"}, "cascade translates speech"),
    ],
)
def test_what_a_task_lacks_or_does_not_take_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_request(Request(**{"source": "en", "audio": SOUND, **given}))


def test_a_cut_behind_the_end_and_a_voice_without_codes_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match=r"cut is 1 to 9 s: the recording lasts 1\.\d+ s"):
        model.answer(asked("edit", text=TEXT, cut=(1.0, 9.0)))
    silent = tiny_model(prompts={})
    with pytest.raises(InputError, match="there are no codes of voice 'anna'"):
        silent.answer(asked("tse", voice="anna"))


def test_the_command_says_a_recording_again(tmp_path: Path) -> None:
    model_folder(tmp_path / "m")
    write_audio(tmp_path / "a.wav", *SOUND)
    line = ("generate", tmp_path / "m", tmp_path / "a.wav", "--lang", "en", "--max-tokens", "300", "--task")
    out = tmp_path / "out.wav"
    works(*line, "edit", "--text", TEXT, "--cut", "0.4", "0.9", "-o", out)
    assert out.is_file()
    refused(*line, "edit", "--text", TEXT, "-o", out, saying="task edit needs --cut")
    refused(*line, "tse", "-o", out, saying="task tse needs --voice")


def test_texts_of_remade_speech_are_said_in_what_was_learned() -> None:
    letters = string.ascii_lowercase + " "
    known = tiny_model(characters={"en": letters, "de": letters}, limits=Limits(floor=4, units_per_text=0.5))

    def text(said: str) -> list[int]:
        plan = known.prompt_request(asked("edit", text=said, cut=(0.4, 0.6))).plan
        return [one for span in plan.conditions if span.kind == "text" for one in span.content.tolist()]

    assert text("We buy two books!") == text("we buy two books") and text("2 books") == text("two books")
    with pytest.raises(InputError, match="☃"):
        text("a ☃")
