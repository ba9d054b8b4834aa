"""A kind stands for its main stream: the one named like it, the only one, or the one that was chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo, chosen_streams, main_stream
from unitok_tokenizers.grammar.tasks.base import OUT_CODES
from unitok_tokenizers.grammar.vocabulary import Vocabulary

TEXT = StreamInfo("text", "text", "t", None, (20,))
HUBERT = StreamInfo("hubert", "units", "h", Fraction("43.0664"), (9,), deduplicated=True)
WAVLM = replace(HUBERT, name="wavlm_25hz", fingerprint="w")
UNITS = replace(HUBERT, name="units", fingerprint="u")
MIMI = StreamInfo("mimi", "codes", "m", Fraction(25, 2), (4, 5, 3))


def vocabulary(*streams: StreamInfo) -> Vocabulary:
    return Vocabulary.build(text=TEXT, streams=streams, languages=["en"])


def by_name(*streams: StreamInfo) -> dict[str, StreamInfo]:
    return {stream.name: stream for stream in streams}


def test_which_stream_a_kind_stands_for() -> None:
    assert main_stream(by_name(TEXT, MIMI), "units") is None
    assert main_stream(by_name(TEXT, HUBERT, MIMI), "units") == HUBERT
    assert main_stream(by_name(HUBERT, UNITS, WAVLM), "units") == UNITS
    assert main_stream(by_name(HUBERT, WAVLM), "units", {"units": "wavlm_25hz"}) == WAVLM
    assert main_stream(by_name(HUBERT, WAVLM), "codes") is None
    with pytest.raises(InputError, match="'hubert' and 'wavlm_25hz' are all units.*leave out.*--stream units=hubert"):
        main_stream(by_name(HUBERT, WAVLM), "units")


def test_which_streams_join_tokenizers() -> None:
    elsewhere = by_name(UNITS, HUBERT, MIMI)
    assert chosen_streams({}, elsewhere, {}) == [UNITS, MIMI], "the one named like the kind"
    assert chosen_streams({}, elsewhere, {"units": "hubert"}) == [HUBERT, MIMI]
    assert chosen_streams(by_name(UNITS), by_name(HUBERT), {}) == [], "tokenizers' own"
    with pytest.raises(InputError, match="'hubert' and 'wavlm_25hz'"):
        chosen_streams({}, by_name(HUBERT, WAVLM), {})
    for kind, name, saying in (
        ("units", "mimi", "no such stream.*units, hubert"),
        ("codes", "x", "no such.*mimi"),
        ("text", "text", "kinds are units and codes"),
    ):
        with pytest.raises(InputError, match=saying):
            chosen_streams({}, elsewhere, {kind: name})
    with pytest.raises(InputError, match="the tokenizers make 'units'"):
        chosen_streams(by_name(UNITS), by_name(HUBERT), {"units": "hubert"})


def test_a_name_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="'codes' names another kind"):
        replace(HUBERT, name="codes")


def test_a_choice_is_kept_only_where_it_says_something(tmp_path: Path) -> None:
    plain = vocabulary(HUBERT, MIMI)
    assert plain.choose({"units": "hubert"}) == plain and "mains" not in plain.to_json()
    both = vocabulary(HUBERT, WAVLM)
    chosen = [both.choose({"units": name}) for name in ("hubert", "wavlm_25hz")]
    assert chosen[0].fingerprint != chosen[1].fingerprint
    chosen[1].save(tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text("utf-8"))["mains"] == {"units": "wavlm_25hz"}
    loaded = Vocabulary.load(tmp_path / "v.json")
    assert loaded == chosen[1] and loaded.main("units") == WAVLM
    assert loaded.append_language("de").main("units") == WAVLM
    assert (loaded.column("units"), loaded.column("units_durations")) == ("wavlm_25hz", "wavlm_25hz_durations")
    assert loaded.column("codes") == "codes" and loaded.column("text_ids") == "text_ids"
    with pytest.raises(InputError, match="'mimi' is no stream of units"):
        both.choose({"units": "mimi"})


def test_shards_may_hold_more_than_the_vocabulary_uses() -> None:
    own = vocabulary(HUBERT, MIMI)
    own.check_all(by_name(TEXT, HUBERT, WAVLM, MIMI), "the shards")
    with pytest.raises(InputError, match=r"shards hold units 'wavlm_25hz' \(w\), .* are 'hubert' \(h\)"):
        own.check_all(by_name(TEXT, WAVLM), "the shards")
    with pytest.raises(InputError, match="fingerprint is other in the shards and h"):
        own.check_all(by_name(replace(HUBERT, fingerprint="other")), "the shards")
    with pytest.raises(InputError, match="hold stream 'mimi'"):
        vocabulary(HUBERT).check_all(by_name(HUBERT, MIMI), "the shards")


PLAN = SequenceSpec(
    "tts",
    "en",
    flags=(OUT_CODES,),
    conditions=(Span("voice", np.array([[3, 4, 2]])), Span("text", np.array([1, 2]))),
    outputs=(Span("units", np.array([8, 0, 3])), Span("codes", np.array([[0, 1, 2], [3, 4, 0]]))),
)


def test_plans_speak_of_kinds() -> None:
    own = vocabulary(HUBERT, MIMI)
    rendered = render(PLAN, own)
    names = own.names()
    said = " ".join(names[token] for token in rendered.ids)
    assert "<gen:units> <hubert.u:8> <hubert.u:0> <hubert.u:3> </units>" in said
    assert "<gen:codes> <mimi.a0:0> <mimi.a1:1> <mimi.a2:2> <mimi.a0:3>" in said
    assert parse(rendered.ids, own).plan() == PLAN
    prompt = render_prompt(replace(PLAN, outputs=()), own)
    automaton = Automaton(own, prompt, max_new_tokens=40)
    for token in rendered.ids[len(prompt) :].tolist():
        automaton.advance(token)
    assert automaton.finished


def test_a_stream_beside_the_main_one_goes_by_its_own_name() -> None:
    both = vocabulary(HUBERT, WAVLM).choose({"units": "wavlm_25hz"})
    spans = {name: Span("units", np.array([2, 5]), name) for name in (None, "units", "wavlm_25hz", "hubert")}
    ids = {name: render(SequenceSpec("slm", "en", outputs=(span,)), both).ids for name, span in spans.items()}
    assert (ids[None] == ids["units"]).all() and (ids[None] == ids["wavlm_25hz"]).all()
    assert (ids[None] != ids["hubert"]).any()
    assert parse(ids["wavlm_25hz"], both).outputs == (spans[None],)
    assert parse(ids["hubert"], both).outputs == (spans["hubert"],)


def test_units_that_view_a_codec_of_another_name() -> None:
    view = replace(HUBERT, name="first", cardinalities=(4,), views="mimi")
    own = vocabulary(MIMI, view)
    plan = replace(PLAN, outputs=(Span("units", np.array([3, 0])), PLAN.outputs[1]))
    rendered = render(plan, own)
    assert parse(rendered.ids, own).plan() == plan
    prompt = render_prompt(replace(plan, outputs=()), own)
    automaton = Automaton(own, prompt, max_new_tokens=40, aligned=True)
    ids = rendered.ids[len(prompt) :].tolist()
    for token in ids[:4]:  # the units, their end, and the mark of the codes
        automaton.advance(token)
    assert automaton.allowed() == ((int(own.to_ids("first", 3)), int(own.to_ids("first", 3)) + 1),), (
        "codes say the units"
    )
