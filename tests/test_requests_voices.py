"""Voices that are known in one form alone, samples without a rate, and answers of several pieces as ids."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command import refused, works
from tests.support.tiny_model import RATE, speech, tiny_model
from unitok.inputs import recording_seconds
from unitok.many.answers import _plain_name
from unitok.many.inputs import Input
from unitok.model import Model
from unitok.requests.answer_steps import Voices, piece_request
from unitok.requests.prompt_request import PromptRequest
from unitok.requests.request import Request
from unitok.results import Result
from unitok.token_files import ids_by_kind, lines_of, speech_ids
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.grammar.sequence import Span


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def test_ids_of_pieces_are_one_behind_the_other() -> None:
    pieces = [
        (Span("text", np.array([n])), Span("units", np.array([n, n + 1])), Span("codes", np.full((2, 3), n)))
        for n in (1, 5)
    ]
    result = Result(text="a b", texts=("a b",), outputs=(*pieces[0], *pieces[1]))
    found = ids_by_kind(result.outputs)
    assert found["units"].tolist() == [1, 2, 5, 6] and found["codes"].shape == (4, 3)
    ids = speech_ids(result)
    assert ids is not None and np.array_equal(ids, found["codes"])
    lines = lines_of(result, result.texts)  # one text of all pieces
    assert lines[0] == "a b" and len(lines) == 5
    assert speech_ids(Result(text="a", texts=("a",), outputs=pieces[0][:1])) is None


def test_ids_of_a_long_text_are_those_of_all_its_sentences(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    common = ("--task", "tts", "--lang", "en", "--output", "units", "--max-tokens", 12)
    sizes = []
    for number, text in enumerate(("the green house stands here.", "we buy two books now.")):
        works("generate", tmp_path / "m", text, *common, "-o", tmp_path / f"{number}.npy")
        sizes.append(len(np.load(tmp_path / f"{number}.npy")))
    both = "the green house stands here. we buy two books now."
    works("generate", tmp_path / "m", both, *common, "-o", tmp_path / "both.npy")
    assert len(np.load(tmp_path / "both.npy")) == sum(sizes)


def test_a_voice_that_is_known_in_one_form_is_not_dropped(model: Model) -> None:
    assert model.vocoder is not None and model.voices == ["anna"]
    codes_only = replace(model, prompts={"carl": model.prompts["anna"], **model.prompts})
    assert codes_only.voices_of("codes") == ["anna", "carl"] and codes_only.voices_of("units") == ["anna"]
    ask = Request(task="tts", source="en", text="the green house", voice="carl", output="units")
    with pytest.raises(InputError, match="nothing is known of voice 'carl' but codes"):
        codes_only.answer(ask)
    units_only = replace(model, prompts={"carl": model.prompts["anna"]})
    with pytest.raises(InputError, match="there are no codes of voice 'anna'"):
        units_only.answer(replace(ask, voice="anna", output="codes"))


def test_samples_alone_are_at_the_rate_of_the_tokenizers(model: Model) -> None:
    assert model.vocoder is not None
    sound = speech(2.0)
    for one in (model.voice_prompt, model.voice_vector):
        alone, told = one(sound), one((sound, RATE))
        first, second = ((np.asarray(x[0].content) if isinstance(x, tuple) else np.asarray(x)) for x in (alone, told))
        assert np.array_equal(first, second)
    other = model.with_rate((sound, 24_000))
    assert isinstance(other, tuple) and other[1] == 24_000


@pytest.mark.parametrize("audio", [(speech(0.5), 0), (speech(0.5),), (16000, speech(0.5)), (speech(0.5), "16000")])
def test_one_bad_recording_leaves_the_others_answered(audio: tuple[object, ...], model: Model) -> None:
    good = Request(task="asr", source="en", audio=speech(0.5))
    found = dict(model.answer_many([good, replace(good, audio=audio), good]))  # type: ignore[arg-type]
    assert isinstance(found[1], InputError) and not isinstance(found[0], InputError)
    assert not isinstance(found[2], InputError)
    with pytest.raises(InputError):
        recording_seconds(audio, RATE)  # type: ignore[arg-type]


def test_what_is_said_in_a_voice_is_read_in_each_language(model: Model, tmp_path: Path) -> None:
    """Numbers are other words in another language, whose letters may be unknown; requests share a voice, not those."""
    write_audio(tmp_path / "voice.wav", speech(1.0), RATE)
    told = Request(task="vtts", source="en", text="the", voice=str(tmp_path / "voice.wav"), voice_text="the 2 books")
    voices = Voices()
    assert piece_request(model, told, voices).voice.transcript == "the two books" and len(voices) == 1
    with pytest.raises(InputError, match="to say '2'.*in de"):
        piece_request(model, replace(told, source="de"), voices)
    with pytest.raises(InputError, match="is not UTF-8"):
        model.answer(replace(told, voice_text="a\udcffb"))


def test_devices_and_inputs_are_not_written_over(model: Model, tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    for write in (lambda: write_audio(fifo, speech(0.1), RATE), lambda: atomic_write_bytes(fifo, b"x")):
        with pytest.raises(InputError, match="no file"):
            write()
    assert fifo.is_fifo()
    model.save(tmp_path / "m")
    folder = tmp_path / "rec"
    write_audio(folder / "a.wav", speech(0.6), RATE)
    write_audio(folder / "b.wav", speech(0.7), RATE)
    before = (folder / "a.wav").read_bytes()
    ask = ("--task", "s2st", "--source", "en", "--target", "de", "--max-tokens", 8)
    message = refused("generate", tmp_path / "m", folder / "a.wav", folder / "b.wav", *ask, "-o", f"{folder}/")
    assert "a.wav" in message and (folder / "a.wav").read_bytes() == before
    (folder / "results.jsonl").touch()
    (folder / "results.request.json").write_text(json.dumps({"format": 1, "request": {}}))
    message = refused("generate", tmp_path / "m", folder / "a.wav", folder / "b.wav", *ask, "-o", f"{folder}/")
    assert "it is an input" in message and (folder / "a.wav").read_bytes() == before


def test_names_of_answers_fit_any_file_system() -> None:
    assert len(_plain_name(Input(id="𐀀" * 80, shown="x")).encode()) <= 200


def test_a_file_of_somebody_beside_the_results_stays(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    (tmp_path / "texts.txt").write_text("the green house\nwe buy two books\n")
    (tmp_path / "batch.request.json").write_text('{"mine": 1}')
    ask = ("--task", "mt", "--source", "en", "--target", "de", "--max-tokens", 4)
    message = refused(
        "generate", tmp_path / "m", "--texts", tmp_path / "texts.txt", *ask, "-o", tmp_path / "batch.jsonl"
    )
    assert "batch.request.json" in message
    assert (tmp_path / "batch.request.json").read_text() == '{"mine": 1}'


def test_lengths_that_were_heard_are_told_by_every_way(model: Model) -> None:
    sound = speech(0.6)
    (batched,) = model.transcribe_batch([sound], lang="en")
    assert batched.heard_seconds == pytest.approx(0.6) == model.transcribe(sound, lang="en").heard_seconds
    ask = Request(task="s2tt", source="en", target="de", audio=sound, front_end="cascade")
    assert model.answer(ask).heard_seconds == pytest.approx(0.6)


def test_a_voice_that_nothing_speaks_in_is_refused(model: Model) -> None:
    ask = Request(task="tts", source="en", text="the green house", voice="anna", output="units")
    mute = replace(model, vocoder=None)
    with pytest.raises(InputError, match="voice changes nothing here"):
        mute.answer(ask)
    assert mute.answer(replace(ask, voice=None)).outputs


def test_a_model_of_plain_speech_goes_on_with_its_first_sentence(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has never seen a voice that stands apart: what it has said, and the text of that, is what the next begins
    with."""
    asked, run = list[PromptRequest](), Model.run

    def spy(self: Model, requests: Sequence[PromptRequest], **options: Any) -> list[Result]:
        asked.extend(requests)
        return [replace(one, finish_reason="eos") for one in run(self, requests, **options)]  # as if each had its end

    monkeypatch.setattr(Model, "run", spy)
    ask = Request(task="vtts", source="en", text="The green house. We buy two books.")
    apart = ["voice", "text"]
    learned = ({"tasks": ["vtts"]}, ["text"]), ({"tasks": ["vtts", "vtts.voice@en"]}, apart), ({}, apart)
    for info, kinds in learned:
        asked.clear()
        replace(model, info=info).answer(ask)
        assert [span.kind for span in asked[-1].plan.conditions] == kinds and len(asked) == 2
        assert bool(asked[-1].transcript) == bool(asked[-1].plan.forced) == (kinds == ["text"])
