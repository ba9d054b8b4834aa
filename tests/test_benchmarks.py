"""The measuring itself: arms in turn, results on disk, a busy machine, and that losing rows stay."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import decode, demo, gpu_decode, layout_report, lora, machine, results, sharded
from benchmarks.__main__ import main
from benchmarks.arms import Arm, Measured, fastest, interleave, largest_difference, measured, ratio
from benchmarks.context import Context
from benchmarks.table import markdown
from tests.support.launching import ranks
from unitok_tokenizers.compute import native_bfloat16
from unitok_tokenizers.errors import InputError
from unitok_training.experiments.demo.plan import DemoPlan
from unitok_training.experiments.demo.run import DemoConfig


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


def test_what_is_not_committed_is_refused_unless_forced(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    with pytest.raises(InputError, match="no git checkout: .* --force"):
        machine.check_commit(False, tmp_path)
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "x")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("what measuring itself writes")
    clean = machine.check_commit(False, tmp_path)
    assert clean and not clean.endswith("+")
    for name in ("a.py", "new.py"):
        (tmp_path / name).write_text("2")
        with pytest.raises(InputError, match=f"{name} not committed: .* --force"):
            machine.check_commit(False, tmp_path)
        assert machine.check_commit(True, tmp_path) == clean + "+"
        git("stash", "--include-untracked")


def test_work_of_others_is_told_from_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process and those that it starts compute is not other work."""
    before = machine._own_ticks()
    spin = "import time\nwhile time.process_time() < 0.4: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as child:
        child.wait()
    ended = machine._own_ticks()
    assert ended - before >= 30, "of a hundredth of a second"
    monkeypatch.setattr(machine, "_ticks", iter([(100, 1000), (400, 1400)]).__next__)
    monkeypatch.setattr(machine, "_own_ticks", iter([10, 110]).__next__)
    with machine.Watch() as watch:
        pass
    assert watch.share == (300 - 100) / 400
    with pytest.raises(InputError, match="other work used 50%"):
        machine.check_quiet(False, watch.share)


def test_of_rivals_only_the_fastest_is_measured_again() -> None:
    def arm(name: str, value: float, rivals: str = "") -> Arm:
        return Arm(name=name, run=lambda: value, unit="x", rivals=rivals)

    arms = [arm("ours", 1.0), arm("plain", 2.0, "peer"), arm("flags", 3.0, "peer"), arm("other", 0.5, "else")]
    found, _ = interleave(arms, 3, lambda _: None)
    assert {name: len(one.rounds) for name, one in found.items()} == {"ours": 3, "plain": 1, "flags": 3, "other": 3}
    assert fastest(found, ["plain", "flags", "nothing"]) == "flags" and fastest(found, ["nothing"]) is None


def run_record(**changes: Any) -> results.Run:
    plain: dict[str, Any] = {
        "commit": "abc", "rounds": 1, "threads": 2, "seed": 3, "bfloat16": True, "busy_share": 0.01,
    }  # fmt: skip
    return results.Run(**{**plain, **changes})


def test_results_keep_losing_rows_and_kinds_of_processor_side_by_side(tmp_path: Path) -> None:
    found = results.read(tmp_path / "none.json")
    losing = results.Outcome(ratios={"train.vs_trainer_best": 0.5, "train.gpu_gemm_share": None})
    forced = run_record(forced=("70% other work",), commit="abc+")
    results.merge(found, "train", losing, kind="x, bfloat16 units amx_bf16", machine={"cores": 2}, run=forced)
    better = results.Outcome(ratios={"train.vs_trainer_best": 2.5})
    results.merge(found, "train", better, kind="y, bfloat16 units none", machine={"cores": 4}, run=run_record())
    results.save(found, tmp_path / "r.json")
    again = results.read(tmp_path / "r.json")
    assert again == found
    table = markdown(again)
    rows = [line for line in table.splitlines() if line.startswith("| `train.vs_trainer_best` ")]
    assert len(rows) == 2 and "| x, bfloat16 units amx_bf16 | 0.5 | **missed** | abc+ | 2 | 3 |" in rows[0], rows
    assert "(forced: 70% other work)" in rows[0]
    assert "| y, bfloat16 units none | 2.5 | met | abc | 2 | 3 | 1% |" in rows[1]
    gap = next(line for line in table.splitlines() if line.startswith("| `train.gpu_gemm_share`"))
    assert "not measured" in gap and "- `train.gpu_gemm_share`: could not be measured here" in table
    again["processors"]["x, bfloat16 units amx_bf16"]["subjects"]["train"]["ratios"]["train.vs_trainer_best"] = 4.0
    assert markdown(again) != table
    with pytest.raises(AssertionError):
        results.merge(found, "x", results.Outcome(ratios={"x.y": 1.0}), kind="x", machine={}, run=run_record())
    (tmp_path / "old.json").write_text("{}")
    with pytest.raises(InputError, match="format 2"):
        results.read(tmp_path / "old.json")


