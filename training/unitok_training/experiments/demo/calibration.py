"""How the figures of `costs` are found: a finished run beside what is predicted.

    python -m unitok_training.experiments.demo.calibration runs/demo

measures this machine and prints what each stage took beside what is predicted, and the `times` that would have made
both equal: run it where nothing else runs, and write them into `COSTS`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitok_tokenizers.compute import resolve
from unitok_training.experiments.demo.costs import COSTS, run_seconds, stage_seconds
from unitok_training.experiments.demo.measure import Measurement, measure
from unitok_training.experiments.demo.plan import PLAN, DemoPlan
from unitok_training.experiments.demo.run import DemoConfig
from unitok_training.recipes.decoder import load_recipe
from unitok_training.runs.stage_graph import load_record


def calibration(config: DemoConfig, measured: Measurement, took: Mapping[str, float]) -> list[str]:
    """A line for each stage that was run, with the `times` that would have predicted it."""
    predicted = stage_seconds(config, measured)
    lines = []
    for name, seconds in took.items():
        cost = COSTS[name]
        work = (predicted[name] - cost.start) / cost.times
        fitting = f", times {max(0.0, seconds - cost.start) / work:.2f} (now {cost.times})" if work else ""
        lines.append(f"{name}: took {seconds:.0f} s, predicted {predicted[name]:.0f} s{fitting}")
    return [*lines, f"in all: predicted {run_seconds(config, predicted):.0f} s"]


def main(arguments: Sequence[str]) -> int:
    """Entry point: RUN, the folder of a finished run that was planned."""
    run = Path(arguments[0])
    config = DemoPlan.load(run / PLAN).config
    compute = resolve("cpu", config.precision, threads=config.threads)
    measured = measure(load_recipe(config.preset, config.overrides), compute, clusters=config.clusters)
    records = {name: load_record(run, name) for name in COSTS}
    took = {name: record.seconds for name, record in records.items() if record is not None}
    print(measured.to_json())
    print("\n".join(calibration(config, measured, took)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
