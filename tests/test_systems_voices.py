"""The bench of systems that speak with the voice of a prompt: voices, prompts, what an ear that names voices is worth.

The checks themselves run with all others in `test_systems.py`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unitok.generation.sampling import GREEDY
from unitok.results import Result
from unitok.second_passes.base import code_span
from unitok_tokenizers.corpora.toy import SPEAKERS, TEST_VOICES, TRAIN_VOICES, Speaker, build_sentences
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import Span
from unitok_training.evaluation.run import Evaluation
from unitok_training.fitting.codec import UNTAUGHT
from unitok_training.systems.base.bench import Bench, SystemConfig
from unitok_training.systems.base.intervals import Counted
from unitok_training.systems.base.token_bench import settings_of
from unitok_training.systems.base.voice_bench import (
    GROUPS,
    PROMPTED,
    QUICK_VOICES,
    SAID,
    TASKS,
    WAYS,
    Asked,
    Heard,
    VoiceBench,
    heard,
    refined,
    voice_figures,
)
from unitok_training.systems.base.voice_parts import (
    LearnedParts,
    VoiceParts,
    VoicePartsConfig,
    drawn_voices,
    near,
    takes,
)
from unitok_training.systems.codes.any_gpt import SYSTEM as ANY_GPT
from unitok_training.systems.codes.any_gpt import voiced
from unitok_training.systems.codes.uslm import UslmConfig, benches
from unitok_training.systems.codes.vall_e import SYSTEM, VallEConfig, without_prompt

TINY = SystemConfig(sentences=12, test_sentences=12, limit=2, overrides=QUICK_VOICES)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> VoiceBench:
    """Parts that are made once for the tests below."""
    given = Bench(tmp_path_factory.mktemp("voices"), TINY, lambda said: None)
    return VoiceBench(given, settings_of(given, VallEConfig))


@pytest.fixture(scope="module")
def run(bench: VoiceBench) -> Evaluation:
    """A model with a refiner, hardly trained."""
    model = bench.train("prompted", TASKS, seed=0, steps=1, options=PROMPTED, build=refined(bench.config))
    return bench.evaluation(model)


# -- voices -------------------------------------------------------------------------------------------------------


def test_drawn_voices_are_many_and_none_gives_a_held_out_one_away() -> None:
    voices = drawn_voices(60, 0)
    assert voices == drawn_voices(60, 0) != drawn_voices(60, 1)
    assert len({one.name for one in voices}) == 60 and not {one.name for one in voices} & {one.name for one in SPEAKERS}
    assert not any(near(one, other) for one in voices for other in TEST_VOICES)
    gus = TEST_VOICES[0]
    assert near(replace(gus, pitch=1.07 * gus.pitch, scale=gus.scale + 0.03), gus)
    for away in ({"pitch": 1.1 * gus.pitch}, {"scale": gus.scale - 0.05}, {"tilt": gus.tilt + 0.3}):
        assert not near(Speaker(**{**gus.__dict__, **away}), gus)


def test_takes_say_one_sentence_and_two_in_turn() -> None:
    sentences = build_sentences(train=7, test=0, dev=0, seed=0)
    found = takes(sentences, "qaa")
    texts = [one.text("qaa") for one in sentences]
    assert [text for _, text in found] == [
        texts[0], f"{texts[1]} {texts[2]}", texts[3], f"{texts[4]} {texts[5]}", texts[6]
    ]  # fmt: skip
    assert len({name for name, _ in found}) == len(found)


def test_rows_are_the_corpus_and_training_sentences_by_drawn_voices(bench: VoiceBench) -> None:
    rows, corpus = bench.parts.rows, bench.parts.corpus
    takes = rows[len(corpus) :]
    assert rows[: len(corpus)] == corpus and {one.speaker for one in takes} == {"voice000", "voice001", "voice002"}
    assert {one.split for one in takes} == {"train"}
    held = {one.text for one in corpus if one.split != "train"}
    assert not any(text and text in (one.text or "") for one in takes for text in held)
    assert len({one.id for one in rows}) == len(rows)
    again = VoiceParts(bench.parts.folder.parent, bench.parts.config)
    assert again.corpus == corpus and again.rows == rows, "whichever is asked for first"
    more = {one.text for one in again.texts(0, 5)}
    assert not any(text and text in (one.text or "") for one in takes for text in more), "behind what is said"


def test_the_ear_names_every_voice_of_the_corpus(bench: VoiceBench) -> None:
    assert bench.parts.oracle.oracle.speakers == SPEAKERS
    rows = [one for one in bench.parts.corpus if one.split in GROUPS.values()][:8]
    read = bench.read(
        [*(one.load(16000) for one in rows), np.zeros(0, np.float32)], [*(one.lang for one in rows), "qaa"]
    )
    assert read == [*((one.text, one.speaker) for one in rows), ("", "")]
    assert {name for _, name in read} & {one.name for one in TEST_VOICES}
    assert {name for _, name in read} & {one.name for one in TRAIN_VOICES}


# -- prompts ------------------------------------------------------------------------------------------------------


def test_a_prompt_is_another_sentence_of_the_same_voice(bench: VoiceBench, run: Evaluation) -> None:
    for group, split in GROUPS.items():
        asked = bench.asked(run, group)
        assert 0 < len(asked) <= bench.config.limit
        for one in asked:
            assert {run.shards.split[one.row], run.shards.split[one.prompt]} == {split}
            assert run.shards.speaker[one.row] == run.shards.speaker[one.prompt]
            assert one.row != one.prompt and run.text(one.row) != run.text(one.prompt)


def test_what_each_way_shows_to_both_passes(bench: VoiceBench, run: Evaluation) -> None:
    (one, *_), vocabulary = bench.asked(run, "held_out"), run.model.vocabulary
    codes, ids = run.codes(one.prompt), run.model.text_span(run.text(one.row)).content
    both = run.model.text_span(f"{run.text(one.prompt)} {run.text(one.row)}").content
    (alone,), (shown,), (begun,) = (WAYS[way](run, [one]) for way in ("unprompted", "apart", "continued"))
    assert [span.kind for span in alone.conditions] == ["text"] and not alone.outputs
    assert [span.kind for span in shown.conditions] == ["voice", "text"] and not shown.outputs
    assert np.array_equal(shown.conditions[0].content, codes) and np.array_equal(shown.conditions[1].content, ids)
    assert [span.content.tolist() for span in begun.conditions] == [both.tolist()] and begun.forced == len(codes)
    pattern = vocabulary.framed
    assert pattern is not None
    for plan, prompt in ((alone, 0), (shown, len(codes)), (begun, len(codes))):
        span = code_span(replace(plan, outputs=plan.outputs or (Span("codes", codes),)), vocabulary, pattern)
        assert span is not None and len(span.prompt) == prompt
        assert np.array_equal(span.prompt, codes[:prompt]), "all codebooks, so that the refiner hears the voice"


def test_voices_and_chance_by_hand() -> None:
    read = [("a b", "gus"), ("a", "hal"), ("", ""), ("c", "gus")]
    found = heard(read, ["a b", "a b", "a", "c"], ["gus", "gus", "hal", "ada"])
    assert found.same.counts.tolist() == [1, 0, 0, 0] and found.errors.counts.tolist() == [0, 1, 1, 0]
    assert found.chance.counts.tolist() == [0.5, 0.25, 0.0, 0.5], "two prompts of four are gus, one is hal"
    both = Heard.joined([found, found])
    assert both.same.rate == 0.25 and len(both.errors.counts) == 8


def test_figures_of_groups_and_of_prompts_that_are_missed(bench: VoiceBench) -> None:
    def made(same: list[float], errors: list[float]) -> Heard:
        ones = np.ones(len(same))
        return Heard(
            errors=Counted(counts=np.array(errors), sizes=4 * ones),
            same=Counted(counts=np.array(same), sizes=ones),
            chance=Counted(counts=0.25 * ones, sizes=ones),
        )

    good, bad = made([1.0] * 8, [0.0] * 8), made([1.0, 0, 0, 0] * 2, [0.0] * 8)
    ways = {way: [{group: good for group in GROUPS}] * 3 for way in SAID}
    found = {**ways, "unprompted": [{group: bad for group in GROUPS}] * 3}
    figures = without_prompt(bench, "c23", found)
    for way, parts in found.items():
        figures |= voice_figures(f"c23.{way}", parts)
    assert figures["c23.chance"] == 0.25 and figures["c23.unprompted.over_chance"] == 0
    assert figures["c23.continued.voice_gain"] == 0.75 and figures["c23.continued.voice_gain.low"] > 0
    said = {"c23.oracle.accuracy": 1.0, **{f"c23.oracle.{group}.voice": 1.0 for group in GROUPS}}
    assert set(SYSTEM.verdicts(figures | said).values()) == {"met"}
    lost = voice_figures("c23.continued", [{"held_out": bad, "known": good}] * 3)
    verdicts = SYSTEM.verdicts(figures | said | lost)
    assert [claim for claim, one in verdicts.items() if one == "missed"] == [
        "behind a prompt with its text, nine held-out voices of ten are kept"
    ]
    for system in (SYSTEM, ANY_GPT):
        assert len({one.claim for one in system.targets}) == len(system.targets), "verdicts go by the claim"


# -- codecs and turns ---------------------------------------------------------------------------------------------


def test_a_codec_that_learns_its_first_codebook_keeps_the_units(bench: VoiceBench) -> None:
    config = UslmConfig(parts=bench.config.parts, train=bench.config.train)
    arms = benches(bench, config)
    taught, plain = arms["distilled"], arms["plain"]
    assert arms["units"] is bench and taught.run != plain.run
    assert isinstance(plain.parts, LearnedParts) and plain.parts.folder != taught.parts.folder
    assert plain.parts.config.codec.distilled == UNTAUGHT and taught.parts.config.codec.distilled == 1.0
    assert plain.parts.units.fingerprint == bench.parts.units.fingerprint
    codec = plain.parts.codec
    assert codec.units is None and codec.cardinalities == bench.parts.codec.cardinalities
    assert codec.fingerprint != bench.parts.codec.fingerprint
    row = bench.parts.corpus[0]
    assert len(plain.parts.resynthesized(row)) > 0 and plain.parts.rows is bench.parts.rows


def test_turns_without_units_are_silent(bench: VoiceBench, run: Evaluation) -> None:
    asked = [Asked(row=one.row, prompt=one.row) for one in bench.asked(run, "known")]
    turns = [Result(), *[Result(outputs=(run.span("units", one.row),)) for one in asked[1:]]]
    found = voiced(run, turns, asked, GREEDY)
    assert len(found) == len(asked) and len(found[0]) == 0


def test_settings_of_voices_that_cannot_be() -> None:
    with pytest.raises(InputError, match="parts.voices is 0"):
        VoicePartsConfig(voices=0)
    with pytest.raises(InputError, match="distilled is 0"):
        UslmConfig(distilled=0.0)
