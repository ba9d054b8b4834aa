"""What a subject is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Context:
    """How a subject is to run."""

    folder: Path
    """Scratch files: shards, exported checkpoints."""
    rounds: int
    """Times that every arm runs."""
    quick: bool
    """Sizes so small that only the plumbing is tried; figures mean nothing."""
    seed: int = 0
    """Seed of weights, prompts and lengths."""
    seeds: int = 1
    """Trainings of each arm, from `seed` on, where a subject compares what is learned."""
    updates: int = 0
    """Updates of such a training; 0 for the subject's own number."""
    bf16: bool = True
    """Whether bfloat16 arms run: not where the processor has no units for it."""
    report: Callable[[str], None] = print
    """Takes one line of progress."""
