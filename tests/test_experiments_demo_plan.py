"""The demo's sizes and plans: what is chosen and why, what is written, replayed, continued, and refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from unitok.cli.main import main
from unitok_tokenizers import compute
from unitok_tokenizers.errors import InputError
from unitok_training.experiments.demo import plan as demo_plan
from unitok_training.experiments.demo.calibration import calibration
from unitok_training.experiments.demo.costs import COSTS, recordings_of, run_seconds, stage_seconds
from unitok_training.experiments.demo.measure import Measurement, measure, seconds_of
from unitok_training.experiments.demo.plan import PATIENCE, DemoOptions, DemoPlan, plan_demo
from unitok_training.experiments.demo.run import DemoConfig, demo_stages
from unitok_training.experiments.demo.sizes import SIZES, described
from unitok_training.recipes.decoder import load_recipe

QUIET = Measurement(
    recording=0.0015, reading=0.0025, ctc=0.2, codec=0.08, vocoder=0.08, unit_mel=0.16, decoder=0.33, gigaflops=600.0
)
"""Of two quiet cores with bfloat16 units."""
PLAIN = replace(QUIET, ctc=0.66, codec=0.2, vocoder=0.2, unit_mel=0.4, decoder=1.4, gigaflops=150.0)
"""Of two that multiply float32 alone."""


def measured_as(monkeypatch: pytest.MonkeyPatch, found: Measurement, units: str = "amx_bf16") -> list[str]:
    """Stand in for ten seconds of measurement; returns the precisions that it was asked to measure in."""
    asked: list[str] = []

    def stand_in(recipe: object, given: compute.Compute, *, clusters: int) -> Measurement:
        asked.append(given.precision)
        return found

    monkeypatch.delenv(compute.PRECISION_VARIABLE, raising=False)
    monkeypatch.setattr(compute, "bf16_units", lambda path="": units)
    monkeypatch.setattr(demo_plan, "measure", stand_in)
    return asked


def test_sizes_differ_in_sentences_and_steps_alone_and_grow() -> None:
    plain = DemoConfig(overrides=("train.optim.warmup_steps=7",))
    found = {name: size(plain) for name, size in SIZES.items()}
    assert list(found) == ["S", "M", "L"] and found["M"] == plain
    steps = {name: load_recipe(one.preset, one.overrides).train for name, one in found.items()}
    assert steps["S"].steps < steps["M"].steps < steps["L"].steps
    assert {one.optim.warmup_steps for one in steps.values()} == {7}, "what is asked for has the last word"
    for name, one in found.items():
        others = {key for key, value in asdict(one).items() if value != asdict(plain)[key]}
        assert others <= {"pairs", "overrides"} | {key for key in asdict(plain) if key.endswith("_steps")}
        assert len(demo_stages(one)) == len(COSTS) and f"size {name}: {one.pairs:,} sentences in en, de" in described(
            name, one
        )
    for key in ("pairs", "encoder_steps", "judge_steps", "codec_steps", "mel_vocoder_steps", "unit_mel_steps"):
        assert getattr(found["S"], key) < getattr(found["M"], key) < getattr(found["L"], key)


def test_costs_tell_what_is_known_of_a_quiet_machine() -> None:
    """M within ten minutes with bfloat16 units; S within a quarter of an hour and M within half of one without."""
    totals = {}
    for measured in (QUIET, PLAIN):
        seconds = {name: stage_seconds(size(DemoConfig()), measured) for name, size in SIZES.items()}
        totals[measured.gigaflops] = {
            name: run_seconds(SIZES[name](DemoConfig()), one) for name, one in seconds.items()
        }
    quick, plain = totals[QUIET.gigaflops], totals[PLAIN.gigaflops]
    assert 300 < quick["M"] <= 600 and 2 < quick["L"] / quick["M"] < 4
    assert plain["S"] <= 900 and plain["M"] <= 1800 and plain["M"] > PATIENCE
    assert recordings_of(DemoConfig()) == {"all": 6560, "train": 6000, "test": 480}
    mine = stage_seconds(DemoConfig(manifest="m"), QUIET, rows=100)
    assert mine["corpus"] < 3 and mine["prepare"] < stage_seconds(DemoConfig(), QUIET)["prepare"]
    limited = stage_seconds(DemoConfig(evaluate_limit=60), QUIET)
    assert limited["evaluate"] < stage_seconds(DemoConfig(), QUIET)["evaluate"]


def test_calibration_gives_factors_that_predict_what_was_taken() -> None:
    lines = calibration(DemoConfig(), QUIET, {"units": 100.0, "model": 2.0})
    factor = float(lines[0].split("times ")[1].split(" ")[0])
    cost = COSTS["units"]
    work = (stage_seconds(DemoConfig(), QUIET)["units"] - cost.start) / cost.times
    assert cost.start + factor * work == pytest.approx(100.0, rel=0.01)
    assert lines[1].startswith("model: took 2 s") and lines[-1].startswith("in all")


def test_every_part_is_measured_and_the_machine_left_as_it_was() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    recipe = load_recipe("tiny", ["train.pack_size=128"])
    found = measure(recipe, compute.resolve("cpu", "fp32", threads=1), clusters=12, patience=0.0)
    assert all(value > 0 for value in asdict(found).values()) and found.ctc > found.reading
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)
    turns: list[int] = []
    assert seconds_of(lambda: turns.append(1), 0.0) >= 0 and len(turns) == 3


@pytest.mark.parametrize(("found", "units", "size"), [(QUIET, "amx_bf16", "M"), (PLAIN, "none", "S")])
def test_a_measurement_chooses_and_the_plan_says_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Measurement, units: str, size: str
) -> None:
    asked, said = measured_as(monkeypatch, found, units), list[str]()
    plan = plan_demo(tmp_path, DemoOptions(threads=2, seed=3), report=said.append)
    precision = "fp32" if units == "none" else "bf16"
    assert plan.size == size and asked == [precision]
    data = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (data["size"], data["seed"], data["precision"], data["threads"]) == (size, 3, precision, 2)
    assert data["settings"].keys() | {"seed", "precision", "threads"} == asdict(DemoConfig()).keys()
    assert data["measurement"] == found.to_json() and data["seconds"].keys() == {*COSTS, "total"}
    assert data["compute"]["precision"] == precision
    assert any(line.startswith(f"size {size}: ") for line in said)
    assert any(line.startswith("takes about ") and "L about" in line for line in said)
    assert DemoPlan.load(tmp_path / "plan.json") == plan


def test_a_plan_is_continued_and_replayed_without_measuring_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measured_as(monkeypatch, PLAIN)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = plan_demo(tmp_path / "a", DemoOptions(overrides=("train.window=64",), threads=2))
    asked.clear()
    again = plan_demo(tmp_path / "a", DemoOptions())
    same = plan_demo(
        tmp_path / "a", DemoOptions(size=first.size, overrides=("train.window=64",), languages=("en", "de"))
    )
    other = plan_demo(tmp_path / "b", DemoOptions(), file=tmp_path / "a" / "plan.json")
    assert first == again == same == other and asked == []
    sized = DemoPlan.load(tmp_path / "a" / "plan.json").config
    assert DemoOptions(size=first.size, overrides=("train.window=64",), threads=2).config(first.size) == sized


def test_what_contradicts_a_plan_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measured_as(monkeypatch, QUIET)
    plan_demo(tmp_path, DemoOptions(size="M", threads=2))
    assert asked == [], "a size that is asked for needs no measurement"
    before = (tmp_path / "plan.json").read_bytes()
    for wanted, words in {
        DemoOptions(size="L"): "plans size M and L is asked for: choose another folder with -o, or remove .*plan.json",
        DemoOptions(quick=True): "plans quick False and True",
        DemoOptions(seed=1): "plans seed 0 and 1",
        DemoOptions(manifest="m.jsonl"): "plans manifest None and m.jsonl",
        DemoOptions(languages=("en",)): "plans languages en de and en is",
        DemoOptions(overrides=("train.steps=1",)): "plans the overrides none and train.steps=1",
    }.items():
        with pytest.raises(InputError, match=words):
            plan_demo(tmp_path, wanted)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match="plans threads 2 and 5 is asked for: leave that out"):
        plan_demo(other, DemoOptions(threads=5), file=tmp_path / "plan.json")
    plan_demo(other, DemoOptions(size="S"))
    with pytest.raises(InputError, match="is another plan than"):
        plan_demo(other, DemoOptions(), file=tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_bytes() == before


def _changed(path: Path, change: dict[str, object]) -> Path:
    data = json.loads(path.read_text(encoding="utf-8"))
    other = path.with_name("changed.json")
    other.write_text(json.dumps({**data, **change}), encoding="utf-8")
    return other


def test_a_file_that_is_no_plan_is_named(tmp_path: Path) -> None:
    plan_demo(tmp_path, DemoOptions(size="S"))
    path = tmp_path / "plan.json"
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    for change, words in (
        ({"format": 2}, "is no plan of the demo"),
        ({"settings": {}}, "settings are not those of this version"),
        ({"settings": {**settings, "pairs": "many"}}, "pairs is 'many'"),
        ({"settings": {**settings, "languages": "en"}}, "languages is 'en': it is a list"),
        ({"settings": {**settings, "new": 1}}, "settings are not those of this version: new"),
        ({"seed": None}, "seed is None"),
        ({"quick": "true"}, "quick is 'true'"),
        ({"size": "XL"}, "is no plan of the demo"),
    ):
        with pytest.raises(InputError, match=words):
            DemoPlan.load(_changed(path, change))
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="is no plan of the demo"):
        plan_demo(tmp_path, DemoOptions())


def test_a_run_that_goes_on_without_bfloat16_units_computes_in_float32_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_as(monkeypatch, QUIET)
    plan_demo(tmp_path, DemoOptions(size="M", threads=2))
    measured_as(monkeypatch, QUIET, "none")
    said: list[str] = []
    plan = plan_demo(tmp_path, DemoOptions(threads=4), report=said.append)
    assert (plan.config.precision, plan.config.threads) == ("fp32", 4)
    assert [line.partition(":")[0] for line in said[:2]] == ["threads was 2 and is 4", "precision was bf16 and is fp32"]
    assert plan_demo(tmp_path, DemoOptions(precision="bf16")).config.precision == "bf16", "asked for, it is done"
    (tmp_path / "b").mkdir()
    said.clear()
    plan_demo(tmp_path / "b", DemoOptions(), file=tmp_path / "plan.json", report=said.append)
    assert "has no units for" in said[-1]


def test_the_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_demo(tmp_path, DemoOptions(size="M"))
    for words, message in (
        (["--size", "XL"], "size is 'XL': choose from S, M, L"),
        (["--size", "l"], "plans size M and L is asked for"),
        (["--precision", "half"], "'half'"),
        (["--precision", "bf16-pure"], "takes auto, fp32 or bf16"),
        (["--threads", "0"], "threads is 0"),
        (["--plan", str(tmp_path / "none.json")], "none.json"),
    ):
        assert main(["demo", "-o", str(tmp_path), *words]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and len(printed.err.splitlines()) == 1, printed
