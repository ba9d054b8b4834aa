"""What tokens leave out that vectors have, by the bits of a second: recognition from units and from codes (E11).

unitok systems run bit_rates -o runs/bit_rates

One encoder, one corpus and one kind of decoder, which begins as one of text. It learns to read units of several
numbers, units of an early layer, codes of two codebooks and of all, each in as many updates of as many utterances, and
the frames themselves, which are what units are made of.

N ids of a recording, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np

from unitok_tokenizers.encoders.pretrained import OWN, EncoderSource
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.evaluation.run import Evaluation
from unitok_training.fitting.codec import CodecConfig
from unitok_training.fitting.tokenizers import fit_codec, fit_units
from unitok_training.fitting.units import ChosenUnits
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import HEADER
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import System, Target
from unitok_training.systems.base.token_bench import Build, TokenBench, TokenBenchConfig, settings_of
from unitok_training.systems.base.token_parts import SameRecordings, TokenParts
from unitok_training.systems.base.token_scores import recognized, rows_with
from unitok_training.systems.tokens.vector_reading import Reading, read_from_vectors, vector_reader
from unitok_training.trainer.config import TrainConfig

TEXT: Mapping[str, float] = {"lm": 1.0}
"""What all readers know before they read."""
VECTORS = "vectors"
SAMPLED = 100
"""Training recordings by which the frames of an utterance are told."""


@dataclass(frozen=True, kw_only=True)
class BitRatesConfig(TokenBenchConfig):
    """What the check depends on."""

    codec: CodecConfig = field(default_factory=lambda: CodecConfig(steps=600, codebooks=3, cardinality=64))
    """Codec whose first codebook is the units: one of its own behind them, and all."""
    counts: tuple[int, ...] = (12, 25, 50, 100, 200)
    """Units of the tokenizers that are compared, the fewest first."""
    early: int = 1
    """An early layer of the encoder, of which as many units are made as `parts.clusters`."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=300))
    """Training of a reader of `parts.clusters` units; packs of others hold as many utterances."""
    limit: int = 100
    """Most held-out sentences that are read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.counts) < 2 or list(self.counts) != sorted(set(self.counts)) or self.counts[0] < 1:
            raise InputError(f"counts is {list(self.counts)}: give two or more numbers of units, the fewest first")
        if self.parts.clusters not in self.counts:
            raise InputError(
                f"counts is {list(self.counts)}: {self.parts.clusters} (parts.clusters) must be among them, to compare "
                "units of the early layer with"
            )
        last = self.parts.encoder.blocks - 1
        if not 0 <= self.early < last:
            raise InputError(f"early is {self.early}: units are of layer {last}; give one before it")


# -- tokenizers ---------------------------------------------------------------------------------------------------


class ArmParts(SameRecordings, TokenParts):
    """Tokenizers of one arm, over the encoder and the recordings of other parts.

    Args:
        plain: those parts.
        name: of the arm.
        layer: whose frames become units.
        clusters: number of units.
        codec: behind the units; None for none.
    """

    def __init__(
        self, plain: TokenParts, name: str, *, layer: int, clusters: int, codec: CodecConfig | None = None
    ) -> None:
        super().__init__(plain.folder / name, plain.config, precision=plain.precision, report=plain.report)
        self.plain, self.layer, self.clusters, self.codec = plain, layer, clusters, codec

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters, the units, and a codec where the arm has one."""
        folder = self.folder / "tokenizers"
        if not folder.exists():
            source = EncoderSource(kind=OWN, folder=self.plain.folder / "tokenizers" / "units", layer=self.layer)
            config = replace(self.fit_config(), units=ChosenUnits(encoder=source, scaled=False), clusters=self.clusters)
            self.report(f"{self.clusters} units of layer {self.layer}")
            units = fit_units(self.rows, config)
            codec = None
            if self.codec is not None:
                self.report(f"{self.codec.codebooks} codebooks behind them: {self.codec.steps} steps")
                codec = fit_codec(self.rows, units, replace(config, codec=self.codec))
            TokenizerSet.of(self.plain.tokenizers.text, units, codec).save(folder)
        return TokenizerSet.load(folder)


def arms_of(bench: TokenBench, config: BitRatesConfig) -> dict[str, ArmParts]:
    """Arm → its tokenizers."""
    plain, last, count = bench.parts, config.parts.encoder.blocks - 1, config.parts.clusters
    found = {f"units{size}": ArmParts(plain, f"rate-{size}", layer=last, clusters=size) for size in config.counts}
    found["early"] = ArmParts(plain, f"early-{config.early}", layer=config.early, clusters=count)
    for books in sorted({1, config.codec.codebooks}):
        codec = replace(config.codec, codebooks=books, seed=config.parts.seed)
        name = f"codec-{fingerprint(asdict(codec))}"
        found[f"codes{books + 1}"] = ArmParts(plain, name, layer=last, clusters=count, codec=codec)
    return found


def bits(tables: Sequence[np.ndarray], rate: float, seconds: float) -> float:
    """Bits of a second: entropy of the ids (N, Q) of each codebook, as often as they come; `rate` ids of each."""
    found = 0.0
    for book in np.concatenate(tables).T:
        counts = np.unique(book, return_counts=True)[1]
        shares = counts / counts.sum()
        found += float(-(shares * np.log2(shares)).sum())
    return found * rate / seconds


# -- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Read:
    """What readers of one arm are worth."""

    errors: list[Counted]
    """Of every seed."""
    bits: float
    """Of a second of training speech."""
    positions: float
    """Of the decoder, for an utterance."""


