"""Speech by the voice of a prompt: shown apart, or continued with what is said in it."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import toy_shards
from tests.support.command import refused
from tests.support.command import unitok as run_command
from tests.support.tiny_model import RATE, model_folder, speech, tiny_model
from tests.support.toy_shards import ToyShards
from unitok.generation.length_limits import Limits
from unitok.model import Model
from unitok.requests.answer_steps import LONGEST_BEGINNING
from unitok.requests.long_text import _with_text
from unitok.requests.request import GenerationConfig, Request, check_request
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture

TEXT, SAID = "the green house", "We buy two books."
TWO = "The green house stands here. We buy two books now!"
PROMPT = (speech(0.8, seed=4), RATE)


@pytest.fixture(scope="module")
def model() -> Model:
    """With weights so large that every id of a prompt matters, and answers that are short."""
    limits = Limits(longest_text=40, units_per_text=0.5, floor=4)
    made = tiny_model(characters={"en": string.ascii_lowercase + " "}, limits=limits)
    with torch.no_grad():
        for parameter in made.decoder.parameters():
            parameter.mul_(4.0 if parameter.ndim == 2 else 1.0)
    return made


def asked(**given: Any) -> Request:
    return Request(**{"task": "vtts", "source": "en", "text": TEXT, **given})


def codes_of(spans: tuple[Span, ...]) -> np.ndarray:
    (codes,) = (span.content for span in spans if span.kind == "codes")
    return codes


def test_a_voice_is_shown_apart_from_the_answer(model: Model) -> None:
    for voice in ("anna", PROMPT):
        plan = model.prompt_request(asked(voice=voice)).plan
        assert [span.kind for span in plan.conditions] == ["voice", "text"] and not plan.outputs and not plan.forced
    assert [span.kind for span in model.prompt_request(asked()).plan.conditions] == ["text"]
    result = model.answer(asked(voice="anna"))
    assert [span.kind for span in result.outputs] == ["codes"] and result.audio is not None
    assert codes_of(result.outputs).tolist() != codes_of(model.answer(asked(voice=PROMPT)).outputs).tolist()


def test_an_answer_continues_a_prompt_behind_what_is_said_in_it(model: Model) -> None:
    request = model.prompt_request(asked(voice=PROMPT, voice_text=SAID))
    assert request.transcript == "we buy two books" and model.codec is not None
    (begun,) = request.plan.outputs
    assert len(begun) == request.plan.forced > 10 and [one.kind for one in request.plan.conditions] == ["text"]
    result = model.answer(asked(voice=PROMPT, voice_text=SAID))
    made, frames = codes_of(result.outputs), result.ids
    assert frames is not None and len(frames) == made.size + 2, "codes, their end and that of the sequence"
    assert result.audio is not None
    assert np.array_equal(result.audio, model.speak((Span("codes", made),)))


def test_the_prompt_of_a_continuation_is_its_transcript_the_text_and_its_codes(model: Model) -> None:
    request = model.prompt_request(asked(voice=PROMPT, voice_text=SAID))
    ids = model.token_request(_with_text(model, request, TEXT)).prompt
    text = model.tokenizers.text.encode("we buy two books the green house")
    marks = [model.vocabulary.control(f"<{name}>") for name in ("bos", "vtts", "text", "/text", "gen:codes")]
    codes = [model.vocabulary.to_ids("codes", request.plan.outputs[0].content[:, q], q) for q in range(3)]
    language = model.vocabulary.language("en")
    wanted = [*marks[:2], language, marks[2], *text, *marks[3:], *np.stack(codes, 1).flatten()]
    assert ids.tolist() == wanted


def test_codes_are_a_prompt_too_and_matter(model: Model) -> None:
    assert model.codec is not None
    codes = model.codec.encode(PROMPT[0])
    turned = codes[::-1].copy()
    said = [(codes, SAID), (turned, SAID), (codes, "she sings")]
    scores = [model.answer(asked(voice=voice, voice_text=text)).score for voice, text in said]
    assert len(set(scores)) == 3, "the recording and its transcript are read"
    assert scores[0] == model.answer(asked(voice=codes, voice_text=SAID)).score


def test_every_sentence_of_a_long_text_continues_the_same_prompt(model: Model) -> None:
    whole = model.answer(asked(text=TWO, voice=PROMPT, voice_text=SAID))
    parts = [
        model.answer(asked(text=text, voice=PROMPT, voice_text=SAID))
        for text in ("the green house stands here", "we buy two books now")
    ]
    spans = [span.content.tolist() for span in whole.outputs if span.kind == "codes"]
    assert spans == [codes_of(one.outputs).tolist() for one in parts]


def test_streamed_and_among_many_it_is_the_same(model: Model) -> None:
    requests = [asked(text=text, voice=PROMPT, voice_text=SAID) for text in (TEXT, "she sings")]
    alone = [codes_of(model.answer(one).outputs).tolist() for one in requests]
    many = {place: found for place, found in model.answer_many(requests)}
    assert [codes_of(many[place].outputs).tolist() for place in range(2)] == alone  # type: ignore[union-attr]
    last = [*model.stream(requests[0])][-1].result
    assert last is not None and codes_of(last.outputs).tolist() == alone[0]


def test_a_voice_text_that_says_nothing_of_a_recording_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'anna' is a known speaker"):
        model.answer(asked(voice="anna", voice_text=SAID))
    with pytest.raises(InputError, match="voice_text changes nothing for task vtts without voice"):
        check_request(asked(voice_text=SAID))
    with pytest.raises(InputError, match="voice_text changes nothing for task tts"):
        check_request(asked(task="tts", voice=PROMPT, voice_text=SAID))
    with pytest.raises(InputError, match="the text is empty"):
        model.answer(asked(voice=PROMPT, voice_text=" "))
    with pytest.raises(InputError, match="voice_text is 3: give a string"):
        check_request(asked(voice=PROMPT, voice_text=3))
    write_audio(tmp_path / "long.wav", speech(LONGEST_BEGINNING + 1), RATE)
    with pytest.raises(InputError, match=r"voice lasts 16.0 s: an answer continues 15 s at most"):
        model.answer(asked(voice=str(tmp_path / "long.wav"), voice_text=SAID))


def test_codes_alone_may_be_as_long_as_codes_behind_units() -> None:
    limits, text = Limits(), Span("text", np.arange(20))
    alone = limits.of(SequenceSpec("vtts", "en", conditions=(text,)))
    behind = limits.of(SequenceSpec("tts", "en", None, ("<out:codes>",), (text,)))
    assert alone == behind[1:] and alone[0] > limits.of(SequenceSpec("vtts", "en", conditions=(Span("text", [1]),)))[0]
    begun = SequenceSpec("vtts", "en", conditions=(text,), outputs=(Span("codes", np.zeros((30, 3), int)),), forced=30)
    assert limits.of(begun) == [alone[0] + 30]


def test_shards_make_examples_with_a_voice_and_without() -> None:
    shards: Any = ToyShards(toy_shards.corpus())
    for key, voiced in (("vtts", False), ("vtts.voice", True)):
        source = ExampleSource(shards, toy_shards.vocabulary(), Mixture(tasks={key: 1.0}), seed=5)
        plans = [source.plan(index) for index in range(12)]
        assert {one.task for one in plans} == {"vtts"} and {one.outputs[0].kind for one in plans} == {"codes"}
        assert any(one.conditions[0].kind == "voice" for one in plans) is voiced
        assert all(one.conditions[-1].kind == "text" and len(one.outputs) == 1 for one in plans)


def test_the_command_continues_a_recording(tmp_path: Path) -> None:
    model_folder(tmp_path / "m")
    write_audio(tmp_path / "voice.wav", PROMPT[0], RATE)
    line = ("generate", tmp_path / "m", TEXT, "--task", "vtts", "--lang", "en", "-o", tmp_path / "out.json")
    voice = ("--voice", tmp_path / "voice.wav")
    found = []
    for words in ((), voice, (*voice, "--voice-text", SAID)):
        ended = run_command(*line, *words, "--max-tokens", "200")
        assert ended.code == 0, ended
        found.append(json.loads((tmp_path / "out.json").read_text("utf-8")))
    assert found[0] != found[1] != found[2] != found[0]
    refused(*line, "--voice-text", SAID, saying="--voice-text changes nothing for task vtts without --voice")


def test_a_limit_counts_what_is_made_alone(model: Model) -> None:
    config = GenerationConfig(max_tokens=20)
    result = model.answer(asked(voice=PROMPT, voice_text=SAID, config=config))
    assert result.ids is not None and len(result.ids) <= 20 and len(codes_of(result.outputs)) == 6
    assert result.finish_reason == "length"
