"""Many requests in batches are answered as each is alone, wherever they stand and whatever stands beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.answers import front_end
from tests.support.tiny_model import RATE, speech, tiny_model
from unitok.generation.sampling import Sampling
from unitok.inputs import Excerpt
from unitok.model import Model
from unitok.requests import many
from unitok.requests.request import GenerationConfig, Request
from unitok.results import Result
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError

TEXT = "the green house stands here. we buy two books now. she sings."
DRAWN = Sampling(temperature=0.9, top_k=20)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def asked(task: str, **given: object) -> Request:
    return Request(task=task, source="en", **given)  # type: ignore[arg-type]


def drawn(seed: int) -> GenerationConfig:
    return GenerationConfig(sampling=DRAWN, seed=seed)


def unlike(wav: Path) -> list[Request]:
    """Requests of every kind, lengths and ways of looking for an answer mixed."""
    write_audio(wav, speech(1.5, 3), RATE)
    long = np.concatenate([speech(8.0, 3), speech(6.0, 1)])
    return [
        *(asked("asr", audio=speech(0.3 + 0.2 * seed, seed)) for seed in range(5)),
        asked("asr", audio=long),
        asked("asr", audio=speech(0.7), config=GenerationConfig(beams=3)),
        asked("asr", audio=speech(0.7, 2), config=GenerationConfig(beams=2)),
        asked("asr", audio=speech(0.7, 2), config=drawn(1)),
        asked("asr", audio=speech(0.7, 2), config=drawn(2)),
        asked("asr", audio=np.zeros(RATE, np.float32)),
        asked("asr", audio=np.array([1, 2, 3, 2, 1])),
        asked("asr", audio=wav),
        asked("asr", audio=Excerpt(path=wav, offset=0.5, seconds=0.6)),
        asked("mt", target="de", text=TEXT),
        asked("mt", target="de", text=TEXT, config=GenerationConfig(beams=3)),
        asked("lm", text="the green", config=drawn(3)),
        asked("tts", text=TEXT, output="codes"),
        asked("tts", text="the green", output="units", voice="anna"),
        asked("s2st", target="de", audio=speech(0.6)),
        asked("chat", audio=speech(0.6, 4)),
        asked("ask", audio=speech(0.6, 4), text="which word is last"),
    ]


def same(one: Result | InputError, other: Result) -> None:
    assert isinstance(one, Result), one
    assert one.ids.tolist() == other.ids.tolist()
    assert (one.texts, one.trace, one.finish_reason) == (other.texts, other.trace, other.finish_reason)
    assert one.heard_seconds == other.heard_seconds
    assert [text for text, _ in one.nbest] == [text for text, _ in other.nbest]
    np.testing.assert_allclose([s for _, s in one.nbest], [s for _, s in other.nbest], atol=1e-4)
    assert (one.audio is None) == (other.audio is None)
    if one.audio is not None:
        np.testing.assert_allclose(one.audio, other.audio, atol=1e-3)


@pytest.fixture(scope="module")
def each(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Request], list[Result]]:
    """Requests of every kind, and what each is answered alone."""
    requests = unlike(tmp_path_factory.mktemp("many") / "a.wav")
    return requests, [model.answer(request) for request in requests]


def test_answers_are_those_of_each_alone(model: Model, each: tuple[list[Request], list[Result]]) -> None:
    requests, alone = each
    found = dict(model.answer_many(requests, batch=6))
    assert sorted(found) == list(range(len(requests)))
    for place, result in enumerate(alone):
        same(found[place], result)
    assert alone[13].heard_seconds == 0.6 and alone[12].heard_seconds == 1.5 and alone[11].heard_seconds == 0
    turned = dict(model.answer_many(reversed(requests), batch=3))
    for place, result in enumerate(reversed(alone)):
        same(turned[place], result)


def test_windows_and_places_left_free(
    model: Model, each: tuple[list[Request], list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "WINDOW", 4)
    monkeypatch.setattr(many, "ENCODED_SECONDS", 1.0)
    monkeypatch.setattr(many, "LONG_SECONDS", 1.0)
    monkeypatch.setattr(many, "LONG_AT_ONCE", 1)
    requests, alone = each
    kept = [request if place % 3 else None for place, request in enumerate(requests)]
    found = dict(model.answer_many(kept))
    assert sorted(found) == [place for place in range(len(requests)) if place % 3]
    for place, one in found.items():
        same(one, alone[place])


def test_memory_bounds_what_runs_together(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [asked("asr", audio=speech(0.4 + 0.1 * seed, seed)) for seed in range(4)]
    monkeypatch.setattr(many, "CACHE_BYTES", 1)
    running: list[int] = []
    step = many._Answering._step

    def counted(self: many._Answering) -> object:
        running.append(len(self.running))
        return step(self)

    monkeypatch.setattr(many._Answering, "_step", counted)
    found = dict(model.answer_many(requests))
    assert set(running) == {1}
    for place, request in enumerate(requests):
        same(found[place], model.answer(request))


def test_a_latent_front_end_reads_many(model: Model) -> None:
    latent = replace(model, latent=front_end("conformer", "linear"))
    requests = [asked("asr", audio=speech(0.4 + 0.2 * seed, seed), front_end="latent") for seed in range(4)]
    requests.append(asked("asr", audio=speech(0.5, 9)))  # tokens, beside them
    found = dict(latent.answer_many(requests))
    for place, request in enumerate(requests):
        same(found[place], latent.answer(request))


def test_errors_are_of_their_requests_alone(model: Model, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF1234")
    requests = [
        asked("asr", audio="nowhere.wav"),
        asked("asr", audio=speech(0.5)),
        asked("asr", audio=tmp_path / "broken.wav"),
        asked("asr", audio=np.array([1, 999])),
        asked("asr", audio=np.array([1, 2, 1])),
        Request(task="asr", source="xx", audio=speech(0.5)),
        asked("mt", text="no target"),
        asked("asr", audio=speech(2.0), config=GenerationConfig(max_seconds=1.0)),
        asked("mt", target="de", text=""),
        asked("tts", text="the green", voice="nobody"),
        asked("asr", audio=speech(0.5), config=GenerationConfig(max_tokens=1)),
        asked("s2tt", target="de", audio=speech(0.5), front_end="cascade"),
        asked("s2tt", target="de", audio="nowhere.wav", front_end="cascade"),
        asked("asr", audio=np.zeros(16000, np.int16)),  # neither samples nor ids
    ]
    found = dict(model.answer_many(requests))
    for place, request in enumerate(requests):
        if place in (1, 4, 11):
            assert isinstance(found[place], Result)
            continue
        with pytest.raises(InputError) as alone:
            model.answer(request)
        assert isinstance(found[place], InputError) and str(found[place]) == str(alone.value)
    same(found[1], model.answer(requests[1]))


def test_requests_are_taken_as_they_are_needed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "WINDOW", 2)
    taken: list[int] = []

    def endless() -> Iterator[Request]:
        while True:
            taken.append(len(taken))
            yield asked("asr", audio=speech(0.3, len(taken) % 3))

    answers = model.answer_many(endless())
    first = [next(answers) for _ in range(3)]
    assert sorted(place for place, _ in first)[:2] == [0, 1] and len(taken) <= 6
    answers.close()  # type: ignore[attr-defined]
    assert not [one for one in threading.enumerate() if one.name.startswith("read ahead")]
    with pytest.raises(InputError, match="batch is 0"):
        model.answer_many([], batch=0)
    assert list(model.answer_many([])) == []


def test_a_recording_may_be_no_longer_than_allowed(model: Model, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", speech(2.0), RATE)
    for audio in (tmp_path / "a.wav", Excerpt(path=tmp_path / "a.wav", offset=0.5), (speech(2.0), RATE)):
        for task, more in (("asr", {}), ("chat", {}), ("s2tt", {"target": "de", "front_end": "cascade"})):
            request = asked(task, audio=audio, config=GenerationConfig(max_seconds=1.4), **more)
            with pytest.raises(InputError, match="max_seconds is 1.4"):
                model.answer(request)
        assert model.answer(asked("asr", audio=audio, config=GenerationConfig(max_seconds=2.0))).text is not None
    with pytest.raises(InputError, match="max_seconds is 1.4"):
        model.stream(asked("asr", audio=tmp_path / "a.wav", config=GenerationConfig(max_seconds=1.4)))
    for wrong in (0.0, -1.0, float("nan"), float("inf"), "2", True):
        with pytest.raises(InputError, match="max_seconds is"):
            model.answer(asked("asr", audio=speech(0.3), config=GenerationConfig(max_seconds=wrong)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_seconds changes nothing"):
        model.answer(asked("asr", audio=np.array([1, 2]), config=GenerationConfig(max_seconds=1.0)))
