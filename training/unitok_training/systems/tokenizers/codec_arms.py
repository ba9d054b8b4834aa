"""Codecs of one corpus that differ in one option: trained with several seeds and kept, and heard by the oracle.

S samples, F mel frames (100 Hz), T latent frames (25 Hz), Q codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, fingerprint
from unitok_tokenizers.seeds import check_seed
from unitok_training.fitting.codec import UNTAUGHT, CodecConfig
from unitok_training.fitting.tokenizers import fit_codec, some_recorded
from unitok_training.recipes.config import overridden
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, compared
from unitok_training.systems.base.token_bench import MOST_SEEDS
from unitok_training.systems.base.token_parts import PartsConfig, TokenParts, voices_heard, word_errors, words_heard
from unitok_vocoder.vocoder import Vocoder


@dataclass(frozen=True, kw_only=True)
class CodecArmsConfig:
    """What a check of codecs depends on."""

    parts: PartsConfig = field(default_factory=lambda: PartsConfig(clusters=256))
    """Corpus, and units whose encoder teaches; as many units as the first codebook has codes."""
    parts_folder: str = ""
    """Where corpus, units and codecs are kept, for several runs to share; in the run's own folder where empty."""
    codec: CodecConfig = field(
        default_factory=lambda: CodecConfig(steps=240, batch=12, codebooks=3, cardinality=256, dropped=0.5)
    )
    """Training of a codec; the seed is that of the arm. Behind the first codebook stand `codebooks`."""
    taught: float = 2.0
    """Weight of the distillation of a first codebook that is taught."""
    code_width: int = 8
    """Width of factorized codes."""
    seeds: int = 3
    """Trainings of each codec."""
    resamples: int = 1000
    """Draws of a paired bootstrap."""
    limit: int = 24
    """Most held-out sentences that are heard."""
    seed: int = 0
    """First seed of the trainings, and seed of every draw of the scores."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InputError(f"seeds is {self.seeds}: train each codec 1 to {MOST_SEEDS} times")
        for name in ("resamples", "limit", "code_width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not self.taught > UNTAUGHT:
            raise InputError(f"taught is {self.taught}: the weight of a distillation is above 0")

    @property
    def arms(self) -> Mapping[str, CodecConfig]:
        """Name → training of each codec.

        `plain` is residual quantization (Zeghidour et al. 2021), `factorized` the same with codes of few dimensions
        that are looked up by their angle (DAC, Kumar et al. 2023), `units` has k-means units in the place of its first
        codebook, `taught` a first codebook that is distilled (SpeechTokenizer, Zhang et al. 2023), and `split` one that
        the others stand beside, not behind (Mimi, Défossez et al. 2024).
        """
        plain, taught = (replace(self.codec, distilled=weight) for weight in (UNTAUGHT, self.taught))
        return {
            "plain": plain,
            "factorized": replace(plain, code_width=self.code_width),
            "units": replace(self.codec, distilled=0.0),
            "taught": taught,
            "split": replace(taught, split=True),
        }


Config = TypeVar("Config", bound=CodecArmsConfig)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the oracle hears in recordings that were made of codes."""

    errors: Counted
    """Word errors of each."""
    voice: Counted
    """Whether it names the speaker that is asked for."""


class CodecArms:
    """A run folder in which codecs are trained and heard."""

    def __init__(self, bench: Bench, config: CodecArmsConfig) -> None:
        self.run, self.config, self.report = bench.run, config, bench.report
        root = Path(config.parts_folder) if config.parts_folder else bench.run / "parts"
        self.parts = TokenParts(root, config.parts, precision=bench.config.precision, report=bench.report)

    @cached_property
    def compute(self) -> Compute:
        """Where codes are measured."""
        return resolve("cpu", self.parts.precision)

    @property
    def seeds(self) -> range:
        """Of the trainings."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def codec(self, arm: str, seed: int) -> MelCodec:
        """A codec, which is trained unless it is there."""
        wanted = replace(self.config.arms[arm], seed=seed)
        folder = self.parts.folder / "codecs" / f"{arm}-{seed}-{fingerprint(asdict(wanted))}"
        if not folder.exists():
            rows, units = self.parts.rows, self.parts.units
            self.report(f"{arm}, seed {seed}: {wanted.steps} steps")
            made = fit_codec(rows, units, replace(self.parts.fit_config(), codec=wanted))
            with atomic_directory(folder) as draft:
                made.save(draft)
        return MelCodec.load(folder)

    def held_out(self, split: str) -> list[Row]:
        """Rows of a split: `test` by held-out voices, `test_seen` the same sentences by those of the training."""
        return [row for row in self.parts.rows if row.split == split]

    def some(self, split: str) -> list[Row]:
        """At most as many of them as are heard."""
        return some_recorded(self.held_out(split), self.config.limit, self.config.seed)

    def heard(self, codec: MelCodec, tables: Sequence[np.ndarray], rows: Sequence[Row], voices: Sequence[str]) -> Heard:
        """Codes (T, Q') each of the first codebooks, spoken by Griffin-Lim: the words of `rows`, and whose voice."""
        vocoder = Vocoder(None, mel_config=codec.mel)
        audio = [vocoder.from_features(torch.from_numpy(codec.decode_features(table))) for table in tables]
        found = self.parts.oracle.hear(audio, [row.lang for row in rows])
        return Heard(
            errors=word_errors([row.text or "" for row in rows], words_heard(found)),
            voice=voices_heard(found, voices),
        )

    def compared(self, key: str, one: Sequence[Counted], other: Sequence[Counted]) -> Figures:
        """How much larger one arm's rate is, with the ends of a paired bootstrap over sentences of all seeds."""
        return compared(key, one, other, resamples=self.config.resamples, seed=self.config.seed)


def arms_of(bench: Bench, make: type[Config]) -> tuple[CodecArms, Config]:
    """A check's bench and its settings, after the run's sizes, seed and overrides."""
    given, config = bench.config, make()
    parts = replace(config.parts, sentences=given.sentences, test_sentences=given.test_sentences, seed=given.seed)
    config = overridden(replace(config, parts=parts, seed=given.seed), given.overrides)
    return CodecArms(bench, config), config
