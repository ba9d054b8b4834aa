"""What speech costs a decoder to learn: data, a start from text, merged units, the layout of codes, in a sheet (E10).

unitok systems run scaling_sheet -o runs/scaling_sheet

Every cell is trained in as many updates of as many utterances; what differs is how much speech they are drawn from,
what the decoder knew before, and how a second of speech is laid. Bits are those of a second of held-out speech: of
units, or of the codes that say a given text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.fitting.tokenizers import merge_units
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import (
    CODES_ALONE,
    HEADER,
    CodeBench,
    CodeBenchConfig,
    CodeParts,
    code_nats,
)
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import System, Target
from unitok_training.systems.base.token_bench import Build, settings_of
from unitok_training.systems.tokenizers.merging import bits_and_ids, mean_ids
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.metrics import read_metrics
from unitok_vocoder.vocoder import Vocoder

PLAIN = ExampleOptions(voice_share=0.0)
TEXT: Mapping[str, float] = {"lm": 1.0}
STREAMS: Mapping[str, str] = {"units": "slm", "merged": "slm", "flat": CODES_ALONE, "depth": CODES_ALONE}
"""How speech is laid → what is learned of it."""
STARTS = ("cold", "warm")
FEWEST_AMOUNTS = 2


@dataclass(frozen=True, kw_only=True)
class SheetConfig(CodeBenchConfig):
    """What the check depends on."""

    idle: ClassVar[Mapping[str, str]] = {"spoken": "amounts says how many sentences are spoken"}

    amounts: tuple[int, ...] = (40, 300, 2400)
    """Spoken training sentences, the fewest first; those beyond the corpus are spoken for this."""
    merged: int = 300
    """Ids that units are merged to, units included."""
    texts: int = 2000
    """Sentences of text alone, which a start from text has read."""
    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=150))
    """Training of a cell of units; packs of others hold as many utterances."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.amounts) < FEWEST_AMOUNTS or list(self.amounts) != sorted(set(self.amounts)) or self.amounts[0] < 1:
            raise InputError(
                f"amounts is {list(self.amounts)}: give two or more numbers of sentences, the fewest first"
            )
        if self.merged <= self.parts.clusters:
            raise InputError(
                f"merged is {self.merged}: give more ids than there are units (parts.clusters, {self.parts.clusters})"
            )


class SheetParts(CodeParts):
    """So many sentences of other parts, in one kind of tokens; `beyond` them and the corpus, texts are of none that is
    spoken for any amount."""

    def __init__(self, plain: CodeParts, stream: str, amount: int, *, merged: int, beyond: int) -> None:
        super().__init__(plain.folder, plain.config, precision=plain.precision, report=plain.report)
        self.plain, self.stream, self.amount, self.merged, self.beyond = plain, stream, amount, merged, beyond
        self.folder = plain.folder / (
            f"merged-{merged}" if stream == "merged" else "units" if stream == "units" else ""
        )

    @cached_property
    def rows(self) -> list[Row]:
        """Held-out rows, and the first of the training."""
        return first_rows(self.plain, self.amount)

    def texts(self, first: int, count: int) -> list[Row]:
        """Sentences of text alone, behind all that are spoken."""
        return super().texts(first + self.beyond, count)

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters and units, merged ones, or units with the codec: fitted to the corpus, whatever the amount."""
        if self.stream in ("flat", "depth"):
            return self.plain.tokenizers
        folder = Path(self.folder) / "tokenizers"
        if not folder.exists():
            units = self.plain.units
            if self.stream == "merged":
                units, said = merge_units(self.plain.rows, units, replace(self.fit_config(), unit_bpe=self.merged))
                self.report(said)
            TokenizerSet.of(self.plain.tokenizers.text, units).save(folder)
        return TokenizerSet.load(folder)

    @cached_property
    def vocoder(self) -> Vocoder:
        """Nothing: no cell is listened to."""
        return Vocoder(None)


def first_rows(parts: CodeParts, amount: int) -> list[Row]:
    """Held-out rows of the corpus and so many training ones, of sentences that follow it where it has too few."""
    training = [row for row in parts.rows if row.split == "train"]
    if amount > len(training):
        training += parts.spoken(amount - len(training))
    return [*training[:amount], *(row for row in parts.rows if row.split != "train")]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell of the sheet gave."""

    bits: list[Counted]
    """Of every seed: bits out of seconds of held-out speech."""
    tokens: float
    """Decoder tokens that were trained on, in the mean."""
    seconds: float
    """Of the training, one thread, in the mean."""


