"""Arms that run in turn, and what is said of them: the median of the rounds and how far these lie apart."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to do the work."""

    name: str
    """Key in the results, such as `unitok.bf16`."""
    run: Callable[[], float]
    """Do it once; returns the figure of this round."""
    unit: str
    """Unit of the figure."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a reader needs to repeat it: precision, flags, versions."""
    rivals: str = ""
    """Arms with the same word are one program with different flags: after the first round only the fastest goes on."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the rounds of an arm gave."""

    unit: str
    median: float
    low: float
    """Least of the rounds."""
    high: float
    """Greatest of the rounds."""
    rounds: tuple[float, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is written to the results."""
        return asdict(self)


def measured(values: Sequence[float], unit: str, settings: Mapping[str, Any] | None = None) -> Measured:
    """Median and spread of rounds."""
    return Measured(
        unit=unit,
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        rounds=tuple(values),
        settings=dict(settings or {}),
    )


def interleave(
    arms: Sequence[Arm], rounds: int, report: Callable[[str], None] = print
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Run all arms once, then all again, …; returns what they gave, and why an arm that failed gave nothing.

    An arm that raises is left out from then on: one peer that does not work here must not end the whole run. Of rivals
    only the fastest of the first round is measured again; the others keep the figure of that round.
    """
    values: dict[str, list[float]] = {arm.name: [] for arm in arms}
    failed: dict[str, str] = {}
    beaten: set[str] = set()
    for number in range(rounds):
        for arm in arms:
            if arm.name in failed or arm.name in beaten:
                continue
            gc.collect()
            try:
                value = arm.run()
            except Exception as error:  # whatever a peer's package raises
                lines = str(error).strip().splitlines()
                failed[arm.name] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
                report(f"  {arm.name}: failed ({failed[arm.name]})")
                continue
            values[arm.name].append(value)
            report(f"  round {number + 1}, {arm.name}: {value:.4g} {arm.unit}")
        if number == 0:
            beaten = slower_rivals(arms, {name: found[0] for name, found in values.items() if found})
    found = {arm.name: measured(values[arm.name], arm.unit, arm.settings) for arm in arms if values[arm.name]}
    return found, failed


def slower_rivals(arms: Sequence[Arm], figures: Mapping[str, float]) -> set[str]:
    """Arms whose rival has a higher figure."""
    best: dict[str, float] = {}
    for arm in arms:
        if arm.rivals and arm.name in figures:
            best[arm.rivals] = max(best.get(arm.rivals, figures[arm.name]), figures[arm.name])
    return {arm.name for arm in arms if arm.name in figures and figures[arm.name] < best.get(arm.rivals, -1.0)}


def fastest(found: Mapping[str, Measured], names: Iterable[str]) -> str | None:
    """The arm with the highest median among those that were measured."""
    return max((name for name in names if name in found), key=lambda name: found[name].median, default=None)


def ratio(found: Mapping[str, Measured], over: str | None, under: str | None) -> float | None:
    """Median of one arm ÷ median of another; None where one of them is missing."""
    if over is None or under is None or over not in found or under not in found or not found[under].median:
        return None
    return found[over].median / found[under].median


def largest_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Largest relative difference of two loss curves of the same length."""
    assert len(first) == len(second) and first, (len(first), len(second))
    return max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(first, second))
