"""Results on disk: `results.json` for machines, `RESULTS.md` for people, losing rows kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.arms import Measured
from unitok_tokenizers.files import write_json


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A row of the table: what is measured and what it should reach."""

    text: str
    """What, in a few words."""
    at_least: float | None = None
    """Smallest value that reaches the goal."""
    at_most: float | None = None
    """Greatest value that reaches it."""

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def sign(self) -> str:
        """The goal as it is printed."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


GOALS: Mapping[str, Goal] = {
    "train.vs_trainer_default": Goal(text="training tokens/s ÷ Trainer at its defaults", at_least=5),
    "train.vs_trainer_best": Goal(text="training tokens/s ÷ Trainer with its best flags", at_least=2),
    "train.gemm_share": Goal(text="share of the matrix-product rate, training", at_least=0.40),
    "train.gpu_gemm_share": Goal(text="share of the matrix-product rate, training, H200", at_least=0.75),
    "train.gpu_vs_trainer_best": Goal(text="training tokens/s ÷ Trainer with its best flags, H200", at_least=2.5),
    "decode.vs_generate": Goal(text="decoding, batch 1, 28M ÷ generate at its defaults", at_least=3),
    "decode.vs_llamacpp": Goal(text="decoding, batch 1, 28M ÷ llama.cpp at equal precision", at_least=0.8),
    "decode.bandwidth_share": Goal(text="share of the read bandwidth, batch 1, 350M", at_least=0.6),
    "decode.gpu_bandwidth_share": Goal(text="share of the read bandwidth, batch 1, ≥ 1B, H200", at_least=0.75),
    "decode_b64.vs_generate": Goal(text="decoding, batch 64 ÷ generate with padding", at_least=4),
    "data.packed_tokens_per_second": Goal(text="packed tokens/s from shards, one core", at_least=100e6),
    "data.padding_share": Goal(text="padding share of packs", at_most=0.001),
    "data.dropped_share": Goal(text="dropped share of examples", at_most=0.0),
    "loss.memory_vs_plain": Goal(text="peak memory of the loss ÷ plain, 150k ids, 4k tokens", at_most=0.1),
    "loss.peak_bytes": Goal(text="peak memory of the loss, 150k ids, 16k tokens (bytes)", at_most=1e9),
    "checkpoint.stall_vs_copy": Goal(text="checkpoint stall ÷ copying the bytes once", at_most=1.5),
    "demo.seconds_vs_before": Goal(text="`make demo` ÷ time before: 450 s of 746, its targets met", at_most=450 / 746),
}
"""Key of `ratios` → goal."""


@dataclass(kw_only=True)
class Outcome:
    """What one subject found."""

    arms: dict[str, Measured] = field(default_factory=dict)
    """Arm → rounds."""
    ratios: dict[str, float | None] = field(default_factory=dict)
    """Keys of GOALS → value, None where it could not be measured."""
    notes: dict[str, str] = field(default_factory=dict)
    """Key or arm → why there is no value, or what a reader must know."""


def empty() -> dict[str, Any]:
    """Results before anything was measured."""
    return {
        "machine": {},
        "arms": {},
        "ratios": {key: None for key in GOALS},
        "notes": {key: "not measured yet" for key in GOALS},
        "runs": {},
    }


def read(path: Path) -> dict[str, Any]:
    """Results of earlier runs, or empty ones."""
    if not path.exists():
        return empty()
    found = empty()
    for key, value in json.loads(path.read_text(encoding="utf-8")).items():
        if isinstance(value, dict) and key in found:
            found[key] = {**found[key], **value} if key == "ratios" else value
    return found


def merge(
    results: dict[str, Any], subject: str, outcome: Outcome, *, machine: Mapping[str, Any], run: Mapping[str, Any]
) -> dict[str, Any]:
    """Replace one subject's part. AssertionError for a key that the table does not have."""
    assert set(outcome.ratios) <= set(GOALS), set(outcome.ratios) - set(GOALS)
    results["machine"] = dict(machine)
    results["arms"] = {name: value for name, value in results["arms"].items() if not name.startswith(f"{subject}.")}
    results["arms"].update({f"{subject}.{name}": value.to_json() for name, value in outcome.arms.items()})
    stale = [name for name in results["notes"] if name.startswith(f"{subject}.") and name not in GOALS]
    for name in [*stale, *outcome.ratios]:
        results["notes"].pop(name, None)
    for key, value in outcome.ratios.items():
        results["ratios"][key] = value
        if value is None and key not in outcome.notes:
            outcome.notes[key] = "could not be measured here"
    results["notes"].update(outcome.notes)
    results["runs"][subject] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": machine.get("commit", ""),
        **run,
    }
    return results


def save(results: Mapping[str, Any], json_path: Path, markdown_path: Path | None) -> None:
    """Write both files."""
    write_json(json_path, results)
    if markdown_path is not None:
        markdown_path.write_text(markdown(results), encoding="utf-8")


def number(value: float) -> str:
    """Three significant digits, large figures with a unit prefix."""
    for scale, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= scale:
            return f"{value / (scale if scale != 1e4 else 1e3):.3g}{suffix}"
    return f"{value:.3g}"


def _machine_line(machine: Mapping[str, Any]) -> str:
    parts = [machine.get("cpu", "?"), f"{machine.get('cores', '?')} cores", f"{machine.get('threads', '?')} threads"]
    parts += [machine.get("cpu_capability", "?"), f"torch {machine.get('torch', '?')}"]
    parts.append(machine["gpu"]["name"] if "gpu" in machine else "no GPU")
    return f"Machine: {', '.join(parts)}."


def markdown(results: Mapping[str, Any]) -> str:
    """The tables that people read: goals, then every arm."""
    machine = results["machine"]
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks` from `runs/bench/results.json`; do not edit by hand.",
        "",
        _machine_line(machine),
        "",
        "| key | what | goal | reached | |",
        "|---|---|---|---|---|",
    ]
    for key, goal in GOALS.items():
        value = results["ratios"].get(key)
        reached = "—" if value is None else number(value)
        verdict = "not measured" if value is None else "met" if goal.met(value) else "**missed**"
        lines.append(f"| `{key}` | {goal.text} | {goal.sign} | {reached} | {verdict} |")
    lines += ["", "## Arms", "", "| arm | median | least … greatest | unit | settings |", "|---|---|---|---|---|"]
    for name, arm in results["arms"].items():
        settings = ", ".join(f"{key} {value}" for key, value in arm["settings"].items())
        spread = f"{number(arm['low'])} … {number(arm['high'])}"
        lines.append(f"| `{name}` | {number(arm['median'])} | {spread} | {arm['unit']} | {settings} |")
    lines += ["", "## Notes", ""]
    lines += [f"- `{key}`: {note}" for key, note in sorted(results["notes"].items())]
    lines += [
        "",
        "## Runs",
        "",
        "| subject | date | commit | rounds | other work | forced |",
        "|---|---|---|---|---|---|",
    ]
    for subject, run in sorted(results["runs"].items()):
        busy = f"{run.get('busy_share', 0.0):.0%}"
        forced = "yes: timings are not trustworthy" if run.get("forced") else "no"
        lines.append(f"| {subject} | {run['date']} | {run['commit']} | {run.get('rounds', '')} | {busy} | {forced} |")
    return "\n".join(lines) + "\n"