class SheetBench(CodeBench):
    """A run folder with the cells of one kind of tokens and one amount."""

    config: SheetConfig

    def __init__(self, given: Bench, config: SheetConfig, parts: SheetParts) -> None:
        name = f"{parts.stream}-{parts.amount}"
        super().__init__(Bench(given.run / name, given.config, given.report), config)
        self.parts, self.stream = parts, parts.stream

    def build(self, usual: float) -> Build:
        """What a cell is built of; `usual` are the ids of an utterance of units, header included, in a full pack."""
        config, pack = self.config, self.config.train.pack_size
        if self.stream == "depth":
            return Build(decoder=config.core, model=config.depth, pack_size=round(pack * self.length(1) / usual))
        if self.stream == "flat":
            return Build(pack_size=round(pack * self.length(len(self.parts.codec.cardinalities)) / usual))
        return Build(pack_size=round(pack * self.units_length() / usual))

    def units_length(self) -> float:
        """Positions of a training utterance of units, in the mean."""
        return HEADER + mean_ids(self.shards)

    def bits(self, run: Evaluation) -> Counted:
        """Bits of held-out seconds."""
        if self.stream in ("units", "merged"):
            return bits_and_ids(run)[0]
        found = code_nats(run)
        return Counted(counts=found.counts / np.log(2), sizes=found.sizes)

    def cell(self, start: str, usual: float, begin: Path | None) -> Cell:
        """A cell, of every seed."""
        bits = self.over_seeds(start, {STREAMS[self.stream]: 1.0}, self.bits, start=begin, options=PLAIN,
                               build=self.build(usual))  # fmt: skip
        logs = [read_metrics(self.run / f"{start}-{seed}" / "metrics.jsonl") for seed in self.seeds]
        tokens, seconds = (
            float(np.mean([sum(row[key] for row in log) for log in logs])) for key in ("tokens", "seconds")
        )
        return Cell(bits=bits, tokens=tokens, seconds=seconds)


def starts(benches: Mapping[tuple[str, int], SheetBench], config: SheetConfig) -> dict[str, Path]:
    """Kind of tokens → a decoder that knows text. Codes join the vocabulary of one that has units."""
    most = config.amounts[-1]

    def start(bench: SheetBench, name: str, build: Build) -> Path:
        bench.train(name, TEXT, seed=config.seed, steps=config.start_steps, build=build)
        return bench.run / name / "model"

    units, merged = benches["units", most], benches["merged", most]
    whole = start(units, "start", Build())
    return {
        "units": whole,
        "flat": whole,
        "merged": start(merged, "start", Build()),
        "depth": start(units, "start-core", Build(decoder=config.core)),
    }


