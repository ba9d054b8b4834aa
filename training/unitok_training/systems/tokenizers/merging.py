"""Unit BPE (C12): ids that stand for several units, exactly back, and what a second of them takes to foretell.

F frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, expand
from unitok_training.evaluation.run import Evaluation
from unitok_training.fitting.tokenizers import load_recordings
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.token_bench import Build
from unitok_training.systems.base.token_scores import continued, nats, rows_with
from unitok_training.systems.tokenizers.unit_bench import UnitBench
from unitok_training.systems.tokenizers.unit_parts import MergedParts

HEADER = 4
"""Ids of an example beside its units."""
TASKS = {"slm": 1.0}
"""What models of units learn."""


def inverts(units: UnitTokenizer, frames: np.ndarray) -> bool:
    """Whether what shards hold of the units of a recording's frames (F,) gives exactly these again."""
    stored = units.stored(frames)
    again = expand(units.expanded(stored.ids), stored.unit_durations)
    return np.array_equal(again, frames) and int(stored.durations.sum()) == len(frames)


def share_inverted(units: UnitTokenizer, rows: list[Row]) -> float:
    """Share of recordings whose units come back."""
    found = units.encode_batch(load_recordings(rows, units.sample_rate))
    return float(np.mean([inverts(units, frames) for frames in found]))


def seconds_of(run: Evaluation, row: int) -> float:
    """How long a row's units last."""
    stream = run.stream("units")
    assert stream is not None and stream.frame_rate is not None, "units have a rate"
    return float(run.cell("units_durations", row).sum()) / float(stream.frame_rate)


def bits_and_ids(run: Evaluation) -> tuple[Counted, Counted]:
    """Bits that the held-out rows take out of their seconds, and out of their ids, ends included.

    How long units last is in neither: streams with other ids compare by the second.
    """
    rows = run.rows(run.split, "units")
    found = nats(run, continued(run, "slm", "units", rows))
    bits = found.counts / np.log(2)
    seconds = np.array([seconds_of(run, row) for row in rows])
    return Counted(counts=bits, sizes=seconds), Counted(counts=bits, sizes=found.sizes)


def mean_ids(shards: Shards) -> float:
    """Ids of a training row that is spoken, in the mean."""
    rows = rows_with(shards, ids_column("units"))
    return float(np.mean([len(shards.cell(ids_column("units"), row)) for row in rows]))


def mean_seconds(shards: Shards) -> float:
    """Seconds of a training row that is spoken, in the mean."""
    rate = shards.streams["units"].frame_rate
    assert rate is not None, "units have a rate"
    rows = rows_with(shards, "units_durations")
    return float(np.mean([shards.cell("units_durations", row).sum() for row in rows])) / float(rate)


def trained(bench: UnitBench, arm: str, build: Build | None = None) -> list[tuple[Counted, Counted]]:
    """Models of a bench's units, one a seed, and what each makes of the held-out rows."""
    return bench.over_seeds(arm, TASKS, bits_and_ids, build=build)


def arm_figures(arm: str, found: Sequence[tuple[Counted, Counted]]) -> Figures:
    """Bits a second, perplexity of an id, and ids a second, of the models of one kind of ids."""
    seconds, ids = zip(*found)
    return {
        **over_seeds(f"c12.{arm}.bits_per_second", [one.rate for one in seconds]),
        **over_seeds(f"c12.{arm}.ppl", [2**one.rate for one in ids]),
    }


def merging_figures(bench: UnitBench, given: Bench) -> Figures:
    """C12: the round trip of merged units, ids a second before and after, and models of both by the second."""
    merged = UnitBench(Bench(bench.run / "merged", given.config, given.report), bench.config)
    merged.parts = MergedParts(bench.parts)
    held_out = [row for row in bench.parts.rows if row.split == "test"]
    figures = {"c12.inverted": share_inverted(merged.parts.units, held_out)}
    sizes = [mean_ids(one.shards) for one in (bench, merged)]
    pack = round(bench.config.train.pack_size * (HEADER + sizes[1]) / (HEADER + sizes[0]))
    found = {"units": trained(bench, "units"), "merged": trained(merged, "merged", Build(pack_size=pack))}
    seconds, rate = mean_seconds(bench.shards), dict(zip(found, sizes))
    for arm, parts in found.items():
        figures |= {**arm_figures(arm, parts), f"c12.{arm}.per_second": rate[arm] / seconds}
    one, other = ([by_second for by_second, _ in found[arm]] for arm in ("merged", "units"))
    return figures | bench.compared("c12.bits_over_units", one, other)
