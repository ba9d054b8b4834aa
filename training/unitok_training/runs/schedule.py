"""Which stages of a pipeline start when, and how long a run takes by what its stages are expected to take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a pipeline."""

    name: str
    """Key of its record, its log file and its seconds in the metrics."""
    function: str
    """`module:function`, called as function(run folder, configuration as a JSON object, *arguments)."""
    arguments: tuple[str, ...] = ()
    """What tells stages of the same function apart."""
    needs: tuple[str, ...] = ()
    """Stages that must be finished before."""
    threads: int = 1
    """CPU threads it uses; stages run side by side while their threads fit the machine."""
    settings: tuple[str, ...] = ()
    """Configuration keys that change its result: the others may change without running it again."""
    files: tuple[str, ...] = ()
    """Those of them that name files, or folders, whose content changes its result too."""
    tables: tuple[str, ...] = ()
    """Those of the files that are manifests, of which the recordings change its result as well."""
    also: tuple[str, ...] = ()
    """What else its result depends on, such as what is installed."""


def startable(
    stages: Sequence[Stage], threads: int, done: Collection[str], running: Collection[str]
) -> list[tuple[Stage, int]]:
    """Stages that can start now, each with its threads, where `running` ones use theirs.

    They start in their listed order, so that a run takes the same course every time: one that waits for threads lets
    no later one past.
    """
    free = threads - sum(min(stage.threads, threads) for stage in stages if stage.name in running)
    found: list[tuple[Stage, int]] = []
    for stage in stages:
        if stage.name in done or stage.name in running or not all(name in done for name in stage.needs):
            continue
        wanted = min(stage.threads, threads)
        if wanted > free:
            break
        found.append((stage, wanted))
        free -= wanted
    return found


def seconds_until_done(
    stages: Sequence[Stage], threads: int, left: Mapping[str, float], running: Collection[str]
) -> float:
    """Seconds until every stage is done.

    Args:
        stages: in their listed order.
        threads: of the machine.
        left: seconds that each unfinished stage still takes; the others are done.
        running: those of them that have started.
    """
    done = {stage.name for stage in stages if stage.name not in left}
    ends = {name: left[name] for name in running}
    now = 0.0
    while len(done) < len(stages):
        for stage, _ in startable(stages, threads, done, ends):
            ends[stage.name] = now + left[stage.name]
        first = min(ends, key=lambda name: ends[name])
        now = ends.pop(first)
        done.add(first)
    return now