def check_sheet(given: Bench) -> Figures:
    """Bits of a second, decoder tokens and seconds of the training, of every cell."""
    config = settings_of(given, SheetConfig)
    plain = CodeBench(given, config).parts
    beyond = max(0, config.amounts[-1] - sum(row.split == "train" for row in plain.rows))
    benches = {
        (stream, amount): SheetBench(
            given, config, SheetParts(plain, stream, amount, merged=config.merged, beyond=beyond)
        )
        for amount in config.amounts
        for stream in STREAMS
    }
    begin, cells = starts(benches, config), dict[tuple[str, str, int], Cell]()
    usual, figures = benches["units", config.amounts[-1]].units_length(), Figures()
    for place, amount in enumerate(config.amounts):
        rows = [row for row in first_rows(plain, amount) if row.split == "train"]
        shards = benches["units", amount].shards
        figures[f"e10.data{place}.sentences"] = float(len(rows))
        seconds = sum(float(shards.seconds[row]) for row in range(len(shards)) if shards.split[row] == "train")
        figures[f"e10.data{place}.hours"] = seconds / 3600
        for stream in STREAMS:
            for start in STARTS:
                bench = benches[stream, amount]
                cell = bench.cell(start, usual, begin[stream] if start == "warm" else None)
                cells[stream, start, place] = cell
                key = f"e10.{stream}.{start}.data{place}"
                figures |= over_seeds(f"{key}.bits_per_second", [one.rate for one in cell.bits])
                figures |= {f"{key}.tokens": cell.tokens, f"{key}.seconds": cell.seconds}
    return figures | differences(benches["units", config.amounts[-1]], cells)


def differences(bench: SheetBench, cells: Mapping[tuple[str, str, int], Cell]) -> Figures:
    """Bits of a second that one row of the sheet takes more than another, on the same held-out sentences."""
    figures, places = Figures(), sorted({place for *_, place in cells})
    for place in places:
        for stream in STREAMS:
            key = f"e10.{stream}.warm_over_cold.data{place}"
            figures |= bench.compared(key, cells[stream, "warm", place].bits, cells[stream, "cold", place].bits)
        for one, other in (("merged", "units"), ("depth", "flat")):
            for start in STARTS:
                key = f"e10.{one}_over_{other}.{start}.data{place}"
                figures |= bench.compared(key, cells[one, start, place].bits, cells[other, start, place].bits)
    return figures


def most(figures: Figures) -> str:
    """The column with the most speech. KeyError where there is none."""
    places = [int(key.split(".")[1].removeprefix("data")) for key in figures if key.endswith(".hours")]
    if not places:
        raise KeyError("e10.data0.hours")
    return f"data{max(places)}"


def fewer_tokens(figures: Figures, one: str, other: str) -> bool:
    """Whether a row of the sheet takes fewer decoder tokens than another, from nothing."""
    return all(
        figures[f"e10.{one}.cold.{place}.tokens"] < figures[f"e10.{other}.cold.{place}.tokens"]
        for place in ("data0", most(figures))
    )


SYSTEM = System(
    name="scaling_sheet",
    title="What speech costs to learn",
    row="E10",
    sentences=600,
    test_sentences=100,
    settings=SheetConfig,
    check=check_sheet,
    differs="a toy corpus and decoders of a million weights on a processor instead of GPUs; tokenizers are fitted to "
    "the corpus, whatever the amount",
    measures="bits of a second of held-out speech, decoder tokens and seconds of training, by how much speech there "
    "is, from text or from nothing, of units plain and merged, and of codes flat and with a depth decoder",
    targets=(
        Target(
            "the more speech, the fewer bits, in every row",
            lambda f: all(
                f[f"e10.{stream}.{start}.{most(f)}.bits_per_second"] < f[f"e10.{stream}.{start}.data0.bits_per_second"]
                for stream in STREAMS
                for start in STARTS
            ),
        ),
        Target(
            "from text, units of the least speech take fewer bits, not by chance",
            lambda f: f["e10.units.warm_over_cold.data0.high"] < 0,
        ),
        Target("merged units take fewer decoder tokens", lambda f: fewer_tokens(f, "merged", "units")),
        Target(
            "… and no more bits, but by chance, with the most speech",
            lambda f: f[f"e10.merged_over_units.cold.{most(f)}.low"] <= 0,
        ),
        Target(
            "a depth decoder takes fewer decoder tokens than a flat stream", lambda f: fewer_tokens(f, "depth", "flat")
        ),
        Target(
            "… and fewer bits with the most speech, not by chance",
            lambda f: f[f"e10.depth_over_flat.cold.{most(f)}.high"] < 0,
        ),
    ),
)