def test_the_published_table_is_made_of_the_published_results() -> None:
    folder = Path(decode.__file__).parent
    found = results.read(folder / "results.json")
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == markdown(found)


def test_a_headline_is_the_lower_of_equal_precisions() -> None:
    def figure(value: float) -> Measured:
        return measured([value], "tokens/s")

    found = {
        "unitok.28m.fp32": figure(300.0), "unitok.28m.bf16": figure(900.0), "unitok.28m.bf16.torch": figure(400.0),
        "generate.28m.default": figure(100.0), "generate.28m.static_compile": figure(120.0),
        "generate.28m.bf16": figure(200.0), "unitok.b64.fp32": figure(800.0), "generate.b64.default": figure(100.0),
    }  # fmt: skip
    ratios, notes = decode._ratios(found, ("fp32", "bf16"), "no llama.cpp")
    assert ratios["decode.vs_generate.fp32"] == 2.5 and ratios["decode.vs_generate.bf16"] == 4.5
    assert ratios["decode.vs_generate"] == 2.5 and notes["decode.vs_generate"] == "the lower of fp32 2.50, bf16 4.50"
    assert ratios["decode_b64.vs_generate.fp32"] == 8.0 and ratios["decode_b64.vs_generate"] is None  # bf16 is missing
    ratios, notes = decode._ratios(found, ("fp32",), "no llama.cpp")
    assert ratios["decode.vs_generate"] == 2.5 and ratios["decode.vs_generate.bf16"] is None
    assert "no bfloat16 units" in notes["decode.vs_generate.bf16"]


def quick(folder: Path, *subjects: str) -> dict[str, Any]:
    """{"ratios": …, "arms": …, "notes": …} of subjects at sizes that mean nothing."""
    assert main([*subjects, "--quick", "--rounds", "1", "-o", str(folder)]) == 0
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    (part,) = found["processors"].values()
    gathered: dict[str, Any] = {"ratios": {}, "arms": {}, "notes": {}}
    for name in subjects:
        for kind, values in gathered.items():
            values |= part["subjects"][name][kind]
    return gathered


def test_the_command_measures_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a process takes is measured in `test_cost_measured.py`.
    monkeypatch.setattr(lora, "measure", lambda setup, *, updates: SimpleNamespace(peak_bytes=1000 - setup.lora_rank))
    found = quick(tmp_path, "loss", "data", "checkpoint", "lora")
    assert found["ratios"]["lora.memory_vs_full"] == 0.996
    assert found["ratios"]["lora.steps_vs_full"] > 0 and found["arms"]["full.memory"]["median"] > 0
    assert found["ratios"]["data.dropped_share"] == 0 and found["ratios"]["checkpoint.stall_vs_copy"] > 0
    assert found["arms"]["unitok.4k"]["median"] < found["arms"]["plain.4k"]["median"]
    assert main(["nothing", "-o", str(tmp_path)]) == 2
    with pytest.raises(SystemExit) as stop:
        main(["--seed", "-1", "-o", str(tmp_path)])
    assert stop.value.code == 2


@pytest.mark.slow
def test_layouts_are_measured_at_equal_codes_and_weights(tmp_path: Path) -> None:
    found = quick(tmp_path, "layouts")
    names, arms = layout_report.NAMES, found["arms"]
    assert set(arms) == {f"{name}.{one}" for name in names for one in layout_report.COLUMNS}
    assert all(value is not None and value > 0 for value in found["ratios"].values())
    settings = [arms[f"{name}.bits"]["settings"] for name in names]
    assert len({one["codes trained on"] for one in settings}) == 1
    weights = [one["weights"] for one in settings]
    assert max(weights) / min(weights) < 1.05, weights
    positions = [arms[f"{name}.b1.greedy"]["settings"]["positions"] for name in names]
    assert positions == [12, 4, 4, 6, 2, 4], "of 4 frames of 3 codebooks, delays of up to 2, groups of 2"
    assert arms["depth.cache"]["median"] < arms["flat.cache"]["median"] < arms["flat.peak"]["median"]
    assert all(150 < arms[f"{name}.bits"]["median"] < 330 for name in names), "an even choice of 16 costs 300"
    whole = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    text = layout_report.replaced(f"a {layout_report.BEGIN} old {layout_report.END} b", whole)
    assert text.startswith("a ") and text.endswith(" b") and " old " not in text
    assert all(f"| `{name}` | " in text for name in names)
    assert layout_report.plot(whole).count("<circle") == len(names)


