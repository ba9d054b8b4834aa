"""How long the demo's stages take, from what a few of their steps take here; `calibration` finds the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unitok_training.experiments.demo.measure import Measurement
from unitok_training.experiments.demo.run import DemoConfig, demo_stages
from unitok_training.recipes.decoder import load_recipe
from unitok_training.runs.schedule import seconds_until_done


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage's time is made of: start + times × (recordings × (handled, read) + steps × turn)."""

    start: float = 4.0
    """Seconds before any work is done: a process with torch in it, compilation."""
    recordings: str = "train"
    """Which recordings it goes through: "all", "train" or "test"."""
    most: int = 10**9
    """At most so many of them."""
    handled: float = 0.0
    """How often a recording is read, or its log-mels made, in turns of `Measurement.recording`."""
    read: float = 0.0
    """How often the speech encoder reads it, in turns of `Measurement.reading`."""
    turn: str = ""
    """Part of the `Measurement` that a training step takes; none where it does not train."""
    steps: str = ""
    """Setting with the number of steps; "decoder" for the recipe's."""
    times: float = 1.0
    """What a real stage takes, divided by the sum of all this: calibrated."""
    shared: bool = False
    """All threads share the work."""


COSTS: Mapping[str, Cost] = {
    "corpus": Cost(start=2.0, recordings="all", handled=3.7, times=1.0, shared=True),
    "units": Cost(handled=1.5, turn="ctc", steps="encoder_steps", times=1.0),
    "judge": Cost(handled=1.5, turn="ctc", steps="judge_steps", times=0.95),
    "codes": Cost(most=2000, handled=1.5, read=1.0, turn="codec", steps="codec_steps", times=0.75),
    "unit_mel": Cost(most=2500, handled=1.5, read=1.0, turn="unit_mel", steps="unit_mel_steps", times=0.75),
    "prepare": Cost(recordings="all", handled=2.5, read=1.2, times=1.0),
    "mel_vocoder": Cost(most=1500, handled=3.0, read=1.2, turn="vocoder", steps="mel_vocoder_steps", times=0.8),
    "decoder": Cost(start=20.0, turn="decoder", steps="decoder", times=0.75),
    "model": Cost(start=1.5),
    "evaluate": Cost(recordings="test", handled=15.0, read=36.0, times=1.0),
}
"""Stage → what it costs: calibrated on two quiet cores of an Intel Xeon with bfloat16 units, where M with the steps of
then took 434 s (corpus 21, units 76, judge 72, codes 35, unit_mel 52, mel_vocoder 38, prepare 46, decoder 190,
evaluate 55). Where the cores are shared, two stages at once take up to twice as long as one alone was measured."""


def recordings_of(config: DemoConfig, rows: int | None = None) -> dict[str, int]:
    """How many recordings there are of each kind; `rows` are those of somebody's manifest."""
    if rows is not None:
        return {"all": rows, "train": rows - rows // 10, "test": rows // 10}
    languages = len(config.languages)
    test, dev = 2 * config.test_pairs, config.test_pairs // 3  # each test sentence by a held-out and by a known voice
    return {
        "all": (config.pairs + test + dev) * languages, "train": config.pairs * languages, "test": test * languages
    }  # fmt: skip


def stage_seconds(config: DemoConfig, measured: Measurement, rows: int | None = None) -> dict[str, float]:
    """Seconds that each stage will take here."""
    counts = recordings_of(config, rows)
    steps_of_decoder = load_recipe(config.preset, config.overrides).train.steps
    found: dict[str, float] = {}
    for name, cost in COSTS.items():
        count = min(counts[cost.recordings], cost.most)
        if name == "evaluate" and config.evaluate_limit:
            count = min(count, config.evaluate_limit)
        work = count * (cost.handled * measured.recording + cost.read * measured.reading)
        if name == "corpus" and rows is not None:
            work = 0.0  # nothing is spoken
        if cost.turn:
            steps = steps_of_decoder if cost.steps == "decoder" else getattr(config, cost.steps)
            work += steps * getattr(measured, cost.turn)
        found[name] = cost.start + cost.times * work / (config.threads if cost.shared else 1)
    return found


def run_seconds(config: DemoConfig, seconds: Mapping[str, float]) -> float:
    """Seconds of a run whose stages take so long, some of them side by side."""
    return seconds_until_done(demo_stages(config), config.threads, seconds, ())
