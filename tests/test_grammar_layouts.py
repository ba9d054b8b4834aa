"""Layouts of codes in vocabulary, sequences and automaton: every pattern comes back, every random walk parses."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.support.toy_plans import LANGUAGES, PHONES, TEXT, UNITS, random_plan
from tests.test_grammar_automaton import content_first, marks_first, uniformly, walk
from tests.test_grammar_frames import PATTERNS
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.positions import Frames, given_ids, leading_ids
from unitok_tokenizers.grammar.render import render, rendered_prompt
from unitok_tokenizers.grammar.sequence import Rendered, SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary

LINES = [("tts", ("<out:codes>",)), ("s2st", ("<out:codes>",)), ("slm", ("<out:codes>",)), ("asr", ())]
PAIRED = FramePattern(
    layout="pairs", stream="codes", cardinalities=(7, 5, 5), inline=(0, 1),
    slots=(SlotSpec(stream="codes", codebook=2, size=5, delay=2),),
)  # fmt: skip
"""Two ids a frame and a slot beside the second."""
ALL = {**PATTERNS, "pairs": PAIRED, "coarse": replace(PATTERNS["coarse_fine"], coarse=2)}


def codec(pattern: FramePattern) -> StreamInfo:
    return StreamInfo("codes", "codes", "c", Fraction(25), pattern.cardinalities)


def vocabulary_of(name: str, *, viewing: bool = False) -> Vocabulary:
    stream = codec(ALL[name])
    units = StreamInfo("units", "units", "v", Fraction(25), (7,), views="codes") if viewing else UNITS
    streams = [units, stream, PHONES]
    return Vocabulary.build(text=TEXT, streams=streams, languages=LANGUAGES, layouts={"codes": ALL[name]})


by_pattern = pytest.mark.parametrize("name", ALL)


@by_pattern
def test_what_was_rendered_parses_to_the_same(name: str) -> None:
    vocabulary = vocabulary_of(name)
    for seed in range(12):
        for line in LINES:
            plan = random_plan(*line, vocabulary, np.random.default_rng(seed))
            found = render(plan, vocabulary)
            parsed = parse(found.ids, vocabulary, found.frames)
            assert parsed.plan() == plan and parsed.complete
            assert (found.frames is not None) == bool(ALL[name].slots)


@by_pattern
@pytest.mark.parametrize("kind", ["units", "codes"])
def test_a_voice_of_units_that_view_the_codec_is_told_from_one_of_codes(name: str, kind: str) -> None:
    if not ALL[name].inline:
        with pytest.raises(InputError, match="no ids of its codebook 0"):
            stream = StreamInfo("units", "units", "v", None, ALL[name].cardinalities[:1], views="codes")
            Vocabulary.build(text=TEXT, streams=[stream, codec(ALL[name])], layouts={"codes": ALL[name]})
        return
    vocabulary, rng = vocabulary_of(name, viewing=True), np.random.default_rng(0)
    sizes = ALL[name].cardinalities
    voice = rng.integers(7, size=4) if kind == "units" else rng.integers(0, sizes, size=(4, len(sizes)))
    said = rng.integers(0, sizes, size=(3, len(sizes)))
    plan = SequenceSpec(
        "tts", "en", flags=("<out:codes>",), conditions=(Span("text", np.arange(3) + 5), Span("voice", voice)),
        outputs=(Span("units", np.arange(3)), Span("codes", said)),
    )  # fmt: skip
    if len(sizes) == 1 and kind == "units":
        pytest.skip("one codebook: the same ids")
    found = render(plan, vocabulary)
    assert parse(found.ids, vocabulary, found.frames).plan() == plan


def simple(name: str, frames: int) -> SequenceSpec:
    sizes = ALL[name].cardinalities
    codes = np.random.default_rng(7).integers(0, sizes, size=(frames, len(sizes)))
    return SequenceSpec(
        "tts", "en", flags=("<out:codes>",), conditions=(Span("text", np.arange(3) + 5),),
        outputs=(Span("units", np.arange(4)), Span("codes", codes)),
    )  # fmt: skip


def said(name: str, frames: int) -> tuple[list[str], Rendered, int]:
    """(names of the ids of the output, the sequence, where the output begins)."""
    vocabulary = vocabulary_of(name)
    found = render(simple(name, frames), vocabulary)
    start = int(np.flatnonzero(found.ids == vocabulary.control("<gen:codes>"))[0]) + 1
    names = [vocabulary.describe(int(token)).name.partition(":")[0].strip("<>") for token in found.ids[start:]]
    return names, found, start


def test_positions_are_those_of_the_worked_lines() -> None:
    assert said("coarse_fine", 2)[0] == ["a0", "a0", "fine", "a1", "a2", "a1", "a2", "/codes", "eos"]
    assert said("depth", 2)[0] == ["a0", "a0", "/codes", "eos"]
    assert said("delay", 2)[0] == ["a0", "a0", "flush", "flush", "flush", "/codes", "eos"]
    assert said("channels", 2)[0] == ["frame", "frame", "/codes", "eos"]
    assert said("group", 4)[0] == ["a0", "a0", "/codes", "eos"]
    assert said("pairs", 2)[0] == ["a0", "a1", "a0", "a1", "flush", "flush", "/codes", "eos"]
    _, found, start = said("pairs", 2)
    assert found.frames is not None and (found.frames.index - start).tolist() == [1, 3, 4, 5]
    codes = simple("pairs", 2).outputs[1].content
    assert found.frames.slots[:, 0].tolist() == [ABSENT, ABSENT, codes[0, 2], codes[1, 2]]


def test_given_frames_fix_their_ids_and_no_others() -> None:
    for name, fixed in {
        "flat": [1, 1, 1, 0, 0, 0],
        "depth": [1, 0],
        "delay": [1, 0, 0, 0, 0],
        "coarse_fine": [1, 0, 0, 1, 1, 0, 0],
    }.items():
        pattern, books = None if name == "flat" else ALL[name], len(ALL[name].cardinalities)
        assert given_ids(pattern, 2, 1, books).tolist() == fixed
        assert given_ids(pattern, 2, 2, books).all() and len(given_ids(pattern, 2, 2, books)) == len(fixed)
        assert leading_ids(pattern, 1, books) == (fixed.index(0))
    assert given_ids(ALL["group"], 5, 4, 1).tolist() == [1, 0] and leading_ids(ALL["group"], 2, 1) == 0


def test_a_forced_prefix_has_no_loss() -> None:
    for name in ("flat", "depth"):
        vocabulary = vocabulary_of(name)
        forced = replace(simple(name, 2), forced=3)
        start = len(rendered_prompt(replace(forced, outputs=(), forced=0), vocabulary).ids)
        assert render(forced, vocabulary).loss_weight[start : start + 5].tolist() == [0, 0, 0, 1, 1]
        prompt = rendered_prompt(forced, vocabulary)
        assert np.array_equal(prompt.ids, render(forced, vocabulary).ids[: start + 3]) and not prompt.loss_weight.any()


@by_pattern
def test_a_beginning_of_codes_is_continued(name: str) -> None:
    """As many positions as four frames fix, and where codes of the next are half said."""
    vocabulary, rng, pattern = vocabulary_of(name), np.random.default_rng(1), ALL[name]
    _, found, start = said(name, 6)
    known = None if pattern.plain else pattern
    head = leading_ids(known, 4, len(pattern.cardinalities))
    for stop in (start + head, start + head + 1):
        automaton = Automaton(vocabulary, found.ids[:stop], max_new_tokens=60, output_limits=[9, 9])
        codes = parse(np.concatenate([found.ids[:stop], walk(automaton, rng)]), vocabulary).outputs[1].content
        kept = 4 // pattern.frames * pattern.frames
        for book in pattern.inline[: pattern.coarse or None]:
            places = slice(0, kept, pattern.frames)
            assert np.array_equal(codes[places, book], simple(name, 6).outputs[1].content[places, book])
        assert kept <= len(codes) <= 9


@by_pattern
@pytest.mark.parametrize("choose", [uniformly, content_first, marks_first])
def test_random_walks_parse_and_say_where_codes_stand(name: str, choose: object) -> None:
    vocabulary, rng, pattern = vocabulary_of(name), np.random.default_rng(3), ALL[name]
    assert callable(choose)
    for trial in range(40):
        plan = random_plan(*LINES[trial % 3], vocabulary, rng)
        begun = rendered_prompt(replace(plan, outputs=(), forced=0), vocabulary)
        limits = [int(rng.integers(1, 6)) for _ in plan.outputs]
        limit = Automaton(vocabulary, begun.ids, max_new_tokens=500).remaining_needed + int(rng.integers(12))
        automaton = Automaton(vocabulary, begun.ids, max_new_tokens=limit, output_limits=limits)
        ids, index, before = begun.ids.tolist(), [], []
        while not automaton.finished:
            assert automaton.remaining >= automaton.remaining_needed > 0
            token = choose(automaton, rng)
            if automaton.framed(token):
                index.append(len(ids))
                before.append(automaton.places)
            automaton.advance(token)
            ids.append(token)
        frames = None
        if pattern.slots:
            rows = rng.integers(0, [one.size for one in pattern.slots], size=(len(index), len(pattern.slots)))
            assert begun.frames is not None
            frames = Frames(
                np.array([*begun.frames.index, *index], np.int64), np.concatenate([begun.frames.slots, rows])
            )
        parsed = parse(np.array(ids), vocabulary, frames)
        assert parsed.complete and len(ids) - len(begun.ids) <= limit
        codes = next(span.content for span in parsed.outputs if span.kind == "codes")
        place = [span.kind for span in parsed.outputs].index("codes")
        assert 1 <= len(codes) <= max(limits[place], pattern.frames)
        if pattern.slots:
            assert before == list(range(pattern.positions(len(codes))))


def test_a_flat_vocabulary_is_what_it_was(tmp_path: Path) -> None:
    stream = codec(ALL["flat"])
    plain = Vocabulary.build(text=TEXT, streams=[stream])
    flat = Vocabulary.build(text=TEXT, streams=[stream], layouts={"codes": ALL["flat"]})
    assert plain == flat and plain.fingerprint == flat.fingerprint and "patterns" not in flat.to_json()
    assert said("flat", 3)[1].frames is None
    flat.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == flat


@by_pattern
def test_a_vocabulary_with_a_layout_is_saved_and_has_fewer_ids(name: str, tmp_path: Path) -> None:
    made = vocabulary_of(name)
    made.save(tmp_path / "vocabulary.json")
    found = Vocabulary.load(tmp_path / "vocabulary.json")
    assert found == made and found.fingerprint == made.fingerprint
    sizes = ALL[name].cardinalities
    assert made.size == vocabulary_of("flat").size - sum(ALL["flat"].cardinalities) + sum(
        sizes[book] for book in ALL[name].inline
    )
    assert (made.fingerprint == vocabulary_of("flat").fingerprint) == ALL[name].plain


def test_what_does_not_fit_is_refused() -> None:
    made = vocabulary_of("depth")
    other = StreamInfo("encodec", "codes", "e", None, (7, 5, 5))
    with pytest.raises(InputError, match="is of stream 'codes'"):
        made.append_stream(other, ALL["depth"])
    slots = tuple(replace(one, stream="encodec") for one in ALL["depth"].slots)
    with pytest.raises(InputError, match="both have codes beside ids"):
        made.append_stream(other, replace(ALL["depth"], stream="encodec", slots=slots))
    with pytest.raises(InputError, match="none of the streams"):
        Vocabulary.build(text=TEXT, layouts={"codes": ALL["depth"]})
    found = render(simple("delay", 2), vocabulary := vocabulary_of("delay"))
    assert found.frames is not None
    with pytest.raises(InputError, match="no codes stand beside"):
        parse(found.ids, vocabulary, Frames(found.frames.index[1:], found.frames.slots[1:]))
    with pytest.raises(InputError, match="codes stand beside 6 ids, of which 5 are of frames"):
        extra = Frames(np.insert(found.frames.index, 0, 1), np.insert(found.frames.slots, 0, 0, axis=0))
        parse(found.ids, vocabulary, extra)
    cut = np.delete(found.ids, found.frames.index[-1])
    with pytest.raises(InputError, match="2 <flush> before </codes>, not 3"):
        parse(cut, vocabulary)
    half = render(simple("coarse_fine", 2), vocabulary := vocabulary_of("coarse_fine"))
    with pytest.raises(InputError, match="has 1 frames of codes, not 2"):
        parse(np.delete(half.ids, [-4, -3]), vocabulary)
