"""What a system is: recipes, what differs from the paper, a check, what it must show and what it showed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unitok_training.evaluation.safety import is_healthy
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures


@dataclass(frozen=True)
class Target:
    """What a paper claims, said of a check's figures."""

    claim: str
    """In words."""
    holds: Callable[[Figures], bool]
    """Whether figures bear it out."""


@dataclass(frozen=True)
class Measured:
    """Figures of a check as a command gave them, with seed 0 or from it on."""

    command: str
    """The command."""
    figures: Figures
    """What it wrote, rounded."""
    commit: str = ""
    """Of this repository, that the command was run on; empty of figures that were taken before it was kept."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """How a thousand answers end that the first seed's model of an arm draws from its bare distribution, by
    `unitok evaluate RUN/ARM-0/model RUN/shards --safety 1000`."""

    arm: str
    """Which of the check."""
    task: str
    """Key of what is answered."""
    endless_loops: int
    """Answers that went round in a cycle until a limit closed them."""
    loops_cut: int
    """Those whose cycle the loop guard closed."""
    runaway: int
    """Those that exceed their limit, or are not closed."""
    empty_share: float
    """Share that holds nothing."""
    eos_share: float
    """Share that ended by itself."""
    commit: str
    """Of this repository, that the command was run on."""

    @property
    def healthy(self) -> bool:
        """See `is_healthy`."""
        return is_healthy(loops=self.endless_loops, runaways=self.runaway, empty_share=self.empty_share)


@dataclass(frozen=True, kw_only=True)
class System:
    """A published system as recipes over our parts: one file, one line of the registry."""

    name: str
    """Registry name."""
    title: str
    """What people call it."""
    row: str
    """Its place among the systems of the surveys: A text, B latent, C tokens, E evaluations."""
    recipes: tuple[Callable[[], LatentRecipe], ...] = ()
    """Recipes that it is made of, in the order of their training; each is a preset of `unitok train-latent`."""
    differs: str
    """What differs from the paper."""
    check: Callable[[Bench], Figures] | None = None
    """Trains it on a corpus that is made here and measures what the paper claims; None where a recipe is all."""
    measures: str = ""
    """What the check measures."""
    settings: type | None = None
    """Class of the settings that `--set` changes; None for the recipes' own keys."""
    sentences: int = 2400
    """Training sentences of the check."""
    test_sentences: int = 120
    """Held-out sentences of the check."""
    targets: tuple[Target, ...] = ()
    """What its figures must show."""
    measured: tuple[Measured, ...] = ()
    """What they showed."""
    sampled: tuple[Sampled, ...] = ()
    """How answers of its models end."""

    @property
    def limited(self) -> bool:
        """Whether `limit` says how many rows its check scores; settings have one of their own, or none."""
        return self.settings is None

    def verdicts(self, figures: Figures) -> dict[str, str]:
        """Claim → met, missed, or not measured where the figures do not have what it is about."""
        found = {}
        for target in self.targets:
            try:
                found[target.claim] = "met" if target.holds(figures) else "missed"
            except KeyError:
                found[target.claim] = "not measured"
        return found
