"""Language models of prosody: flat streams in which a beginning knows nothing of what follows, trials, the judge.

The checks themselves run with all others in `test_systems.py`.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_model import tiny_model
from unitok.model import Model
from unitok_tokenizers.corpora.toy import CONTOURS
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.contour import Contour
from unitok_tokenizers.prosody.durations import DurationTokenizer
from unitok_tokenizers.prosody.pitch import PitchTokenizer
from unitok_tokenizers.prosody.style import StyleTokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.interleave import unit_cuts
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.base import Shape
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.systems.base.bench import Bench, SystemConfig
from unitok_training.systems.base.prosody_bench import ProsodyBench, placed
from unitok_training.systems.base.prosody_scores import (
    LABEL,
    TRIALS,
    Judge,
    Trial,
    continued_speech,
    kept_targets,
    matched,
    movement,
    preferred,
    trials,
)
from unitok_training.systems.base.prosody_streams import (
    MARK,
    PITCH,
    PLACES,
    UNITS,
    Alphabet,
    Flat,
    Heard,
    LeveledContour,
    nearest,
    voice_levels,
)
from unitok_training.systems.base.token_bench import QUICK, settings_of
from unitok_training.systems.tokens.expressive import STYLE, ExpressiveConfig, Merged
from unitok_training.systems.tokens.pgslm import DURATIONS, PgslmConfig, Triples
from unitok_training.train import train_model
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.optimizer import OptimConfig

TINY = SystemConfig(sentences=12, test_sentences=8, limit=2, overrides=QUICK)
UNITS_INFO = StreamInfo("units", "units", "u", Fraction(50), (20,), deduplicated=True)
LEVELS = np.array([-0.3, -0.1, 0.1, 0.3], np.float32)


def said(octaves: np.ndarray) -> Heard:
    """A voice whose level is 100 Hz, 100 frames a second, in units that last as long in turn as 4 and 6 frames of 50 a
    second."""
    count = len(octaves) // 20
    contour = LeveledContour(
        octaves=(np.log2(100.0) + octaves).astype(np.float32), level=np.zeros(len(octaves), np.float32),
        brightness=np.linspace(-3, 3, len(octaves), dtype=np.float32), voice_level=float(np.log2(100.0)),
    )  # fmt: skip
    return Heard(
        units=np.arange(2 * count) % 20, durations=np.tile([4, 6], count), frame_rate=50.0, contour=contour
    )  # fmt: skip


def triples() -> Triples:
    durations = DurationTokenizer(np.array([1, 4, 8]), "u", "units")
    return Triples(UNITS_INFO, durations, PitchTokenizer(LEVELS))


def merged() -> Merged:
    random = np.random.default_rng(0)
    style = StyleTokenizer(np.zeros(7, np.float32), np.ones(7, np.float32), random.normal(size=(5, 7)).astype("f4"))
    return Merged(UNITS_INFO, PitchTokenizer(LEVELS), style)


RISING = np.linspace(-0.3, 0.3, 240)


# -- streams ------------------------------------------------------------------------------------------------------


def test_blocks_of_an_alphabet_lie_one_behind_another() -> None:
    alphabet = Alphabet(sizes={UNITS: 20, PITCH: 5, MARK: 1}, origin="a")
    ids = np.concatenate([alphabet.ids(PITCH, np.array([4, 0])), [3, alphabet.start(MARK)], [22]])
    assert alphabet.size == 26 and ids.tolist() == [24, 20, 3, 25, 22]
    assert alphabet.within(PITCH, ids).tolist() == [4, 0, 2] and alphabet.within(UNITS, ids).tolist() == [3]
    assert alphabet.info().cardinalities == (26,) and not alphabet.info().deduplicated
    assert alphabet.info().fingerprint != replace(alphabet, origin="b").info().fingerprint
    with pytest.raises(AssertionError, match="they are pitch"):
        alphabet.ids(PITCH, np.array([5]))


def test_pitch_is_told_over_the_level_of_the_voice() -> None:
    octaves = RISING.copy()
    octaves[:8] = np.nan  # all of the first unit, and half of the fourth
    octaves[28:34] = np.nan
    found = said(octaves).unit_pitch()
    assert np.isnan(found[0]) and not np.isnan(found[1:]).any() and (np.diff(found[1:]) > 0).all()
    assert found[1] == pytest.approx(np.median(octaves[8:20]), abs=1e-5)
    assert nearest(LEVELS, np.array([np.nan, -1.0, -0.21, -0.19, 0.25])).tolist() == [0, 1, 1, 2, 4]
    one, other = (
        Contour(octaves=np.full(3, level, np.float32), level=np.zeros(3), brightness=np.zeros(3)) for level in (6, 7)
    )
    assert voice_levels(["a", "a", "a", "b"], [one, one, other, other]) == {"a": 6.0, "b": 7.0}


def test_each_unit_has_its_duration_and_its_pitch() -> None:
    stream, heard = triples(), said(RISING)
    flat = stream.flat(heard)
    for block, wanted in ((UNITS, heard.units), (DURATIONS, [1, 2] * 12), (PITCH, nearest(LEVELS, heard.unit_pitch()))):
        start = list(stream.alphabet.sizes).index(block)
        assert stream.alphabet.within(block, flat.ids[start::3]).tolist() == list(wanted)
    assert flat.places([0.0, 0.079, 0.08, 0.1, 0.2, 99.0]).tolist() == [0, 0, 3, 3, 6, 72]


def test_pitch_and_style_stand_where_their_windows_end() -> None:
    stream, heard = merged(), said(RISING)
    flat = stream.flat(heard)
    assert (np.diff(flat.times) >= 0).all() and len(flat.ids) == 24 + 30 + 2
    assert stream.alphabet.within(UNITS, flat.ids).tolist() == heard.units.tolist()
    first = flat.ids[: flat.places([1.0])[0]]
    assert len(stream.alphabet.within(STYLE, first)) == 1 and len(stream.alphabet.within(PITCH, first)) == 12
    assert flat.times[-1] == pytest.approx(2.4)


@pytest.mark.parametrize("stream", [triples(), merged()], ids=["triples", "merged"])
def test_a_beginning_knows_nothing_of_what_follows(stream: Triples | Merged) -> None:
    falling = np.where(np.arange(240) < 130, RISING, -RISING)
    rise, fall = stream.flat(said(RISING)), stream.flat(said(falling))
    cut = int(rise.places([1.3])[0])
    assert cut == fall.places([1.3])[0] > 20 and np.array_equal(rise.ids[:cut], fall.ids[:cut])
    assert not np.array_equal(rise.ids[cut:], fall.ids[cut:])


@pytest.mark.parametrize("stream", [triples(), merged()], ids=["triples", "merged"])
def test_what_is_untold_is_units_alone_up_to_a_mark(stream: Triples | Merged) -> None:
    whole, some = stream.flat(said(RISING)), stream.untold(said(RISING), 1.3)
    cut, place = int(whole.places([1.3])[0]), int(some.places([1.3])[0])
    assert some.ids[: place - 1].tolist() == stream.alphabet.within(UNITS, whole.ids[:cut]).tolist()
    assert some.ids[place - 1] == stream.alphabet.start(MARK) and np.array_equal(some.ids[place:], whole.ids[cut:])
    flat_beginning = stream.untold(said(np.where(np.arange(240) < 130, 0.0, RISING)), 1.3)
    assert np.array_equal(flat_beginning.ids, some.ids), "nothing is told of how it was said"


def test_words_stand_at_places_among_the_ids() -> None:
    words = (("a", 0.0, 0.3), ("b", 0.4, 0.8), ("c", 1.0, 1.4))
    row = Row(id="1", group="1", lang="qaa", audio=Path("a.flac"), text="a b c", words=words)
    flat = Flat(ids=np.arange(10), times=np.linspace(0.15, 1.5, 10))
    found = placed(row, flat)
    assert found.audio is None and found.tokens[UNITS].tolist() == list(range(10))
    starts = [start for _, start, _ in found.words]
    assert unit_cuts(np.ones(10, np.int64), starts, float(PLACES)).tolist() == [0, 2, 6, 10]
    assert [word for word, _, _ in found.words] == ["a", "b", "c"]


# -- trials and the judge -----------------------------------------------------------------------------------------


def test_trials_are_the_same_words_at_the_same_times_in_every_class(tmp_path: Path) -> None:
    given = Bench(tmp_path, TINY, lambda line: None)
    config = settings_of(given, PgslmConfig)
    bench = ProsodyBench(given, config, lambda heard, units: Triples.fit(heard, units, config))
    told, untold = trials(bench.shards), trials(bench.untold)
    assert [one.label for one in told] == [*CONTOURS] * 2 and len({one.group for one in told}) == 2
    rows = [row for row, _ in bench.parts.spoken_in_every_class("test", 2)]
    assert len({row.words for row in rows[:3]}) == 1 and len({row.speaker for row in rows[:3]}) == 1
    alphabet = bench.stream.alphabet
    for one, other in zip(told, untold):
        assert len(one.begin) and len(one.begin) % 3 == 0, "whole triples"
        assert other.begin.tolist() == [*alphabet.within(UNITS, one.begin), alphabet.start(MARK)]
        assert np.array_equal(one.then, other.then)
    assert {one.label for one in trials(bench.shards, "train")} <= set(CONTOURS)
    assert trials(bench.shards, "train"), "rows of the corpus say their class"
    again = ProsodyBench(given, config, lambda heard, units: pytest.fail("made again"))
    assert [one.begin.tolist() for one in trials(again.shards)] == [one.begin.tolist() for one in told]
    with pytest.raises(InputError, match="no sentence of nowhere"):
        next(bench.parts.spoken_in_every_class("nowhere", 2))


ALPHABET = Alphabet(sizes={UNITS: 8, PITCH: 16, MARK: 1}, origin="a")
MOVING = {"flat": lambda at: 8 + 0 * at, "rise": lambda at: 8 + 6 * at, "fall": lambda at: 8 - 6 * at}


def trial(number: int, label: str, shift: int = 0) -> Trial:
    """Classes begin where they are not told apart by their first ids alone."""
    levels = np.rint(MOVING[label](np.linspace(0, 1, 9 + number % 4))).astype(np.int64) + shift
    then = np.stack([np.full(len(levels), number % 8), ALPHABET.ids(PITCH, levels)], axis=1).reshape(-1)
    return Trial(group=str(number // 3), lang="qaa", label=label, begin=np.array([number % 8]), then=then)


def test_the_judge_hears_the_pitch_of_a_continuation_and_nothing_else() -> None:
    taught = [trial(number, [*CONTOURS][number % 3], number % 2) for number in range(60)]
    judge = Judge(ALPHABET, taught)
    asked = [trial(number, [*CONTOURS][number % 3]) for number in range(60, 72)]
    assert matched(judge, asked, [one.then for one in asked]).rate == 1.0
    assert matched(judge, asked, [asked[0].then] * 12).rate == pytest.approx(1 / 3)
    silent = np.where(asked[1].then >= 8, ALPHABET.start(PITCH), asked[1].then)
    assert judge.tells(silent) is None and judge.tells(asked[1].then[:4]) is None and judge.tells(np.zeros(0)) is None
    found = matched(judge, asked, [silent, *(one.then for one in asked[1:])])
    assert found.counts.tolist() == [2, 3, 3, 3] and found.sizes.tolist() == [3] * 4, "no class is a wrong one"
    assert movement(np.array([1, 2, 3, 4, 5, 6]))[1:].tolist() == pytest.approx([1.5, 5.5, 5.0])
    with pytest.raises(InputError, match="one class of prosody"):
        Judge(ALPHABET, taught[::3])


def test_a_model_that_knows_the_classes_goes_on_in_them_and_prefers_them(tmp_path: Path) -> None:
    """Beginnings of three kinds, each followed by ids of its own: learned in a few steps, and told by both scores."""
    text = TokenizerSet.of(tiny_model().tokenizers.text)
    text.save(tmp_path / "tokenizers")
    rows = []
    for number in range(60):
        one = trial(number, [*CONTOURS][number % 3])
        begin = np.array([number % 3, 4, number % 3])
        words = (("a", 0.0, 3 / 50), ("b", 3 / 50, 1.0))
        rows.append(
            Row(
                id=str(number), group=str(number // 3), lang="qaa", split="train" if number < 48 else TRIALS,
                words=words, tokens={UNITS: np.concatenate([begin, one.then])}, extras={LABEL: one.label},
            )
        )  # fmt: skip
    shards = prepare_shards(rows, text, tmp_path / "shards", external={UNITS: ALPHABET.info()})
    optim = OptimConfig(name="muon", learning_rate=5e-3, warmup_steps=5)
    train = TrainConfig(steps=120, pack_size=512, packs_per_step=1, window=512, optim=optim)
    recipe = DecoderRecipe(
        name="known", decoder=Shape(width=48, layers=2, heads=2, kv_heads=1), mixture=Mixture(tasks={"slm": 1.0}),
        train=train,
    )  # fmt: skip
    train_model(recipe, shards=shards.folder, tokenizers=tmp_path / "tokenizers", out=tmp_path / "run")
    run, asked = Evaluation(model=Model.load(tmp_path / "run/model"), shards=shards), trials(shards)
    assert len(asked) == 12 and all(len(one.begin) == 3 for one in asked)
    judge = Judge(ALPHABET, trials(shards, "train"))
    assert preferred(run, asked).rate == 1.0
    assert matched(judge, asked, continued_speech(run, asked, 0.3)).rate > 0.8
    turned = [replace(one, begin=other.begin) for one, other in zip(asked, [*asked[1:], asked[0]])]
    assert preferred(run, turned).rate == 0.0, "what is given decides"
    assert matched(judge, turned, continued_speech(run, turned, 0.3)).rate < 0.2


def test_targets_need_the_judge_and_both_arms() -> None:
    figures = {
        "x.judge.accuracy": 0.99, "x.chance": 1 / 3, "x.one.match": 0.85, "x.other.match": 0.35,
        "x.match_over_untold.low": 0.4,
    }  # fmt: skip
    met = [target.holds(figures) for target in kept_targets("x", "one", "other")]
    assert met == [True] * 4
    worse = {"x.judge.accuracy": 0.9, "x.one.match": 0.79, "x.other.match": 0.4, "x.match_over_untold.low": 0.0}
    for place, (key, value) in enumerate(worse.items()):
        held = [target.holds({**figures, key: value}) for target in kept_targets("x", "one", "other")]
        assert held == [number != place for number in range(4)]


def test_settings_that_do_not_fit_are_told() -> None:
    for wrong, saying in (
        (lambda: PgslmConfig(pitches=2), "pitches is 2"), (lambda: PgslmConfig(durations=1), "durations is 1"),
        (lambda: PgslmConfig(split="train"), "split is 'train'"), (lambda: ExpressiveConfig(styles=1), "styles is 1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=saying):
            wrong()
