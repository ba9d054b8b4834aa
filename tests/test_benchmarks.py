"""The measuring itself: arms in turn, results on disk, a busy machine, and that losing rows stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import decode, demo, gpu_decode, machine, results
from benchmarks.__main__ import main
from benchmarks.arms import Arm, interleave, largest_difference, ratio
from benchmarks.context import Context
from unitok_tokenizers.errors import InputError


def test_arms_run_in_turn_and_one_that_fails_does_not_end_the_rest() -> None:
    calls: list[str] = []

    def arm(name: str, value: float) -> Arm:
        def run() -> float:
            calls.append(name)
            if name == "b" and len(calls) > 3:
                raise RuntimeError("no luck\nmore")
            return value + len(calls)

        return Arm(name=name, run=run, unit="x")

    found, failed = interleave([arm("a", 0), arm("b", 10), arm("c", 100)], 3, lambda _: None)
    assert calls == ["a", "b", "c", "a", "b", "c", "a", "c"]
    assert found["a"].rounds == (1, 4, 7) and found["a"].median == 4 and (found["a"].low, found["a"].high) == (1, 7)
    assert failed == {"b": "RuntimeError: no luck"}
    assert ratio(found, "c", "a") == found["c"].median / 4 and ratio(found, "a", "missing") is None


def test_curves() -> None:
    assert largest_difference([1.0, 2.0], [1.0, 2.5]) == pytest.approx(0.2)


def test_a_busy_machine_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "busy_share", lambda: 0.7)
    with pytest.raises(InputError, match="other work uses 70% .* --force"):
        machine.check_quiet(False)
    assert machine.check_quiet(True) == 0.7


def test_results_keep_losing_rows_and_give_a_reason_for_every_gap(tmp_path: Path) -> None:
    found = results.read(tmp_path / "none.json")
    assert set(found["ratios"]) == set(results.GOALS) and set(found["notes"]) >= set(results.GOALS)
    losing = results.Outcome(ratios={"train.vs_trainer_best": 0.5, "train.gpu_gemm_share": None})
    results.merge(found, "train", losing, machine={"cpu": "x"}, run={"rounds": 1, "forced": True})
    results.save(found, tmp_path / "r.json", tmp_path / "R.md")
    again = results.read(tmp_path / "r.json")
    assert again["ratios"]["train.vs_trainer_best"] == 0.5 and "train.vs_trainer_best" not in again["notes"]
    assert all(again["notes"][key] for key, value in again["ratios"].items() if value is None)
    table = (tmp_path / "R.md").read_text(encoding="utf-8")
    assert "| ≥ 2 | 0.5 | **missed** |" in table and "not trustworthy" in table
    with pytest.raises(AssertionError):
        results.merge(found, "x", results.Outcome(ratios={"x.y": 1.0}), machine={}, run={})


def test_the_command_measures_and_writes(tmp_path: Path) -> None:
    assert main(["loss", "data", "checkpoint", "--quick", "--rounds", "1", "-o", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert set(found) >= {"machine", "arms", "ratios", "notes"} and set(found["ratios"]) == set(results.GOALS)
    assert found["ratios"]["data.dropped_share"] == 0 and found["ratios"]["checkpoint.stall_vs_copy"] > 0
    assert found["arms"]["loss.unitok.4k"]["median"] < found["arms"]["loss.plain.4k"]["median"]
    assert main(["nothing", "-o", str(tmp_path)]) == 2


@pytest.mark.slow
def test_decoding_gives_the_ids_of_its_peers(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="generate is the peer")
    assert main(["decode", "--quick", "--rounds", "1", "-o", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["ratios"]["decode.vs_generate"] > 0 and found["ratios"]["decode_b64.vs_generate"] > 0
    assert found["notes"]["decode.generate.28m.default.ids"].startswith("100.0%")
    missing = found["ratios"]["decode.vs_llamacpp"] is None
    assert missing == ("llama-cpp-python" in found["notes"]["decode.vs_llamacpp"]), found["notes"]


def test_the_gpu_arms_agree_on_what_they_write(tmp_path: Path) -> None:
    """On a processor, where nothing is captured: the same steps over the same buffers."""
    context = Context(folder=tmp_path, rounds=1, quick=True, report=lambda line: None)
    (prompt,), (count,) = decode.alone(True)
    arms, rate, told = gpu_decode.run(context, decode.TINY, prompt, count, device="cpu")
    assert set(arms) == {gpu_decode.CAPTURED, gpu_decode.EAGER} and rate > 0
    assert told.startswith(f"{count} of {count} ids")


def test_the_demo_is_compared_with_its_time_before(tmp_path: Path) -> None:
    context = Context(folder=tmp_path, rounds=1, quick=True, report=lambda line: None)
    nothing = demo.run(context, tmp_path / "metrics.json")
    assert nothing.ratios == {"demo.seconds_vs_before": None} and "make demo" in nothing.notes["demo.seconds_vs_before"]
    figures = {"seconds": {"total": demo.BEFORE / 2, "units": 9.0}, "asr": {"wer": 0.1}, "s2tt": {"bleu": 70.0}}
    (tmp_path / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")
    found = demo.run(context, tmp_path / "metrics.json")
    assert found.ratios["demo.seconds_vs_before"] == 0.5
    assert "misses judge.wer, " in found.notes["demo.seconds_vs_before"]  # not measured is not met
    assert "asr.wer," not in found.notes["demo.seconds_vs_before"].split(";")[1]


@pytest.mark.slow
def test_training_learns_the_same_as_the_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the Trainer needs it")
    assert main(["train", "--quick", "--rounds", "1", "-o", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["ratios"]["train.vs_trainer_default"] > 0
    assert "train.trainer.default" in found["arms"], found["notes"]
    assert "train.trainer.bf16_by_length" in found["arms"], found["notes"]
