"""dMel (Bai et al. 2024): channels of a spectrogram as codes without training, read and written by one architecture.

unitok systems run dmel -o runs/dmel

A recognizer and a synthesizer of the same shape, each with all channels of a frame predicted at once; beside them the
same two with units of a trained encoder.

F frames, M channels, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from unitok.generation.sampling import Sampling
from unitok_tokenizers.acoustic.dmel import DmelCodec, DmelConfig
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.fitting.tokenizers import load_recordings
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import HEADER, sounds, text_prompts, written
from unitok_training.systems.base.intervals import Counted, seeds_and_rates
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import (
    READS,
    Build,
    TokenBench,
    TokenBenchConfig,
    oracle_target,
    settings_of,
)
from unitok_training.systems.base.token_parts import PartsConfig, TokenParts
from unitok_training.systems.base.token_scores import recognized, rows_with, sentences_of, spoken
from unitok_training.tokbench.distance import signal_to_noise
from unitok_training.trainer.config import TrainConfig

PLAIN = ExampleOptions(voice_share=0.0)
ARMS: Mapping[str, tuple[str, str]] = {
    "read": ("asr.codes", "codes"),
    "said": ("vtts", "codes"),
    "units_read": ("asr", "units"),
    "units_said": ("tts.units", "units"),
}
"""Arm → its task, and what it reads or writes beside text."""
RANGED = 200
"""Training recordings whose log-mels the scale spans."""


@dataclass(frozen=True, kw_only=True)
class DmelPartsConfig(PartsConfig):
    """What the parts depend on."""

    bins: int = 16
    """Steps of the scale."""


class DmelParts(TokenParts):
    """The parts with log-mels as codes, on a scale from the lowest to the highest of the training recordings."""

    config: DmelPartsConfig

    def mels(self, row: Row) -> np.ndarray:
        """Log-mels (F, M) of a recording."""
        mel = MelConfig()
        return log_mel(torch.from_numpy(row.load(mel.sample_rate)), mel).numpy()

    @cached_property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest log-mel of the training recordings."""
        some = [self.mels(row) for row in self.rows if row.split == "train"][:RANGED]
        return min(float(one.min()) for one in some), max(float(one.max()) for one in some)

    def scaled(self, bins: int) -> DmelCodec:
        """Log-mels as codes of so many bins."""
        low, high = self.span
        return DmelCodec(DmelConfig(bins=bins, low=low, high=high))

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters and units, fitted to the training rows, and log-mels as codes."""
        folder = self.folder / "tokenizers"
        if not folder.exists():
            known = self.fitted("fitted")
            TokenizerSet.of(known.text, known.units, self.scaled(self.config.bins)).save(folder)
        return TokenizerSet.load(folder)

    @property
    def codec(self) -> DmelCodec:
        """Log-mels as codes."""
        found = self.tokenizers.codec
        assert isinstance(found, DmelCodec), "it is made with the units"
        return found

    def resynthesized(self, row: Row) -> np.ndarray:
        """A recording (S,) that went through codes and back."""
        return self.vocoder.from_codes(self.codec.encode(row.load(self.codec.sample_rate)), self.codec)

    def resynthesized_by_units(self, row: Row) -> np.ndarray:
        """A recording (S,) that went through units and back."""
        return super().resynthesized(row)


@dataclass(frozen=True, kw_only=True)
class DmelBenchConfig(TokenBenchConfig):
    """What the check depends on."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    """It scores fixed ones, which `dev` is none of."""

    parts: DmelPartsConfig = field(default_factory=DmelPartsConfig)
    """Corpus, tokenizers, scale."""
    bins: tuple[int, ...] = (8, 16, 32, 64)
    """Scales that recordings are resynthesized from, each twice as fine as the one before."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=400, pack_size=2048))
    """Training of an arm of log-mels; arms of units learn from equally many utterances."""
    temperature: float = 0.7
    """At which log-mels are drawn that are listened to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.bins) < 2 or any(other != 2 * one for one, other in zip(self.bins, self.bins[1:])):
            raise InputError(f"bins is {self.bins}: give two scales or more, each twice as fine as the one before")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}: it must be above 0")


class DmelBench(TokenBench):
    """A run folder in which systems of log-mels are trained and scored."""

    Parts = DmelParts
    parts: DmelParts

    def build(self, kind: str) -> Build:
        """What an arm is built of that reads or writes `codes` or `units`: packs hold equally many utterances."""
        if kind == "codes":
            return Build(model=ModelChoice(layout="channels"))
        shards = self.shards
        rows = rows_with(shards, ids_column("units"))
        text = float(np.mean([len(shards.cell("text_ids", row)) for row in rows]))
        units = float(np.mean([len(shards.cell("units", row)) for row in rows]))
        frames = float(np.mean([len(shards.codes(row, "codes")) for row in rows]))
        share = (HEADER + text + units) / (HEADER + text + frames)
        return Build(pack_size=max(1, round(share * self.config.train.pack_size)))


def scored(bench: DmelBench, run: Evaluation, arm: str, temperature: float) -> Counted:
    """Word errors of what a model reads, or of what the oracle hears it say."""
    rows = bench.some(run, "units", "codes", "text_ids")
    texts, langs = [run.text(row) for row in rows], [run.lang(row) for row in rows]
    if arm == "units_read":
        return recognized(run, rows)
    if arm == "units_said":
        return spoken(run, rows, bench.parts.oracle)
    if arm == "said":
        audio = sounds(written(run, text_prompts(run, rows), Sampling(temperature=temperature)))
        return bench.parts.oracle.errors(audio, texts, langs).of(sentences_of(run, rows))
    return recognized(run, rows, "codes")


def check_dmel(given: Bench) -> Figures:
    """How much of a spectrogram is kept by bins, and word errors of reading and speaking, beside units."""
    config = settings_of(given, DmelBenchConfig)
    bench = DmelBench(given, config)
    figures, errors = bench.oracle_figures("c10"), dict[str, list[Counted]]()
    held_out = [row for row in bench.parts.rows if row.split == "test"][: config.limit]
    recordings = load_recordings(held_out)
    figures |= {f"c10.snr.{bins}": signal_to_noise(bench.parts.scaled(bins), recordings) for bins in config.bins}
    made = [bench.parts.resynthesized_by_units(row) for row in held_out]
    heard = bench.parts.oracle.errors(made, [row.text or "" for row in held_out], [row.lang for row in held_out])
    figures["c10.oracle.units_accuracy"] = 1.0 - heard.rate
    for arm, (task, kind) in ARMS.items():

        def score(run: Evaluation, arm: str = arm) -> Counted:
            return scored(bench, run, arm, config.temperature)

        errors[arm] = bench.over_seeds(arm, {task: 1.0}, score, options=PLAIN, build=bench.build(kind))
    figures |= {f"c10.{key}": value for key, value in seeds_and_rates(errors, "wer").items()}
    for arm in ("read", "said"):
        figures |= bench.compared(f"c10.{arm}_wer_over_units", errors[arm], errors[f"units_{arm}"])
    steps = [figures[f"c10.snr.{bins}"] for bins in config.bins]
    figures["c10.snr.least_by_doubling"] = float(np.diff(steps).min())
    return figures


SYSTEM = System(
    name="dmel",
    title="dMel",
    row="C10",
    sentences=600,
    test_sentences=100,
    settings=DmelBenchConfig,
    check=check_dmel,
    differs="100 frames a second instead of 40, since toy letters last 60 ms; Griffin-Lim instead of a trained "
    "vocoder; no voice is told; log-mels are drawn, units are the likeliest ones; a toy corpus of one language, on "
    "which units of a small recognizer of letters, which know its texts, stand for the specialized methods",
    measures="signal-to-noise ratio of log-mels by the bins of their scale; word errors of a recognizer and of a "
    "synthesizer (heard by the oracle) of one shape, from and to log-mels, beside the same from and to units",
    targets=(
        oracle_target("c10"),
        Target("… and what was resynthesized from units", lambda f: f["c10.oracle.units_accuracy"] >= READS),
        Target("twice the bins, 5 dB more at least", lambda f: f["c10.snr.least_by_doubling"] >= 5),
        Target("no more words are read wrong than from units", lambda f: f["c10.read_wer_over_units"] <= 0),
        Target("… or not more but for chance, read", lambda f: f["c10.read_wer_over_units.low"] <= 0),
        Target("no more words are said wrong than in units", lambda f: f["c10.said_wer_over_units"] <= 0),
        Target("… or not more but for chance, said", lambda f: f["c10.said_wer_over_units.low"] <= 0),
    ),
    measured=(
        Measured(
            "unitok systems run dmel",
            {
                "c10.oracle.accuracy": 0.978,
                "c10.oracle.units_accuracy": 0.994,
                "c10.read.wer": 0.117,
                "c10.read.wer.interval": 0.141,
                "c10.read_wer_over_units": -0.0492,
                "c10.read_wer_over_units.high": 0.00359,
                "c10.read_wer_over_units.low": -0.101,
                "c10.said.wer": 1.96,
                "c10.said.wer.interval": 0.145,
                "c10.said_wer_over_units": 1.79,
                "c10.said_wer_over_units.high": 1.9,
                "c10.said_wer_over_units.low": 1.67,
                "c10.snr.16": 20.2,
                "c10.snr.32": 26.0,
                "c10.snr.64": 32.0,
                "c10.snr.8": 13.8,
                "c10.snr.least_by_doubling": 5.84,
                "c10.units_read.wer": 0.166,
                "c10.units_read.wer.interval": 0.0982,
                "c10.units_said.wer": 0.173,
                "c10.units_said.wer.interval": 0.0862,
            },
            "5c2c526",
        ),
    ),
)
