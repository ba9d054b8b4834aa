"""Shares and means with their intervals of 95 %: what a figure is worth that some hundred pairs gave.

N items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z = 1.959963984540054
"""Deviations of a normal distribution between which 95 % of it lies."""
DRAWS = 1000
"""Samples of a bootstrap."""
Values = Sequence[float] | np.ndarray
"""(N,) numbers."""


def wilson(right: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share: right of count → (low, high), 0 to 1; the whole range where there is nothing."""
    if not count:
        return 0.0, 1.0
    share, spread = right / count, Z * Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of some choices were right."""

    right: float
    """Choices that were; a tie is half of one."""
    count: int
    """Choices."""
    chance: float
    """Share that guessing reaches."""

    @property
    def value(self) -> float:
        """The share, 0 to 1; NaN of nothing."""
        return self.right / self.count if self.count else math.nan

    def to_json(self) -> dict[str, Any]:
        """`accuracy`, `low` and `high` (Wilson, 95 %), `chance`, `count`."""
        low, high = wilson(self.right, self.count)
        return {"accuracy": self.value, "low": low, "high": high, "chance": self.chance, "count": self.count}


def preferred(good: Values, bad: Values) -> Share:
    """How often the first of two is the greater: chance is a half, and a tie is half right."""
    better = np.asarray(good, np.float64) - np.asarray(bad, np.float64)
    return Share(right=float((better > 0).sum() + (better == 0).sum() / 2), count=len(better), chance=0.5)


def bootstrap_ratio(above: Values, below: Values, *, seed: int) -> tuple[float, float]:
    """Interval of sum ÷ sum over items (N,) that are drawn again with replacement: (low, high)."""
    one, other = np.asarray(above, np.float64), np.asarray(below, np.float64)
    random = np.random.default_rng(seed)
    drawn = random.integers(len(one), size=(DRAWS, len(one)))
    low, high = np.quantile(one[drawn].sum(1) / other[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_mean(values: Values, *, seed: int) -> tuple[float, float]:
    """Interval of the mean of values (N,)."""
    return bootstrap_ratio(values, np.ones(len(values)), seed=seed)