def test_the_page_of_layouts_shows_the_published_results() -> None:
    page = layout_report.DOCUMENT.read_text(encoding="utf-8")
    found = results.read(Path(decode.__file__).parent / "results.json")
    assert layout_report.replaced(page, found) == page
    assert layout_report.PLOT.read_text(encoding="utf-8") == layout_report.plot(found)


@pytest.mark.slow
@pytest.mark.skipif(not sharded.ROLLUP.exists(), reason="reads /proc, which this system lacks")
def test_what_a_process_holds_of_split_weights_is_about_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a decoder so small that buffers weigh: a whole copy in each process would be twice the share."""

    def forked(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        return ranks(command[-3:], 2)  # behind torchrun's own words

    monkeypatch.setattr(sharded, "subprocess", SimpleNamespace(run=forked))
    found = quick(tmp_path, "sharded")
    arm = found["arms"]["processes2"]
    assert 0.3 < found["ratios"]["sharded.memory_vs_share.2"] < 1.9
    assert arm["settings"]["limit_bytes"] == pytest.approx(1.05 * arm["settings"]["weights"] * 12 / 2, rel=1e-6)


@pytest.mark.slow
def test_files_of_a_command_that_is_killed_are_answered_once(tmp_path: Path) -> None:
    found = quick(tmp_path, "files_killed")
    assert found["ratios"]["files_killed.vs_undisturbed"] is not None
    assert "2 times SIGKILL" in found["notes"]["files_killed.vs_undisturbed"]


def test_many_files_have_the_texts_of_each_alone(tmp_path: Path) -> None:
    found = quick(tmp_path, "files")
    assert found["ratios"]["files.vs_process_each"] > 1 and found["ratios"]["files.vs_alone"] > 0
    assert found["notes"]["files.vs_unsorted"].endswith("24 of 24") and "24 of 24" in found["notes"]["files.vs_alone"]


@pytest.mark.slow
def test_units_are_those_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="it is the peer")
    found = quick(tmp_path, "units")
    ratios = found["ratios"]
    assert set(found["arms"]) == {"unitok", "transformers", "transformers.cut"}, found["notes"]
    assert ratios["units.vs_transformers"] > 0 and ratios["units.vs_transformers_cut"] > 0
    assert ratios["units.equal_share"] >= 0.99 and ratios["units.far_share"] == 0, found["notes"]


@pytest.mark.slow
def test_decoding_gives_the_ids_of_its_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the precision in which this processor computes quickest: machines of both kinds run this."""
    pytest.importorskip("transformers", reason="generate is the peer")
    precision = "bf16" if native_bfloat16(torch.device("cpu")) else "fp32"
    monkeypatch.setenv("UNITOK_PRECISION", precision)
    found = quick(tmp_path, "decode")
    assert found["ratios"]["decode.vs_generate"] > 0 and found["ratios"]["decode_b64.vs_generate"] > 0
    assert (found["ratios"]["decode.vs_generate.bf16"] is None) == (precision == "fp32")
    assert not [name for name in found["arms"] if "bf16" in name] or precision == "bf16"
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
    plan = DemoPlan(size="S", quick=False, config=DemoConfig(), compute={})
    for other, reason in ((plan, "size S"), (replace(plan, size="M", quick=True), "size M --quick")):
        other.save(tmp_path / "plan.json")
        found = demo.run(context, tmp_path / "metrics.json")
        assert found.ratios == {"demo.seconds_vs_before": None} and reason in found.notes["demo.seconds_vs_before"]
    replace(plan, size="M").save(tmp_path / "plan.json")
    found = demo.run(context, tmp_path / "metrics.json")
    assert found.ratios["demo.seconds_vs_before"] == 0.5
    assert "misses judge.wer, " in found.notes["demo.seconds_vs_before"]  # not measured is not met
    assert "asr.wer," not in found.notes["demo.seconds_vs_before"].split(";")[1]


@pytest.mark.slow
def test_training_learns_the_same_as_the_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the Trainer needs it")
    found = quick(tmp_path, "train")
    assert found["ratios"]["train.vs_trainer_default"] > 0 and found["ratios"]["train.vs_trainer_best"] > 0
    assert found["ratios"]["train.vs_trainer_best"] <= found["ratios"]["train.vs_trainer_best.fp32"]
    assert {"trainer.default", "trainer.flat", "trainer.by_length"} <= set(found["arms"]), found["notes"]
