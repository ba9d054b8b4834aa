"""A translator of two streams: what stands where, what it may know when, and that it learns; pairs and their words.

The check itself runs with all others in `test_systems.py`.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from unitok.generation.duplex import DuplexSession
from unitok.generation.engine import Engine
from unitok.generation.sampling import GREEDY, Sampling
from unitok.layouts.step_depth import StepDepthConfig
from unitok_tokenizers.corpora.toy import ORDERS, say
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_training.recipes.base import Shape
from unitok_training.systems.codes.stream_translator import StreamTraining, StreamTranslator, TwoStreams
from unitok_training.systems.codes.two_stream_data import SOURCE, TARGET, Pair, delay_of, of_words, pairs_of, prefixes
from unitok_training.trainer.optimizer import OptimConfig

LETTERS, BOOKS, SIZE = 6, 2, 5
CODES = StreamInfo("codes", "codes", "x", Fraction(25), (SIZE,) * BOOKS)


def translator(seed: int = 0) -> StreamTranslator:
    depth = StepDepthConfig(text_rows=LETTERS + 2, size=16, layers=1, heads=2, kv_heads=2, head_size=8, ffn=32)
    shape = Shape(width=32, layers=2, heads=2, kv_heads=1)
    return StreamTranslator(shape, depth, text=LETTERS, codes=CODES, seed=seed).eval()


def streams(frames: int, heard: int, seed: int = 0) -> TwoStreams:
    random = np.random.default_rng(seed)
    return TwoStreams(
        text=random.integers(0, LETTERS + 1, frames), own=random.integers(0, SIZE, (frames, BOOKS)),
        heard=random.integers(0, SIZE, (heard, BOOKS)),
    )  # fmt: skip


def test_the_source_stands_a_place_before_what_is_said_of_it() -> None:
    one, model = streams(6, 4), translator()
    document = model.laid(one)
    assert document.ids.tolist() == [LETTERS + 1, *one.text] and document.loss_weight.tolist() == [0] + [1] * 6
    assert document.frames is not None and document.frames.index.tolist() == list(range(7))
    slots, nothing = document.frames.slots, [ABSENT]
    assert slots[:, 0].tolist() == nothing + one.own[:, 0].tolist()
    assert slots[:, 1].tolist() == nothing * 2 + one.own[:5, 1].tolist(), "the second codebook comes a frame late"
    assert slots[:, 2].tolist() == one.heard[:, 0].tolist() + nothing * 3
    assert slots[:, 3].tolist() == nothing + one.heard[:, 1].tolist() + nothing * 2


def test_a_translation_is_that_of_a_session_which_hears_frame_by_frame() -> None:
    model, sources = translator(), [streams(1, count, seed=count).heard for count in (9, 5)]
    for value in model.parameters():
        if value.ndim > 1:
            value.data.mul_(10)  # so that what is likeliest differs from place to place
    found = model.translate(sources, after=4, code_sampling=GREEDY)
    for source, one in zip(sources, found):
        session = DuplexSession(
            Engine(model.decoder, layout=model.layout), np.array([model.start]), said=((0, model.start + 1),)
        )
        frames = [*source, *np.full((4, BOOKS), ABSENT)]
        steps = [session.step(frame) for frame in frames]
        assert [step.text for step in steps] == one.text.tolist() and len(set(one.text.tolist())) > 2
        assert np.array_equal(np.array([step.slots[0] for step in steps[:-1]]), one.own[:, 0])
        assert np.array_equal(np.array([step.slots[1] for step in steps[1:]]), one.own[:, 1])
    later = [np.concatenate([sources[0][:5], (sources[0][5:] + 1) % SIZE])]
    (other,) = model.translate(later, after=4, code_sampling=GREEDY)
    assert other.text[:5].tolist() == found[0].text[:5].tolist() and other.text.tolist() != found[0].text.tolist()


def test_what_is_taught_is_learned() -> None:
    """The id of a place and the own codes are those of the frame that was heard three frames before."""
    examples = []
    for seed in range(64):
        one = streams(12, 12, seed=seed)
        text = np.concatenate([np.full(3, LETTERS), one.heard[:-3, 0]])
        own = np.concatenate([np.zeros((3, BOOKS), np.int64), one.heard[:-3]])
        examples.append(TwoStreams(text=text, own=own, heard=one.heard))
    model = translator()
    config = StreamTraining(steps=250, batch=8, optim=OptimConfig(learning_rate=5e-3, warmup_steps=10))
    losses = model.fit(examples[:60], config, seed=0, precision="fp32")
    assert losses[-1] < 0.2 * losses[0]
    held = examples[60:]
    found = model.translate([one.heard for one in held], after=0, code_sampling=Sampling(temperature=0.0))
    assert np.mean([one.text == right.text for one, right in zip(found, held)]) > 0.9
    assert np.mean([one.own == right.own[: len(one.own)] for one, right in zip(found, held)]) > 0.85


def pair(meaning: dict[str, int], group: str = "g") -> Pair:
    one, other = (
        Row(id=f"{group}-{code}", group=group, lang=code, text=say(meaning, code)) for code in (SOURCE, TARGET)
    )
    return Pair(source=one, target=other)


def test_the_rule_says_which_word_translates_which() -> None:
    full = {role: 0 for role in ORDERS[SOURCE]}
    assert pair(full).truth == [2, 0, 1, 3, 4, 5]
    assert pair({role: 1 for role in ("noun1", "verb", "noun2", "time")}).truth == [1, 0, 2, 3]


def test_pairs_are_of_one_group_in_both_languages() -> None:
    one = pair({role: 0 for role in ORDERS[SOURCE]})
    alone = Row(id="x", group="x", lang=SOURCE, text="a")
    held = Row(id="y", group="g", lang=TARGET, text="a", split="test")
    assert pairs_of([one.target, alone, held, one.source], "train") == [one]


def test_words_are_as_likely_as_their_letters() -> None:
    starts = np.array([False, True, False])  # of three pieces the second begins words
    scores = np.array([-9.0, -1.0, -2.0, -3.0, -4.0, -5.0, -9.0])  # an opener before, a closer behind
    assert of_words(scores, np.array([1, 0, 1, 2, 2]), starts).tolist() == [-3.0, -12.0]
    assert of_words(scores[1:], np.array([0, 0, 1, 2, 2]), starts).tolist() == [-3.0, -12.0]
    assert prefixes("a b c") == ["a", "a b", "a b c"]


def test_a_delay_is_found_by_what_it_lags() -> None:
    assert delay_of(1.3, lambda delay: min(2.0, 0.4 + delay)) == pytest.approx(0.9, abs=0.01)
