"""Recordings of any length through every task that listens: pieces, joined answers, silence, voices."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.tiny_model import RATE, speech, tiny_model
from unitok.generation.length_limits import Limits
from unitok.listening.listener import WINDOW_SECONDS, Listener, windows
from unitok.listening.long_audio import Cutting
from unitok.model import Model
from unitok.requests.joined_results import PAUSE_SECONDS, join_results
from unitok.requests.request import Request
from unitok.results import Result
from unitok_tokenizers.errors import InputError


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model(limits=Limits(longest_seconds=2.0))


def sentences(count: int, gap: float = 0.3) -> np.ndarray:
    pause = np.zeros(round(gap * RATE), np.float32)
    return np.concatenate([part for seed in range(count) for part in (speech(1.2, seed), pause)])


def test_windows_are_the_recording_and_part_at_quiet_moments() -> None:
    made = np.concatenate([sentences(30), speech(25.0, 3)])
    parts = list(windows((made[i : i + 50_000] for i in range(0, len(made), 50_000)), RATE))
    assert np.array_equal(np.concatenate(parts), made) and all(len(one) <= WINDOW_SECONDS * RATE for one in parts)
    edge = len(parts[0])
    assert np.abs(made[edge - 800 : edge + 800]).max() == 0.0


def test_pieces_know_where_they_stood() -> None:
    silence = np.zeros(3 * RATE, np.float32)
    made = np.concatenate([silence, speech(1.0), silence, speech(1.0, 1), silence])
    listener = Listener(RATE, None, Cutting.of(2.5, overlap=False))
    found = list(listener.pieces([made]))
    assert len(found) == 2
    assert [listener.second(piece.start) for piece in found] == pytest.approx([2.7, 6.8], abs=0.3)
    assert all(0.9 <= len(piece.samples) / RATE <= 2.5 for piece in found)


def test_pauses_leave_an_utterance_whole_and_part_two() -> None:
    """Of a model that read single utterances of 2 s and joined rows of 6 s."""
    silence = np.zeros(RATE, np.float32)
    one = np.concatenate([silence, speech(0.9), silence, speech(0.9, 1), silence])
    two = np.concatenate([speech(1.6), silence[: RATE // 2], speech(1.6, 1)])

    def pieces(made: np.ndarray, whole: float) -> int:
        listener = Listener(RATE, None, Cutting.of(2.0, overlap=False), whole_seconds=whole)
        return len(list(listener.pieces([made])))

    assert (pieces(one, 6.0), pieces(two, 6.0)) == (1, 2)
    assert pieces(one, 2.5) == pieces(two, 2.5) == 2, "no row of the training was that long"


@pytest.mark.parametrize("longest", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("overlap", [True, False])
def test_cutting_follows_what_was_learned(longest: float, overlap: bool) -> None:
    cutting = Cutting.of(longest, overlap=overlap)
    said = np.tile(speech(0.1, 3), round(30 * max(longest, 1.0) + 10))  # without a pause
    made = np.concatenate([np.zeros(RATE, np.float32), said, np.zeros(RATE, np.float32)])
    pieces = list(Listener(RATE, None, cutting).pieces([made]))
    assert len(pieces) >= 3 and max(len(piece.samples) for piece in pieces) <= max(longest, 1.0) * RATE
    assert any(piece.overlap for piece in pieces) == overlap


def test_every_task_that_listens_answers_all_of_a_long_recording(model: Model) -> None:
    made = sentences(5)
    alone = [model.translate(speech(1.2, seed), source="en", target="de") for seed in range(5)]
    whole = model.translate(made, source="en", target="de")
    assert len(whole.trace) == len(whole.outputs) == 5 == sum(len(one.outputs) for one in alone)
    assert len(model.transcribe(made, lang="en").trace) == 5
    spoken = model.translate_speech(made, source="en", target="de", voice="anna")
    assert len(spoken.texts) == 2 and len(spoken.outputs) == 15 and spoken.audio is not None
    assert len(model.generate("s2tt", source="en", target="de", audio=made).trace) == 5
    *chunks, last = model.stream(
        Request(task="s2st", source="en", target="de", audio=made, voice="anna", flags=("<chain>",))
    )
    assert last.result is not None and last.result.audio is not None
    assert len(np.concatenate([chunk.audio for chunk in chunks])) == len(last.result.audio)
    for output, text in enumerate(last.result.texts):  # the spaces between the pieces too
        assert "".join(chunk.text for chunk in chunks if chunk.output == output).strip() == text
    *chunks, last = model.stream(Request(task="asr", source="en", audio=made))
    assert last.result is not None and len(last.result.outputs) == 5
    assert "".join(chunk.text for chunk in chunks).split() == (last.result.text or "").split()


@pytest.mark.parametrize("kind", ["zeros", "noise", "one sample", "offset"])
def test_where_nothing_is_spoken_the_answer_is_empty(model: Model, kind: str) -> None:
    noise = np.random.default_rng(0).normal(0, 10 ** (-65 / 20), 2 * RATE).astype(np.float32)
    made = {
        "zeros": np.zeros(RATE, np.float32),
        "noise": noise,
        "one sample": np.ones(1, np.float32),
        "offset": np.full(RATE, 0.1, np.float32),
    }[kind]
    assert model.transcribe(made, lang="en").text == ""
    assert model.translate(made, source="en", target="de").text == ""
    assert model.translate_speech(made, source="en", target="de").text == ""
    (only,) = model.stream(Request(task="asr", source="en", audio=made))
    assert only.result is not None and only.result.text == ""
    with pytest.raises(InputError, match="nothing is spoken"):
        model.voice_prompt(made)
    with pytest.raises(InputError, match="nothing is spoken"):
        model.synthesize("the house", lang="en", voice=made, output="units")


def test_a_voice_is_what_is_spoken(model: Model) -> None:
    made = speech(1.5, 4)
    lead = np.concatenate([np.zeros(round(2.2 * RATE), np.float32), made])
    (plain,), (late,) = model.voice_prompt(made), model.voice_prompt(lead)
    assert abs(len(plain) - len(late)) <= 7  # the margin in front of what is spoken
    vectors = [model.voice_vector(one) for one in (made, lead)]
    assert all(isinstance(one, np.ndarray) for one in vectors)
    alike = float(np.dot(*vectors) / np.prod([np.linalg.norm(one) for one in vectors]))  # type: ignore[call-overload]
    assert alike > 0.9


def test_answers_are_joined() -> None:
    tone = np.ones(100, np.float32)
    first = Result(text="b", texts=("a", "b"), audio=tone, sample_rate=1000, ids=np.arange(3), score=-1.0)
    second = Result(text="d", texts=("c", "d"), audio=tone, sample_rate=1000, ids=np.arange(2), finish_reason="length")
    both = join_results([first, second])
    assert both.text == "b d" and both.texts == ("a c", "b d") and both.finish_reason == "length"
    assert both.audio is not None and len(both.audio) == 200 + round(PAUSE_SECONDS * 1000)
    assert both.ids.tolist() == [0, 1, 2, 0, 1] and join_results([first]) is first
    assert join_results([Result(text="x"), Result(text="y")]).audio is None


def test_places_do_not_drift_over_many_pauses() -> None:
    """At every seam a few milliseconds are faded into each other."""
    gap, count = np.zeros(2 * RATE, np.float32), 100
    made = np.concatenate([part for seed in range(count) for part in (speech(1.0, seed), gap)])
    listener = Listener(RATE, None, Cutting.of(2.5, overlap=False))
    found = [listener.second(piece.start) for piece in listener.pieces([made])]
    onsets = 3.0 * np.arange(count)
    assert len(found) >= count // 2
    assert max(np.abs(onsets - second).min() for second in found) < 0.5 and found[-1] > onsets[-2]
