"""Units of HuBERT (Hsu et al. 2021): what they keep of phones and voices, merged by BPE, and made steady.

unitok systems run unit_tokens -o runs/unit_tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import settings_of
from unitok_training.systems.tokenizers.merging import merging_figures, share_inverted
from unitok_training.systems.tokenizers.unit_bench import UnitBench, UnitTokensConfig

NEAR_CHANCE = 0.1
"""How far above chance a probe may be that knows next to nothing."""
FEWER_EDITS = 0.3
"""Share of the edits that steady units must save."""


def kept_of(prefix: str, found: Mapping[str, Any]) -> Figures:
    """What units say of phones, and of the speaker to a linear probe."""
    names = {
        "purity": "phones.purity",
        "nmi": "phones.nmi",
        "pnmi": "phones.pnmi",
        "speaker": "speaker.tokens.accuracy",
    }
    return {f"{prefix}.{name}": float(found[key]) for name, key in names.items()}


def sizes_figures(bench: UnitBench) -> Figures:
    """C1: phones and speakers from units of several sizes, from the frames under them, and from units of letters."""
    figures: Figures = {}
    for count in bench.parts.config.counts:
        found = bench.measured(bench.parts.of_hubert(count))
        figures |= kept_of(f"c1.k{count}", found)
    figures |= {
        "c1.frames.speaker": float(found["speaker.features.accuracy"]),
        "c1.chance": float(found["speaker.tokens.chance"]),
    }
    found = bench.measured(bench.parts.letters)
    figures |= kept_of("c1.letters", found)
    figures["c1.letters.frames.speaker"] = float(found["speaker.features.accuracy"])
    held_out = [row for row in bench.parts.rows if row.split == "test"]
    return figures | {"c1.inverted": share_inverted(bench.parts.units, held_out)}


def steady_figures(bench: UnitBench) -> Figures:
    """C13: edits of units where the sound changes, and phones, before and after the training that makes them steady."""
    plain = bench.measured(bench.parts.of_hubert(bench.parts.config.clusters))
    steady = bench.measured(bench.parts.invariant)
    figures: Figures = {}
    for arm, found in (("plain", plain), ("steady", steady)):
        figures |= {
            f"c13.{arm}.{name.removeprefix('robustness.')}": float(value)
            for name, value in found.items()
            if name.startswith("robustness.") and name != "robustness.rows"
        }
        figures |= {f"c13.{arm}.purity": float(found["phones.purity"])}
    figures["c13.saved"] = 1 - figures["c13.steady.mean"] / figures["c13.plain.mean"]
    return figures


def check_units(given: Bench) -> Figures:
    """Units of several sizes, merged and steady ones, from one encoder."""
    bench = UnitBench(given, settings_of(given, UnitTokensConfig))
    return sizes_figures(bench) | steady_figures(bench) | merging_figures(bench, given)


def by_size(figures: Figures, key: str) -> list[float]:
    """A figure of every number of units, the fewest first. KeyError where there are none."""
    sizes = sorted(int(name.split(".")[1][1:]) for name in figures if name.startswith("c1.k") and name.endswith(key))
    return [figures[f"c1.k{size}{key}"] for size in sizes] or [figures[f"c1.k{key}"]]


def rises(figures: Figures, key: str) -> bool:
    """Whether a figure is larger with every further number of units."""
    values = by_size(figures, key)
    return all(one < other for one, other in zip(values, values[1:]))


SYSTEM = System(
    name="unit_tokens",
    title="units: k-means, unit BPE, steady units",
    row="C1, C12, C13",
    sentences=600,
    test_sentences=100,
    settings=UnitTokensConfig,
    check=check_units,
    differs="a HuBERT of one iteration at 25 frames a second, on the toy corpus; merged are units alone, not text with "
    "them; the models leave durations out",
    measures="phones and speakers by units of several sizes and by the frames under them; whether units come back from "
    "runs and from merged ids; bits a second of models of both; edits where the sound changes, before and after",
    targets=(
        Target("purity rises with the number of units", lambda f: rises(f, ".purity")),
        Target("so does mutual information over entropies", lambda f: rises(f, ".nmi")),
        Target("frames tell the speaker", lambda f: f["c1.frames.speaker"] >= 0.9),
        Target(
            "units tell next to nothing of the speaker",
            lambda f: max(by_size(f, ".speaker")) <= f["c1.chance"] + NEAR_CHANCE,
        ),
        Target("runs and durations invert exactly", lambda f: f["c1.inverted"] == 1),
        Target("merged ids and durations invert exactly", lambda f: f["c12.inverted"] == 1),
        Target("merged ids are fewer a second", lambda f: f["c12.merged.per_second"] < f["c12.units.per_second"]),
        Target(
            "a second of merged units takes no more bits, but by chance", lambda f: f["c12.bits_over_units.low"] <= 0
        ),
        Target("steady units save three edits of ten", lambda f: f["c13.saved"] >= FEWER_EDITS),
        Target("and are as pure in phones", lambda f: f["c13.steady.purity"] >= f["c13.plain.purity"]),
    ),
    measured=(
        Measured(
            "unitok systems run unit_tokens",
            {
                "c1.chance": 0.165,
                "c1.frames.speaker": 0.879,
                "c1.inverted": 1.0,
                "c1.k100.nmi": 0.531,
                "c1.k100.pnmi": 0.666,
                "c1.k100.purity": 0.626,
                "c1.k100.speaker": 0.532,
                "c1.k200.nmi": 0.548,
                "c1.k200.pnmi": 0.749,
                "c1.k200.purity": 0.71,
                "c1.k200.speaker": 0.537,
                "c1.k50.nmi": 0.488,
                "c1.k50.pnmi": 0.556,
                "c1.k50.purity": 0.514,
                "c1.k50.speaker": 0.506,
                "c1.letters.frames.speaker": 0.671,
                "c1.letters.nmi": 0.577,
                "c1.letters.pnmi": 0.718,
                "c1.letters.purity": 0.686,
                "c1.letters.speaker": 0.234,
                "c12.bits_over_units": 5.32,
                "c12.bits_over_units.high": 6.32,
                "c12.bits_over_units.low": 4.23,
                "c12.inverted": 1.0,
                "c12.merged.bits_per_second": 65.1,
                "c12.merged.bits_per_second.interval": 1.13,
                "c12.merged.per_second": 12.9,
                "c12.merged.ppl": 25.6,
                "c12.merged.ppl.interval": 1.44,
                "c12.units.bits_per_second": 59.8,
                "c12.units.bits_per_second.interval": 0.437,
                "c12.units.per_second": 22.7,
                "c12.units.ppl": 5.83,
                "c12.units.ppl.interval": 0.0752,
                "c13.plain.mean": 0.457,
                "c13.plain.noise": 0.394,
                "c13.plain.pitch": 0.543,
                "c13.plain.purity": 0.626,
                "c13.plain.room": 0.576,
                "c13.plain.stretch": 0.316,
                "c13.saved": 0.215,
                "c13.steady.mean": 0.359,
                "c13.steady.noise": 0.278,
                "c13.steady.pitch": 0.443,
                "c13.steady.purity": 0.648,
                "c13.steady.room": 0.388,
                "c13.steady.stretch": 0.327,
            },
            "d5d777e",
        ),
    ),
)
