"""Free sampling: every output ends within its limit and says why, and what repeats or is empty is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_model import tiny_model
from tests.support.toy_plans import LINES, line_name, own
from tests.test_evaluation import rows
from tests.test_grammar_automaton import content_first, marks_first, prompt_of, walk
from unitok.cli.main import main
from unitok.generation.length_limits import Limits
from unitok.generation.sampling import GREEDY, Sampling
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok.results import Result
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.safety import (
    check_safety,
    ends_in_a_loop,
    is_empty,
    is_endless_loop,
    is_runaway,
    repeated_grams,
    repeated_share,
)

SAMPLES = 20
TASKS = ("asr", "lm", "mt", "s2st", "s2st.chain", "slm", "ilm", "tts.codes", "tts.units")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("safety")
    return prepare_shards(rows(folder), tiny_model().tokenizers, folder / "shards")


# ---- why an output ended


@pytest.mark.parametrize("line", LINES, ids=line_name)
def test_the_automaton_knows_what_it_cut(line: tuple[str, tuple[str, ...]]) -> None:
    vocabulary, rng = own(), np.random.default_rng(1)
    prompt = prompt_of(line, vocabulary, rng)
    endless, brief = (Automaton(vocabulary, prompt, max_new_tokens=60) for _ in range(2))
    walk(endless, rng, content_first)
    walk(brief, rng, marks_first)
    limited = line[0] != "turn"  # which is one state, whatever the limits
    assert endless.finished and endless.cut == limited
    assert brief.finished and not brief.cut
    counted = Automaton(vocabulary, prompt, max_new_tokens=1000, output_limits=[3, 3, 3, 3])
    if line[0] != "ilm":  # its runs have no limits of their own
        walk(counted, rng, content_first)
        assert counted.cut == limited and not counted.copy().remaining == 0


@pytest.mark.parametrize("beams", [1, 3])
def test_a_result_says_why_it_stopped(beams: int) -> None:
    plan = SequenceSpec("asr", "en", conditions=(Span("units", np.arange(6)),))
    narrow = tiny_model(limits=Limits(text_per_unit=0.01, floor=4))
    (cut,) = narrow.run([PromptRequest(plan=plan)], beams=beams)
    assert cut.finish_reason == "length" and len(cut.outputs[0]) == 4
    wide = tiny_model(limits=Limits(text_per_unit=100.0))
    found = wide.run([PromptRequest(plan=plan)] * 20, sampling=Sampling(temperature=1.0))
    assert {"eos"} <= {one.finish_reason for one in found}
    assert all((len(one.outputs[0]) == 612) == (one.finish_reason == "length") for one in found)


def test_running_out_of_positions_is_a_length_too() -> None:
    model = tiny_model(limits=Limits(units_per_text=1e4))
    text = Span("text", np.full(model.decoder.config.max_positions - 20, 300))
    plan = SequenceSpec("tts", "en", flags=("<out:units>",), conditions=(text,))
    found = model.run(seeded([PromptRequest(plan=plan)] * 8, 0), sampling=Sampling())
    room = max(len(one.ids) for one in found)
    assert room < 20 and {one.finish_reason for one in found} == {"eos", "length"}
    assert all(len(one.ids) == room for one in found if one.finish_reason == "length")


def test_several_draws_of_a_request_are_drawn_apart_whatever_their_batches() -> None:
    model, requests = tiny_model(), seeded([PromptRequest(plan=SequenceSpec("slm", "en"))] * 12, 0)
    found = model.run(requests, sampling=Sampling(), batch=4)
    assert len({tuple(one.ids.tolist()) for one in found}) >= 10
    again = model.run(requests, sampling=Sampling(), batch=5)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(found, again))


# ---- what is counted


def test_repeated_spans_are_counted() -> None:
    assert repeated_grams(np.array([1, 2, 3])) == (0, 0)
    assert repeated_grams(np.arange(10)) == (0, 7)
    assert repeated_grams(np.array([1, 2, 3, 4, 1, 2, 3, 4])) == (1, 5)
    frames = Span("codes", np.array([[1, 2], [1, 3]] * 4))
    assert repeated_grams(np.array([0, 1] * 4)) == (3, 5)
    assert repeated_share([(frames, Span("units", np.arange(8)))]) == 3 / 10
    assert repeated_share([(Span("text", np.arange(2)),)]) == 0.0


def test_a_loop_is_a_cycle_at_the_end() -> None:
    start = np.array([9, 8, 7, 6, 5])
    for cycle in ([1], [1, 2], [1, 2, 3, 4, 5, 6, 7]):
        assert ends_in_a_loop(np.concatenate([start, np.tile(cycle, 16)]))
        assert not ends_in_a_loop(np.concatenate([np.tile(cycle, 16), start]))
        assert not ends_in_a_loop(np.concatenate([start, np.tile(cycle, 3)]))
    assert not ends_in_a_loop(np.random.default_rng(0).integers(12, size=200))


def made(model: Model, content: list[int], reason: str = "eos", text: str = "word") -> Result:
    ids = np.array([5, model.vocabulary.eos])
    spans = (Span("text", np.array(content, dtype=np.int64)),)
    return Result(text=text, texts=(text,), outputs=spans, ids=ids, finish_reason=reason)


def test_bad_outputs_are_recognized() -> None:
    model = tiny_model(limits=Limits(text_per_text=0.0, floor=30))
    plan = SequenceSpec("mt", "en", "de", conditions=(Span("text", np.arange(4)),))
    fine, endless = made(model, [1, 2, 3]), made(model, [7] * 40, "length")
    assert not is_empty(fine) and not is_runaway(model, plan, fine) and not is_endless_loop(fine)
    assert is_endless_loop(endless) and not is_endless_loop(made(model, [7] * 40))
    assert is_empty(made(model, [])) and is_empty(made(model, [3], text=" ")) and is_empty(Result())
    # text_per_text of 0 falls back to the 48 pieces of a text without a source
    assert is_runaway(model, plan, made(model, [1] * 79)) and not is_runaway(model, plan, made(model, [1] * 78))
    assert is_runaway(model, plan, Result(outputs=fine.outputs, ids=np.array([5])))


# ---- the report


def test_random_weights_sampled_freely_end_within_their_limits(shards: Shards) -> None:
    found = check_safety(tiny_model(), shards, samples=SAMPLES, tasks=TASKS)
    assert tuple(found["tasks"]) == TASKS and found["skipped"] == {}
    for key, task in found["tasks"].items():
        assert task["count"] == SAMPLES, key
        assert task["runaway"] == 0 and task["endless_loops"] == 0, key
        assert task["eos_share"] + task["length_share"] == pytest.approx(1.0)
        assert 0 <= task["repeated_share"] < 0.2 and 0 <= task["empty_share"] <= 1
        assert task["length_ratio"] > 0 and task["longest_ids"] > 2
    assert {task["length_share"] > 0 for task in found["tasks"].values()} == {True, False}
    assert found == check_safety(tiny_model(), shards, samples=SAMPLES, tasks=TASKS)


def test_a_model_that_loops_is_reported(shards: Shards) -> None:
    """Random weights repeat themselves for ever where the most probable id is taken."""
    model = tiny_model(limits=Limits(units_per_text=30.0))
    greedy, guarded, free = (
        check_safety(model, shards, samples=8, tasks=["tts.units"], sampling=sampling)["tasks"]["tts.units"]
        for sampling in (Sampling(temperature=0.0, loop_guard=False), GREEDY, Sampling())
    )
    assert greedy["endless_loops"] > 0 == free["endless_loops"] == free["loops_cut"] == greedy["loops_cut"]
    assert guarded["endless_loops"] == 0 < guarded["loops_cut"] and guarded["runaway"] == 0
    assert guarded["longest_ids"] < greedy["longest_ids"]
    assert greedy["repeated_share"] > 0.5 > free["repeated_share"]
    assert greedy["runaway"] == 0


def test_the_command_prints_the_report(shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model(info={"tasks": ["asr", "chat", "tts.units"]}).save(tmp_path / "model")
    arguments = ["evaluate", str(tmp_path / "model"), str(shards.folder), "--safety"]
    assert main([*arguments, "3"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert set(found["tasks"]) == {"asr", "tts.units"} and found["tasks"]["asr"]["count"] == 3
    assert "no reply" in found["skipped"]["chat"] and "sampling asr" in printed.err
    assert main([*arguments, "0"]) == 2
    assert "give 1 or more" in capsys.readouterr().err


def test_nothing_to_sample_is_an_error(shards: Shards) -> None:
    with pytest.raises(InputError, match=r"no task can be sampled: .*split 'dev'"):
        check_safety(tiny_model(), shards, samples=2, split="dev", tasks=["asr"])
