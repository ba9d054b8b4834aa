"""What is heard in speech that was said again: noise, voices, words of edits in the stretch and around it.

The check itself runs with all others in `test_systems.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

from unitok_tokenizers.corpora.toy import TRAIN_VOICES, lexicon, synthesize
from unitok_tokenizers.corpora.toy_oracle import Recognized
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.systems.base.token_parts import OracleEar
from unitok_training.systems.codes.remade_speech import Edit, edited, heard, like_words

LANG = "qaa"


def test_noise_words_and_voices_are_heard() -> None:
    words = [lexicon(LANG)[name][2] for name in ("noun", "verb", "noun")]
    text = " ".join(words)
    clean = synthesize(text, TRAIN_VOICES[1], seed=3).samples
    noisy = clean + np.random.default_rng(0).normal(0, 0.05, len(clean)).astype(np.float32)
    bo, ada = TRAIN_VOICES[1].name, TRAIN_VOICES[0].name
    wanted = [(text, LANG, bo), (text, LANG, ada), (text, LANG, bo), (text, LANG, bo)]
    found = heard(OracleEar([LANG]), [clean, clean, np.zeros(0, np.float32), noisy], wanted)
    assert found.errors.counts[:3].tolist() == [0, 0, 3] and found.errors.sizes.tolist() == [3] * 4
    assert found.voices.counts[:3].tolist() == [1, 0, 0]
    assert found.noise.counts[3] > found.noise.counts[0] + 10
    assert found.recognized[2] is None


def test_a_word_becomes_another_of_its_kind() -> None:
    for name, words in lexicon(LANG).items():
        for place in (0, 3):
            found = like_words(words[place], LANG, 2)
            assert words[place] not in found and set(found) == {
                one for index, one in enumerate(words) if index % 2 == place % 2 and index != place
            }, name


def made(words: tuple[tuple[str, float, float], ...]) -> Recognized:
    return Recognized(text="", speaker="", prosody="flat", words=words, cost=0.0)


def edit(place: int = 1) -> Edit:
    """Of three words, at 10 frames a second; 5 frames before the stretch, 7 behind it."""
    sides = (Span("codes", np.zeros((5, 2), np.int64)), Span("codes", np.zeros((7, 2), np.int64)))
    plan = SequenceSpec("edit", LANG, conditions=(Span("text", np.array([1])), *sides))
    return Edit(plan=plan, words=("we", "buy", "it"), place=place, asked="sell")


def test_words_in_the_stretch_and_around_it_are_told_by_their_middles() -> None:
    right = made((("we", 0.1, 0.55), ("sell", 0.45, 0.9), ("it", 0.85, 1.4)))  # the stretch is 0.5 to 0.8
    longer = made((("we", 0.1, 0.4), ("sell", 0.5, 0.8), ("sell", 0.9, 1.2), ("it", 1.4, 1.9)))
    unchanged = made((("we", 0.1, 0.4), ("buy", 0.5, 0.8), ("it", 0.9, 1.4)))
    spoiled = made((("he", 0.1, 0.4), ("sell", 0.5, 0.8)))
    found = edited([edit()] * 5, [right, longer, unchanged, spoiled, None], [15, 20, 15, 15, 0], 10.0)
    assert found.inside.counts.tolist() == [0, 1, 1, 0, 1] and found.inside.sizes.tolist() == [1] * 5
    assert found.outside.counts.tolist() == [0, 0, 0, 2, 2] and found.outside.sizes.tolist() == [2] * 5
    assert edit().sides == (5, 7)
    with pytest.raises(ValueError, match="zip"):
        edited([edit()], [right, longer], [15, 15], 10.0)
