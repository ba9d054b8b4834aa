"""How long `make demo` takes beside what it took before the engine was made fast: read from its last finished run."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.arms import measured
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok_tokenizers.errors import InputError
from unitok_training.experiments.demo.plan import PLAN, DemoPlan
from unitok_training.reports.demo import LINES, judge_line

METRICS = Path(__file__).resolve().parents[1] / "runs" / "demo" / "metrics.json"
BEFORE = 746.0
"""Seconds at 2a6ce72, on two quiet cores of an AMD EPYC, of what is size M today."""
SIZE = "M"


def run(context: Context, metrics: Path = METRICS) -> Outcome:
    """Ratio `demo.seconds_vs_before`; no figure without a finished run. Nothing is run here.

    The goal is half of the time before, or 450 seconds with every target of the report met: the note says whether.
    """
    key = "demo.seconds_vs_before"
    lacking = _lacking(metrics)
    if lacking:
        return Outcome(arms={}, ratios={key: None}, notes={key: lacking})
    found = json.loads(metrics.read_text(encoding="utf-8"))
    seconds = float(found["seconds"]["total"])
    stages = {name: value for name, value in found["seconds"].items() if name not in ("total", "sum_of_stages")}
    context.report(f"  demo: {seconds:.0f} s")
    verdicts = [(line.key, judge_line(line, found)) for line in LINES]
    missed = [name for name, verdict in verdicts if verdict is None or verdict.met is False]
    targets = f"its report misses {', '.join(missed)}" if missed else "every target of its report met"
    note = (
        f"{seconds:.0f} s ÷ {BEFORE:.0f} s at 2a6ce72; {targets}; asr.wer {found['asr']['wer']:.3f}, "
        f"s2tt.bleu {found['s2tt']['bleu']:.1f}; " + ", ".join(f"{name} {value:.0f}" for name, value in stages.items())
    )
    arms = {"total": measured([seconds], "s", {"checkpoint": str(found.get("checkpoint", ""))[:8]})}
    return Outcome(arms=arms, ratios={key: seconds / BEFORE}, notes={key: note})


def _lacking(metrics: Path) -> str:
    """Why a run of the demo is none that the time before can stand beside; nothing where it is one."""
    if not metrics.exists():
        return "runs/demo holds no finished run: `make demo` first"
    try:
        plan = DemoPlan.load(metrics.parent / PLAN)
    except InputError as error:
        return str(error)
    if plan.size != SIZE or plan.quick or plan.config.manifest is not None:
        quick, other = " --quick" if plan.quick else "", " of other recordings" if plan.config.manifest else ""
        return f"runs/demo is of size {plan.size}{quick}{other}; the time before is that of size {SIZE}"
    if "total" not in json.loads(metrics.read_text(encoding="utf-8")).get("seconds", {}):
        return "runs/demo was interrupted: what it took as a whole is not known"
    return ""
