"""The grammar: worked lines with their loss, rendering and parsing as inverses, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_plans import (
    LINES,
    PROPERTY,
    SECOND,
    TEXT,
    VOCABULARIES,
    grown,
    line_name,
    own,
    random_plan,
    viewing,
)
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import TASKS, output_kinds
from unitok_tokenizers.grammar.vocabulary import Vocabulary

EN, DE = "en", "de"


def text(*ids: int) -> Span:
    return Span("text", np.array(ids))


def units(*ids: int) -> Span:
    return Span("units", np.array(ids))


def codes(*frames: tuple[int, ...], kind: str = "codes") -> Span:
    return Span(kind, np.array(frames))


def hyp(*ids: int) -> Span:
    return Span("hyp", np.array(ids))


# A number is a text piece; what stands after the bar has loss.
WORKED = {
    "asr": (
        SequenceSpec("asr", EN, conditions=(units(1, 8, 5),), outputs=(text(20, 21),)),
        "<bos> <asr> <lang:en> <units> <u:1> <u:8> <u:5> </units> <gen:text> | 20 21 </text> <eos>",
    ),
    "asr from codes": (
        SequenceSpec("asr", EN, conditions=(codes((1, 2, 3), (4, 5, 0)),), outputs=(text(20),)),
        "<bos> <asr> <lang:en> <codes> <a0:1> <a1:2> <a2:3> <a0:4> <a1:5> <a2:0> </codes> "
        "<gen:text> | 20 </text> <eos>",
    ),
    "asr from vectors with keywords": (
        SequenceSpec("asr", EN, conditions=(Span("kw", np.array([9])), Span("lat", np.zeros(3))), outputs=(text(20),)),
        "<bos> <asr> <lang:en> <kw> 9 </kw> <lats> <lat> <lat> <lat> </lats> <gen:text> | 20 </text> <eos>",
    ),
    "tts": (
        SequenceSpec("tts", EN, None, ("<out:units>",), (text(20),), (units(1, 8),)),
        "<bos> <tts> <lang:en> <out:units> <text> 20 </text> <gen:units> | <u:1> <u:8> </units> <eos>",
    ),
    "tts to codes with a voice": (
        SequenceSpec(
            "tts",
            EN,
            None,
            ("<out:codes>",),
            (codes((0, 1, 2), kind="voice"), text(20)),
            (units(1), codes((7, 7, 4))),
        ),
        "<bos> <tts> <lang:en> <out:codes> <voice> <a0:0> <a1:1> <a2:2> </voice> <text> 20 </text> "
        "<gen:units> | <u:1> </units> <gen:codes> <a0:7> <a1:7> <a2:4> </codes> <eos>",
    ),
    "vtts with a voice": (
        SequenceSpec("vtts", EN, conditions=(codes((0, 1, 2), kind="voice"), text(20)), outputs=(codes((7, 7, 4)),)),
        "<bos> <vtts> <lang:en> <voice> <a0:0> <a1:1> <a2:2> </voice> <text> 20 </text> "
        "<gen:codes> | <a0:7> <a1:7> <a2:4> </codes> <eos>",
    ),
    "vtts that continues a prompt": (
        SequenceSpec("vtts", EN, conditions=(text(19, 20),), outputs=(codes((0, 1, 2), (7, 7, 4)),), forced=1),
        "<bos> <vtts> <lang:en> <text> 19 20 </text> <gen:codes> <a0:0> <a1:1> <a2:2> | "
        "<a0:7> <a1:7> <a2:4> </codes> <eos>",
    ),
    "se with its text": (
        SequenceSpec("se", EN, conditions=(text(20), codes((0, 1, 2))), outputs=(codes((7, 7, 4)),)),
        "<bos> <se> <lang:en> <text> 20 </text> <codes> <a0:0> <a1:1> <a2:2> </codes> "
        "<gen:codes> | <a0:7> <a1:7> <a2:4> </codes> <eos>",
    ),
    "tse": (
        SequenceSpec(
            "tse", EN, conditions=(codes((3, 3, 3), kind="voice"), codes((0, 1, 2))), outputs=(codes((7, 7, 4)),)
        ),
        "<bos> <tse> <lang:en> <voice> <a0:3> <a1:3> <a2:3> </voice> <codes> <a0:0> <a1:1> <a2:2> </codes> "
        "<gen:codes> | <a0:7> <a1:7> <a2:4> </codes> <eos>",
    ),
    "edit between what stays": (
        SequenceSpec(
            "edit", EN, conditions=(text(20), codes((0, 1, 2)), codes((3, 3, 3))), outputs=(codes((7, 7, 4)),)
        ),
        "<bos> <edit> <lang:en> <text> 20 </text> <codes> <a0:0> <a1:1> <a2:2> </codes> "
        "<codes> <a0:3> <a1:3> <a2:3> </codes> <gen:codes> | <a0:7> <a1:7> <a2:4> </codes> <eos>",
    ),
    "vc": (
        SequenceSpec("vc", EN, conditions=(codes((3, 3, 3), kind="voice"), units(3)), outputs=(codes((7, 7, 4)),)),
        "<bos> <vc> <lang:en> <voice> <a0:3> <a1:3> <a2:3> </voice> <units> <u:3> </units> "
        "<gen:codes> | <a0:7> <a1:7> <a2:4> </codes> <eos>",
    ),
    "s2tt": (
        SequenceSpec("s2tt", DE, EN, conditions=(units(3),), outputs=(text(20),)),
        "<bos> <s2tt> <lang:de> <lang:en> <units> <u:3> </units> <gen:text> | 20 </text> <eos>",
    ),
    "s2st": (
        SequenceSpec("s2st", DE, EN, ("<out:units>",), (units(3),), (units(1, 8),)),
        "<bos> <s2st> <lang:de> <lang:en> <out:units> <units> <u:3> </units> <gen:units> | <u:1> <u:8> </units> <eos>",
    ),
    "s2st to codes with a voice": (
        SequenceSpec(
            "s2st",
            DE,
            EN,
            ("<out:codes>",),
            (codes((0, 0, 0), kind="voice"), units(3)),
            (units(1), codes((1, 1, 1))),
        ),
        "<bos> <s2st> <lang:de> <lang:en> <out:codes> <voice> <a0:0> <a1:0> <a2:0> </voice> <units> <u:3> </units> "
        "<gen:units> | <u:1> </units> <gen:codes> <a0:1> <a1:1> <a2:1> </codes> <eos>",
    ),
    "s2st chained": (
        SequenceSpec("s2st", DE, EN, ("<chain>", "<out:units>"), (units(3),), (text(30), text(20), units(1))),
        "<bos> <s2st> <lang:de> <lang:en> <chain> <out:units> <units> <u:3> </units> "
        "<gen:text> | 30 </text> <gen:text> 20 </text> <gen:units> <u:1> </units> <eos>",
    ),
    "chat": (
        SequenceSpec("chat", EN, conditions=(units(9, 4),), outputs=(text(20), text(21), units(6))),
        "<bos> <chat> <lang:en> <units> <u:9> <u:4> </units> "
        "<gen:text> | 20 </text> <then> <gen:text> 21 </text> <then> <gen:units> <u:6> </units> <eos>",
    ),
    "mt": (
        SequenceSpec("mt", DE, EN, conditions=(text(30, 31),), outputs=(text(20),)),
        "<bos> <mt> <lang:de> <lang:en> <text> 30 31 </text> <gen:text> | 20 </text> <eos>",
    ),
    "lm": (
        SequenceSpec("lm", EN, outputs=(text(20, 21, 22),)),
        "<bos> <lm> <lang:en> <gen:text> | 20 21 22 </text> <eos>",
    ),
    "slm": (
        SequenceSpec("slm", EN, outputs=(units(1, 8),)),
        "<bos> <slm> <lang:en> <gen:units> | <u:1> <u:8> </units> <eos>",
    ),
    "slm with a prompt": (
        SequenceSpec("slm", EN, outputs=(units(1, 8, 3),), forced=2),
        "<bos> <slm> <lang:en> <gen:units> <u:1> <u:8> | <u:3> </units> <eos>",
    ),
    "ger": (
        SequenceSpec("ger", EN, conditions=(hyp(5), hyp(6, 7)), outputs=(text(20),)),
        "<bos> <ger> <lang:en> <hyp> 5 </hyp> <hyp> 6 7 </hyp> <gen:text> | 20 </text> <eos>",
    ),
    "gtr": (
        SequenceSpec("gtr", DE, EN, conditions=(hyp(5), hyp(6)), outputs=(text(20),)),
        "<bos> <gtr> <lang:de> <lang:en> <hyp> 5 </hyp> <hyp> 6 </hyp> <gen:text> | 20 </text> <eos>",
    ),
    "ger behind noise vectors": (
        SequenceSpec("ger", EN, conditions=(Span("lat", np.zeros(2)), hyp(5)), outputs=(text(20),)),
        "<bos> <ger> <lang:en> <lats> <lat> <lat> </lats> <hyp> 5 </hyp> <gen:text> | 20 </text> <eos>",
    ),
    "route": (
        SequenceSpec("route", EN, conditions=(text(5, 6),), outputs=(Span("tool", np.array([20, 21])),)),
        "<bos> <route> <lang:en> <text> 5 6 </text> <gen:tool> | 20 21 </tool> <eos>",
    ),
    "turn": (
        SequenceSpec("turn", EN, conditions=(units(3, 1), text(9)), outputs=(Span("state", np.array([2])),)),
        "<bos> <turn> <lang:en> <units> <u:3> <u:1> </units> <text> 9 </text> <gen:state> | <stop> </state> <eos>",
    ),
    "sid": (
        SequenceSpec("sid", EN, conditions=(Span("lat", np.zeros(2)),), outputs=(text(20),)),
        "<bos> <sid> <lang:en> <lats> <lat> <lat> </lats> <gen:text> | 20 </text> <eos>",
    ),
    "prosody": (
        SequenceSpec("prosody", EN, conditions=(units(3, 1),), outputs=(text(20),)),
        "<bos> <prosody> <lang:en> <units> <u:3> <u:1> </units> <gen:text> | 20 </text> <eos>",
    ),
    "cap": (
        SequenceSpec("cap", EN, conditions=(Span("lat", np.zeros(1)),), outputs=(text(20, 21),)),
        "<bos> <cap> <lang:en> <lats> <lat> </lats> <gen:text> | 20 21 </text> <eos>",
    ),
    "ask": (
        SequenceSpec("ask", EN, conditions=(Span("lat", np.zeros(1)), text(9)), outputs=(text(20),)),
        "<bos> <ask> <lang:en> <lats> <lat> </lats> <text> 9 </text> <gen:text> | 20 </text> <eos>",
    ),
    "asr of the second of two recordings, the first with its text": (
        SequenceSpec(
            "asr", EN, conditions=(Span("lat", np.zeros(1)), text(9), Span("lat", np.zeros(2))), outputs=(text(20),)
        ),
        "<bos> <asr> <lang:en> <lats> <lat> </lats> <text> 9 </text> <lats> <lat> <lat> </lats> "
        "<gen:text> | 20 </text> <eos>",
    ),
    "ilm": (
        SequenceSpec("ilm", EN, outputs=(text(20, 21), units(1, 8), text(22))),
        "<bos> <ilm> <lang:en> | <text> 20 21 <units> <u:1> <u:8> <text> 22 <eos>",
    ),
    "ilm with a prompt": (
        SequenceSpec("ilm", EN, outputs=(text(20, 21), units(1)), forced=2),
        "<bos> <ilm> <lang:en> <text> 20 21 | <units> <u:1> <eos>",
    ),
}


def spelled(ids: np.ndarray, vocabulary: Vocabulary) -> list[str]:
    return [vocabulary.describe(int(value)).name or str(value) for value in ids]


@pytest.mark.parametrize(("plan", "line"), WORKED.values(), ids=WORKED)
def test_worked_line_and_its_loss(plan: SequenceSpec, line: str) -> None:
    given, learnt = (part.split() for part in line.split("|"))
    rendered = render(plan, own())
    assert spelled(rendered.ids, own()) == given + learnt
    assert rendered.loss_weight.tolist() == [0.0] * len(given) + [1.0] * len(learnt)
    assert rendered.ids.dtype == np.int64 and rendered.loss_weight.dtype == np.float32


@pytest.mark.parametrize(("plan", "line"), WORKED.values(), ids=WORKED)
def test_a_prompt_is_what_has_no_loss(plan: SequenceSpec, line: str) -> None:
    given = line.split("|")[0].split()
    prompt = SequenceSpec(plan.task, plan.source, plan.target, plan.flags, plan.conditions)
    if plan.forced:
        first = plan.outputs[0]
        begun = (Span(first.kind, first.content[: plan.forced]),)
        prompt = SequenceSpec(plan.task, plan.source, conditions=plan.conditions, outputs=begun)
    assert spelled(render_prompt(prompt, own()), own()) == given


def test_every_shape_of_a_task_has_a_worked_line() -> None:
    def shape(name: str) -> tuple[object, ...]:
        task = TASKS[name]
        return task.languages, task.outputs, task.by_flag, task.then, task.interleaved

    assert {shape(plan.task) for plan, _ in WORKED.values()} == {shape(name) for name in TASKS}


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("line", LINES, ids=line_name)
@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_parse_is_the_inverse_of_render(line: tuple[str, tuple[str, ...]], name: str, seed: int) -> None:
    vocabulary = VOCABULARIES[name]
    plan = random_plan(*line, vocabulary, np.random.default_rng(seed))
    rendered = render(plan, vocabulary)
    parsed = parse(rendered.ids, vocabulary)
    assert parsed.plan() == plan and parsed.complete
    assert parsed.start == np.flatnonzero(rendered.loss_weight)[0]


@pytest.mark.parametrize("line", LINES, ids=line_name)
@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_every_beginning_of_a_sequence_parses_as_incomplete(line: tuple[str, tuple[str, ...]], seed: int) -> None:
    vocabulary = own()
    plan = random_plan(*line, vocabulary, np.random.default_rng(seed))
    rendered = render(plan, vocabulary)
    start = int(np.flatnonzero(rendered.loss_weight)[0])
    for stop in range(start, len(rendered.ids)):
        parsed = parse(rendered.ids[:stop], vocabulary)
        assert not parsed.complete and parsed.start == start and parsed.conditions == plan.conditions
        assert len(parsed.outputs) <= len(plan.outputs)
        for part, whole in zip(parsed.outputs, plan.outputs):
            assert np.array_equal(part.content, whole.content[: len(part)])


@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_ids_that_parse_whole_render_to_themselves(seed: int) -> None:
    """One id of a sequence replaced by any other: either it is refused, or it says another plan."""
    vocabulary, rng = own(), np.random.default_rng(seed)
    line = LINES[int(rng.integers(len(LINES)))]
    ids = render(random_plan(*line, vocabulary, rng), vocabulary).ids.copy()
    ids[rng.integers(len(ids))] = rng.choice([rng.integers(vocabulary.size), rng.choice(ids)])
    try:
        parsed = parse(ids, vocabulary)
    except InputError:
        return
    if parsed.complete:
        assert np.array_equal(render(parsed.plan(), vocabulary).ids, ids)


def test_a_second_codec_in_a_span_keeps_its_name() -> None:
    vocabulary = grown()
    plan = SequenceSpec("asr", "fr", conditions=(Span("codes", np.array([[512, 3]]), "encodec"),), outputs=(text(69),))
    rendered = render(plan, vocabulary)
    assert spelled(rendered.ids, vocabulary)[3:7] == ["<codes>", "<encodec.a0:512>", "<encodec.a1:3>", "</codes>"]
    assert parse(rendered.ids, vocabulary).plan() == plan


def test_units_that_view_a_codec_share_its_ids() -> None:
    vocabulary = viewing()
    span = Span("voice", np.array([[3, 1, 0]]))
    plan = SequenceSpec("tts", EN, None, ("<out:codes>",), (span, text(20)), (units(3), codes((3, 1, 0))))
    names = spelled(render(plan, vocabulary).ids, vocabulary)
    assert names.count("<a0:3>") == 3
    assert parse(render(plan, vocabulary).ids, vocabulary).plan() == plan


def test_empty_spans_survive() -> None:
    plan = SequenceSpec("tts", EN, None, ("<out:codes>",), (text(),), (units(), Span("codes", np.zeros((0, 3)))))
    assert parse(render(plan, own()).ids, own()).plan() == plan


def test_a_codec_with_one_codebook_keeps_its_frames() -> None:
    info = type(SECOND)("mono", "codes", "m", SECOND.frame_rate, (16,))
    vocabulary = own().append_stream(info)
    plan = SequenceSpec("asr", EN, conditions=(Span("codes", np.array([[1], [2]]), "mono"),), outputs=(text(4),))
    assert parse(render(plan, vocabulary).ids, vocabulary).plan() == plan


def test_outputs_of_flags() -> None:
    assert output_kinds("s2st") == output_kinds("s2st", ("<out:units>",)) == ("units",)
    assert output_kinds("s2st", ("<out:codes>",)) == ("units", "codes")
    assert output_kinds("s2st", ("<out:units>", "<chain>")) == ("text", "text", "units")
    assert output_kinds("s2st", ("<out:codes>", "<chain>")) == ("text", "text", "units", "codes")


def bad(**changes: object) -> Callable[[], object]:
    fields = {"task": "asr", "source": EN, "conditions": (units(1),), "outputs": (text(5),), **changes}
    return lambda: render(SequenceSpec(**fields), own())  # type: ignore[arg-type]


def broken(*tokens: str | int) -> Callable[[], object]:
    ids = [token if isinstance(token, int) else own().id_of(token) for token in tokens]
    return lambda: parse(np.array(ids, dtype=np.int64), own())


ASR = ("<bos>", "<asr>", "<lang:en>")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad(task="sing"), "unknown task 'sing'; known: asr"),
        (bad(target=DE), r"'asr' takes 1 language\(s\), got 'en', 'de'"),
        (bad(task="mt"), r"'mt' takes 2 language\(s\)"),
        (bad(source="xx"), "unknown language 'xx'"),
        (bad(flags=("<chain>",)), "'asr' takes no flag '<chain>'"),
        (bad(flags=("<ts>", "<ts>")), "repeat one"),
        (bad(conditions=(codes((1, 1, 1), kind="voice"),)), "'asr' takes no 'voice' condition; it takes units"),
        (bad(outputs=(units(1),)), "'asr' with no flags gives text; the plan has units"),
        (bad(outputs=()), "the plan has no output"),
        (bad(forced=2), "forced is 2, but the first output has 1 items"),
        (bad(conditions=(codes((1, 1)),)), r"shape \(1, 2\), not \(F, 3\)"),
        (bad(conditions=(Span("units", np.array([[1]])),)), r"shape \(1, 1\), not \(N,\)"),
        (bad(conditions=(units(12),)), "local id 12 is outside"),
        (bad(conditions=(Span("units", np.array([1]), "hubert"),)), "no stream 'hubert' in this model"),
        (bad(conditions=(Span("units", np.array([1]), "phones"),)), "holds units, not phones"),
        (bad(task="ilm", conditions=(), outputs=(text(1), text(2))), "alternates text and units"),
        (bad(task="ilm", conditions=(), outputs=(text(),)), "no span empty"),
        (bad(task="ilm", conditions=(), outputs=()), "no outputs to learn"),
        (lambda: Span("song", np.array([1])), "unknown span kind 'song'"),
        (lambda: render_prompt(SequenceSpec("asr", EN, outputs=(units(1),)), own()), "gives text; the plan has units"),
        (broken(), "position 0: expected <bos>, found the end"),
        (broken("<asr>"), "position 0: expected <bos>, found <asr>"),
        (broken("<bos>", "<lang:en>"), "unknown task 'lang:en'"),
        (broken("<bos>", "<asr>", "<lang:2>"), "position 2: expected a language, found <lang:2>"),
        (broken("<bos>", "<mt>", "<lang:en>", "<text>"), "position 3: expected a language, found <text>"),
        (broken(*ASR, "<chain>"), "takes no flag '<chain>'"),
        (broken(*ASR, "<voice>", "<u:1>", "</voice>"), "takes no 'voice' condition"),
        (broken(*ASR, "<units>", "<u:1>", "</codes>"), "position 5: expected </units>, found </codes>"),
        (broken(*ASR, "<codes>", "<a0:1>", "<a1:1>", "</codes>"), "position 6: codes stop inside a frame"),
        (broken(*ASR, "<codes>", "<a1:1>", "</codes>"), "position 4: expected </codes>, found <a1:1>"),
        (broken(*ASR, "<gen:units>"), "position 3: expected <gen:text>, found <gen:units>"),
        (broken(*ASR, "<gen:text>", "<u:1>"), "position 4: expected </text>, found <u:1>"),
        (broken(*ASR, "<gen:text>", 5, "</text>", 5), "position 6: expected <eos>, found text"),
        (broken(*ASR, "<gen:text>", 5, "</text>", "<eos>", 5), "position 7: text after the end"),
        (broken("<bos>", "<ilm>", "<lang:en>", "<eos>"), "expected <text>, <units> or <eos>, found <eos>"),
        (broken("<bos>", "<ilm>", "<lang:en>", "<text>", 5, "<text>", 6, "<eos>"), "alternates text and units"),
        (broken("<bos>", "<ilm>", "<lang:en>", "<text>", "<units>", "<u:1>"), "no span empty"),
    ],
)
def test_what_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_text_must_not_hold_a_hosts_control_id() -> None:
    assert TEXT.cardinalities[0] > 2
    with pytest.raises(InputError, match="id of bos, eos or pad"):
        render(SequenceSpec("lm", EN, outputs=(text(5, 2, 6),)), viewing())
