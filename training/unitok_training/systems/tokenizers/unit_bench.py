"""The bench of units: what `unitok tokbench` measures of them, and models of them as all flat tokens have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from unitok_tokenizers.compute import resolve
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig
from unitok_training.systems.tokenizers.unit_parts import UnitParts, UnitPartsConfig
from unitok_training.tokbench.contestants import contestants
from unitok_training.tokbench.corpus import Corpus
from unitok_training.tokbench.hearing import Hearing
from unitok_training.tokbench.run import Bench as Tokbench
from unitok_training.tokbench.run import TokbenchConfig
from unitok_training.tokbench.text_alignment import ReaderConfig
from unitok_training.trainer.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class UnitTokensConfig(TokenBenchConfig):
    """What the check depends on."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    """It scores fixed ones, which `dev` is none of."""

    parts: UnitPartsConfig = field(default_factory=UnitPartsConfig)
    """Corpus, encoder, units."""
    spoken: int = 600
    """Training sentences beside the corpus, spoken: the corpus alone is learned by heart."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=300))
    """Training of a model of units; the seed is that of the model. Packs of merged ids hold as many utterances."""


class UnitBench(TokenBench):
    """A run folder in which units are measured and modeled."""

    Parts = UnitParts
    parts: UnitParts

    @cached_property
    def tokbench(self) -> Tokbench:
        """What tokenizers are compared by: held-out sentences by held-out voices."""
        rows = self.parts.rows
        corpus = Corpus.of(rows, split="test", limit=len(rows), train_limit=len(rows), seed=self.config.seed)
        return Tokbench(
            corpus=corpus,
            hearing=Hearing(ears=None, corpus=corpus, without="nothing is spoken"),
            config=TokbenchConfig(reader=ReaderConfig(steps=0), seed=self.config.seed),
            compute=resolve("cpu", self.parts.precision),
            out=self.run / "tokbench",
            notice=self.report,
        )

    def measured(self, folder: Path) -> Mapping[str, Any]:
        """Figures of `unitok tokbench` of the units in a folder of tokenizers."""
        (one,) = contestants([folder], self.tokbench.compute)
        found = self.tokbench.kept(one.name, one.info.fingerprint, lambda: self.tokbench.contestant(one))
        return found.figures
