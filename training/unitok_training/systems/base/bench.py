"""The run folder in which a system is tried: a corpus that is made, recipes that are trained once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from unitok.model import Model
from unitok_tokenizers.corpora.toy_rich import make_rich_corpus
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder, fingerprint, read_json, write_json
from unitok_tokenizers.seeds import check_seed
from unitok_training.data.latent_tasks import (
    LATENT_TASKS,
    PromptSpans,
    RowTexts,
)
from unitok_training.evaluation.latent import Question
from unitok_training.evaluation.run import drawn
from unitok_training.recipes.config import overridden
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.train_latent import train_latent

Figures = dict[str, float]


Trained = TypeVar("Trained")


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """What a check depends on."""

    sentences: int = 0
    """Training sentences of the corpus; the system's own number where 0."""
    test_sentences: int = 0
    """Held-out sentences, by held-out voices and by known ones; the system's own number where 0."""
    overrides: tuple[str, ...] = ()
    """`key=value` overrides of every recipe of the check, or of its own settings."""
    seed: int = 0
    """Seed of everything random."""
    limit: int = 100
    """Most rows that are scored."""
    precision: str | None = None
    """Of everything that is trained; None leaves it to each recipe. A repeat may change it."""

    def precisely(self, config: Trained) -> Trained:
        """A training's configuration in this precision."""
        return config if self.precision is None else replace(config, precision=self.precision)  # type: ignore[type-var]

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least in (("limit", 1), ("sentences", 0), ("test_sentences", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: give 1 or more")


class Bench:
    """A run folder in which corpora are made and recipes are trained once."""

    def __init__(self, run: Path, config: SystemConfig, report: Callable[[str], None]) -> None:
        self.run, self.config, self.report = run, config, report

    def rows(self, *, names: int = 0, name_noise: float = 0.0, session: int = 0) -> list[Row]:
        """The corpus."""
        manifest = self.run / "corpus" / "manifest.jsonl"
        if not manifest.exists():
            self.report("corpus")
            make_rich_corpus(
                manifest.parent, sentences=self.config.sentences, test_sentences=self.config.test_sentences,
                names=names, name_noise=name_noise, session=session, seed=self.config.seed,
            )  # fmt: skip
        return read_manifest(manifest)

    def recipe(self, make: Callable[[], LatentRecipe]) -> LatentRecipe:
        """A recipe with the overrides, seed and precision of this run."""
        recipe = overridden(make(), self.config.overrides)
        return replace(recipe, train=self.config.precisely(replace(recipe.train, seed=self.config.seed)))

    def train(self, make: Callable[[], LatentRecipe], rows: Sequence[Row], *, name: str = "", start: str = "") -> Model:
        """The model of a recipe, from a start that was trained here; `name` is its folder, by default the recipe's."""
        recipe = self.recipe(make)
        self.report(f"{name or recipe.name}: {recipe.train.steps} steps")
        begin = self.run / start / "model" if start else None
        return train_latent(recipe, rows, self.run / (name or recipe.name), start=begin, split="").model

    def taught(
        self, make: Callable[[], LatentRecipe], rows: Sequence[Row], *, after: Callable[[], LatentRecipe]
    ) -> Model:
        """The model of a recipe from one that transcribes, which is trained first."""
        self.train(after, rows)
        return self.train(make, rows, start=after().name)

    def held_out(self, rows: Sequence[Row], split: str = "test") -> list[Row]:
        """Rows of a split, at most as many as are scored, with the texts that go with them."""
        heard = drawn([row for row in rows if row.split == split and row.audio is not None], self.config.limit)
        groups = {row.group for row in heard}
        return [*heard, *(row for row in rows if row.audio is None and row.group in groups)]


def told(table: RowTexts, row: int, said: PromptSpans) -> Question:
    """The transcript of a row, asked with what is told."""
    line = LATENT_TASKS["asr"]
    text = table.rows[row].text or ""
    plan = line.plan(table, row, None, "", None, said)
    return Question(plan, tuple(table.rows[heard] for heard in said.heard), text)


def keep_settings(run: Path, settings: Mapping[str, Any]) -> None:
    """Write a run's settings; InputError where the folder holds a run with others, whose parts do not fit.

    Settings that nothing was made with, as those of a run that was refused, are written over.
    """
    ensure_folder(run)
    run.mkdir(parents=True, exist_ok=True)
    path, key = run / "settings.json", fingerprint(dict(settings))
    made = any(one != path for one in run.iterdir())
    if made and not path.exists():
        raise InputError(f"{run} holds files that are of no run of this command; choose another output folder")
    if made and path.exists() and read_json(path)["key"] != key:
        raise InputError(f"{run} holds a run with other settings; choose another output folder")
    write_json(path, {"key": key, **settings})
