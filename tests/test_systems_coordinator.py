"""A coordinator taught on scripted turns: it does what is right with conversations of voices that it has never heard.

Run alone with `pytest tests/test_systems_coordinator.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_model import tiny_model
from unitok.model import Model
from unitok.pipelines.dialogue import LISTEN, SPEAK, STOP, Coordinator, turn_plan
from unitok_tokenizers.corpora.toy import TEST_VOICES, TRAIN_VOICES, build_sentences
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.tasks.base import STATES
from unitok_training.recipes.base import Shape
from unitok_training.systems.text.coordinator import CoordinatorConfig, conversations, coordinator_figures
from unitok_training.systems.text.dialogue_corpus import ScriptConfig, scripted

SIZES = CoordinatorConfig(
    questions=3,
    turns=180,
    test_turns=12,
    clusters=24,
    decoder=Shape(width=64, layers=2, heads=2),
    steps=250,
)
SENTENCES = build_sentences(train=3, test=0, dev=0, seed=0)


def test_scripts_are_what_they_promise() -> None:
    for script in conversations(SENTENCES, TRAIN_VOICES, 60, SIZES, stream=5):
        states = [right.state for _, right in script]
        assert all(right.text == "" for _, right in script if right.state != SPEAK)
        assert all(len(chunk) == 5120 for chunk, _ in script)
        loud = [float(np.abs(chunk).max()) > 0.05 for chunk, _ in script]
        for place, (state, now) in enumerate(zip(states, loud)):
            if state == SPEAK:
                assert not now and states[place - 1] in (LISTEN, SPEAK, STOP)
            if state == STOP:
                assert states[place - 1] == SPEAK
            if state == LISTEN and not now:
                assert place == 0 or not loud[place - 1], "who has asked gets an answer"
    interrupted = ScriptConfig(interrupted=1.0)
    pairs = [(one.text("qaa"), one.text("qab")) for one in SENTENCES]
    found = scripted(pairs, TEST_VOICES[0], interrupted, np.random.default_rng(0))
    assert all(float(np.abs(chunk).max()) > 0.05 for chunk, right in found if right.state == STOP)


@pytest.mark.slow
def test_a_coordinator_does_what_is_right_and_says_nothing_while_it_listens(tmp_path: Path) -> None:
    found = coordinator_figures(tmp_path, SIZES, report=lambda line: None)
    assert found["state_accuracy"] >= 0.95 and found["words_while_silent"] == 0, found
    assert found["state_accuracy"] > found["always_listen.state_accuracy"], found
    assert found["state_accuracy"] > found["deaf.state_accuracy"], found
    assert "turn" in Model.load(tmp_path / "model").info["tasks"]


def test_no_state_lets_words_through() -> None:
    """Whatever the weights: behind `<listen>`, and behind any state, the automaton allows nothing but the end."""
    model = tiny_model()
    prompt = render_prompt(turn_plan(model, "turn", "en", np.asarray([1, 2]), "the green"), model.vocabulary)
    control, size = model.vocabulary.control, model.vocabulary.size
    for state in STATES:
        automaton = Automaton(model.vocabulary, prompt, max_new_tokens=40)
        assert set(np.flatnonzero(automaton.mask(size))) == {control(name) for name in STATES}
        for token in (control(state), control("</state>"), model.vocabulary.eos):
            assert automaton.mask(size)[token]
            automaton.advance(token)
            assert automaton.mask(size).sum() == (not automaton.finished)
    with pytest.raises(InputError, match="one place of <listen>"):
        Span("state", np.asarray([3]))


class Told(Coordinator):
    """Decides what it is told to."""

    states = iter([LISTEN, SPEAK, SPEAK, STOP, LISTEN])

    def _state(self, units: np.ndarray) -> str:
        return next(self.states)


def test_words_come_from_the_answerer_and_only_in_speak() -> None:
    asked: list[str] = []

    def answer(units: np.ndarray, said: str) -> str:
        asked.append(said)
        return " two words "

    coordinator = Told(tiny_model(), "en", answer)
    chunk = np.full(4000, 0.1, np.float32)
    moments = list(coordinator.run([chunk] * 4))
    assert [(one.state, one.text) for one in moments] == [
        (LISTEN, ""), (SPEAK, "two words"), (SPEAK, "two words"), (STOP, "")
    ]  # fmt: skip
    assert asked == ["", "two words"] and coordinator.said == ""
    assert len(coordinator.heard) == 4000, "a turn that has ended is forgotten but for what ended it"
    coordinator.window_seconds = 0.3
    coordinator.hear(chunk)
    assert len(coordinator.heard) == 4800
    with pytest.raises(InputError, match="at least one sample"):
        coordinator.hear(chunk[:0])
    with pytest.raises(InputError, match="window_seconds"):
        Coordinator(tiny_model(), "en", window_seconds=0.0)
