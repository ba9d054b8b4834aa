"""A coordinator taught on scripted turns: it does what is right with conversations of voices that it has never heard.

Run alone with `pytest tests/test_coordinator.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny_model import tiny_model
from unitok.coordinator import LISTEN, SPEAK, STOP, Coordinator, turn_plan
from unitok.decoder import Decoder, DecoderConfig
from unitok.model import Model
from unitok_tokenizers.automaton import Automaton
from unitok_tokenizers.bundle import TokenizerSet
from unitok_tokenizers.corpora.toy import TEST_VOICES, TRAIN_VOICES, build_sentences
from unitok_tokenizers.encoders import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.features import MelConfig
from unitok_tokenizers.grammar import Span, render_prompt
from unitok_tokenizers.tasks import STATES
from unitok_tokenizers.text import SentencePieceText
from unitok_tokenizers.units import UnitTokenizer
from unitok_training.finetune import FinetuneConfig
from unitok_training.optim import OptimConfig
from unitok_training.turns import Script, ScriptConfig, scripted, train_turns, turn_documents, turn_scores

PAIRS = [(one.text("qaa"), one.text("qab")) for one in build_sentences(train=3, test=0, dev=0, seed=0)]


def scripts(count: int, *, seed: int, test: bool = False) -> list[Script]:
    voices = TEST_VOICES if test else TRAIN_VOICES
    random = np.random.default_rng(seed)
    return [scripted(PAIRS, voices[number % len(voices)], ScriptConfig(), random) for number in range(count)]


def untrained(heard: list[Script]) -> Model:
    """Units from cepstra of the scripts, text pieces of their words."""
    encoder = MfccEncoder(MelConfig(hop_length=640))
    sounds = [np.concatenate([chunk for chunk, _ in script]) for script in heard[:12]]
    units = UnitTokenizer.fit(encoder, sounds, 24, seed=0)
    text = SentencePieceText.train([part for pair in PAIRS for part in pair] * 8, 300)
    bundle = TokenizerSet(text=text, units=units)
    vocabulary = bundle.vocabulary(["qaa", "qab"])
    sizes = DecoderConfig(vocab_size=vocabulary.size, width=64, layers=2, heads=2, kv_heads=1)
    decoder = Decoder(sizes, generator=torch.Generator().manual_seed(0)).eval()
    return Model(decoder=decoder, vocabulary=vocabulary, tokenizers=bundle)


def test_scripts_are_what_they_promise() -> None:
    for script in scripts(20, seed=5):
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
    found = scripted(PAIRS, TEST_VOICES[0], interrupted, np.random.default_rng(0))
    assert all(float(np.abs(chunk).max()) > 0.05 for chunk, right in found if right.state == STOP)


@pytest.mark.slow
def test_a_coordinator_does_what_is_right_and_says_nothing_while_it_listens() -> None:
    learnt = scripts(60, seed=1)
    model = untrained(learnt)
    optim = OptimConfig(learning_rate=3e-3, warmup_steps=20)
    train_turns(model, turn_documents(model, learnt, "qaa"), FinetuneConfig(steps=250, optim=optim))
    found = turn_scores(model, scripts(12, seed=2, test=True), "qaa")
    assert found["state_accuracy"] >= 0.95, found
    assert "turn" in model.info["tasks"]


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