class RateBench(TokenBench):
    """A run folder in which readers of one arm are trained."""

    def __init__(self, given: Bench, config: BitRatesConfig, name: str, parts: TokenParts) -> None:
        super().__init__(Bench(given.run / name, given.config, given.report), config)
        self.parts = parts

    def cells(self, kind: str) -> list[np.ndarray]:
        """(N, Q) ids of every training recording."""
        rows = rows_with(self.shards, ids_column(kind))
        if kind == "codes":
            return [self.shards.codes(row, "codes") for row in rows]
        return [self.shards.cell("units", row)[:, None] for row in rows]

    @cached_property
    def seconds(self) -> float:
        """Of all training recordings."""
        return float(
            sum(self.shards.seconds[row] for row in range(len(self.shards)) if self.shards.split[row] == "train")
        )

    def text(self) -> float:
        """Positions of an utterance's text and header, in the mean."""
        rows = rows_with(self.shards, ids_column("units"))
        return HEADER + float(np.mean([len(self.shards.cell("text_ids", row)) for row in rows]))

    def readers(self, kind: str, usual: float) -> Read:
        """Readers of units or codes; `usual` are the positions of an utterance in a full pack of the settings'."""
        cells = self.cells(kind)
        positions = self.text() + float(np.mean([one.size for one in cells]))
        build = Build(pack_size=round(self.config.train.pack_size * positions / (usual or positions)))
        task = "asr.codes" if kind == "codes" else "asr"

        def read(run: Evaluation) -> Counted:
            return recognized(run, self.some(run, "units", "text_ids"), kind)

        errors = self.over_seeds("reader", {task: 1.0}, read, start=self.start(TEXT), build=build)
        count = float(sum(len(one) for one in cells))
        return Read(errors=errors, bits=bits(cells, count, self.seconds), positions=positions)

    def vector_readers(self, usual: float) -> Read:
        """Readers of the frames that the units were made of."""
        units = self.parts.units
        some = [row for row in self.parts.rows if row.split == "train"][:SAMPLED]
        frames = [len(units.encode(row.load(units.sample_rate))) for row in some]
        positions, start = self.text() + float(np.mean(frames)), self.start(TEXT)
        reading = Reading(
            steps=self.config.train.steps, pack_size=round(self.config.train.pack_size * positions / usual)
        )
        errors = []
        for seed in self.seeds:
            run = self.evaluation(vector_reader(self, seed, start, reading))
            errors.append(read_from_vectors(self, run, self.some(run, "units", "text_ids")))
        return Read(errors=errors, bits=float("nan"), positions=positions)


def check_bit_rates(given: Bench) -> Figures:
    """Word errors by bits of a second, and how many more they are than from vectors."""
    config = settings_of(given, BitRatesConfig)
    bench = TokenBench(given, config)
    bench.parts.units  # noqa: B018  the encoder of all arms is fitted with them
    found, usual = dict[str, Read](), 0.0
    order, middle = arms_of(bench, config), f"units{config.parts.clusters}"
    for name in [middle, *(one for one in order if one != middle)]:
        arm = RateBench(given, config, name, order[name])
        found[name] = arm.readers("codes" if name.startswith("codes") else "units", usual)
        usual = usual or found[name].positions
    found[VECTORS] = RateBench(given, config, VECTORS, bench.parts).vector_readers(usual)
    figures: Figures = {}
    for name, one in found.items():
        figures |= over_seeds(f"e11.{name}.wer", [part.rate for part in one.errors])
        figures[f"e11.{name}.positions"] = one.positions
        if name != VECTORS:
            figures[f"e11.{name}.bits_per_second"] = one.bits
            figures |= bench.compared(f"e11.{name}.gap", one.errors, found[VECTORS].errors)
    return figures | {"e11.early.count": float(config.parts.clusters)}


def arms_by_number(figures: Figures, kind: str) -> list[str]:
    """Arms of `units` or `codes`, those with the fewest first. KeyError where there are none."""
    names = {key.split(".")[1] for key in figures if key.startswith(f"e11.{kind}")}
    if not names:
        raise KeyError(f"e11.{kind}")
    return [f"{kind}{number}" for number in sorted(int(name.removeprefix(kind)) for name in names)]


def of(figures: Figures, arm: str, key: str) -> float:
    """A figure of an arm."""
    return figures[f"e11.{arm}.{key}"]


SYSTEM = System(
    name="bit_rates",
    title="What tokens leave out, by bits",
    row="E11",
    sentences=600,
    test_sentences=100,
    settings=BitRatesConfig,
    check=check_bit_rates,
    differs="a toy corpus; one small encoder that was taught to read letters; the codec's later codebooks are of "
    "log-mels; bits are the entropy of single ids, durations left out",
    measures="word errors of recognition, and how many more than from vectors of the same encoder, by units of several "
    "numbers, units of an early layer, and codes of two codebooks and of all; bits of a second of each",
    targets=(
        Target(
            "the fewest units lose words that vectors keep, not by chance",
            lambda f: of(f, arms_by_number(f, "units")[0], "gap.low") > 0,
        ),
        Target(
            "the gap is smaller with the most units",
            lambda f: of(f, arms_by_number(f, "units")[-1], "gap") < of(f, arms_by_number(f, "units")[0], "gap"),
        ),
        Target(
            "units of an early layer have more of a gap than as many of the last",
            lambda f: of(f, "early", "gap") > of(f, f"units{f['e11.early.count']:.0f}", "gap"),
        ),
        Target(
            "with all codebooks no more words are lost, but by chance",
            lambda f: of(f, arms_by_number(f, "codes")[-1], "gap.low") <= 0,
        ),
    ),
)
