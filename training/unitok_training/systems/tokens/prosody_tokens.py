"""What tokens of prosody keep: the class of prosody from pitch, style and durations, by a linear probe.

unitok systems run prosody_tokens -o runs/prosody_tokens
unitok systems run prosody_tokens -o runs/emodb --set recordings=../shared/data/emodb/metadata.jsonl

N rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitok_tokenizers.corpora.prosody import CLASSES, make_prosody_corpus
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.prosody.registry import PROSODY_TOKENIZERS
from unitok_tokenizers.seeds import check_seed
from unitok_training.fitting.prosody import ChosenProsody
from unitok_training.fitting.tokenizers import FitConfig, fit_tokenizers
from unitok_training.recipes.config import overridden
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import Measured, System, Target

ARMS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "units": ("units",),
    **{name: (name,) for name in PROSODY_TOKENIZERS},
    "prosody": tuple(PROSODY_TOKENIZERS),
    "units_prosody": ("units", *PROSODY_TOKENIZERS),
}
"""Arm → streams that the probe sees. Units are deduplicated: how long they last is in `durations` alone."""
RIDGE = 0.1
"""Weight of the probe's penalty, for each row that it learns from."""


@dataclass(frozen=True, kw_only=True)
class ProsodyTokensConfig:
    """What the check depends on."""

    sentences: int = 500
    """Training sentences, each spoken once."""
    test_sentences: int = 40
    """Held-out sentences, each spoken in every class by held-out voices."""
    clusters: int = 128
    """Number of units: k-means of MFCC."""
    recordings: str = ""
    """Manifest of real recordings, which are scored too, each speaker left out in turn; empty for none."""
    label: str = "emotion"
    """Entry of their `extras` that is the class."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("sentences", "test_sentences", "clusters"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")


def histograms(shards: Shards, streams: Sequence[str]) -> np.ndarray:
    """(N, D) square roots of the shares of each id in each row, one stream after another."""
    found = []
    for name in streams:
        counts = [
            np.bincount(shards.cell(ids_column(name), row), minlength=shards.streams[name].cardinalities[0])
            for row in range(len(shards))
        ]
        found.append(np.stack(counts) / np.maximum(np.sum(counts, axis=1, keepdims=True), 1))
    joined: np.ndarray = np.sqrt(np.concatenate(found, axis=1))
    return joined


def probed(features: np.ndarray, labels: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Classes (N,) that a linear classifier names, fitted by ridge regression to the rows of a mask.

    Args:
        features: (N, D).
        labels: (N,) number of the class; where `learned` is False nobody looks.
        learned: (N,) bool.
    """
    known = features[learned]
    mean, deviation = known.mean(0), known.std(0)
    scaled = (features - mean) / np.where(deviation > 1e-6, deviation, np.inf)  # what never varied tells nothing
    inputs, wanted = scaled[learned], np.eye(int(labels.max()) + 1)[labels[learned]]
    center = wanted.mean(0)
    penalty = RIDGE * len(inputs) * np.eye(len(inputs))
    weights = inputs.T @ np.linalg.solve(inputs @ inputs.T + penalty, wanted - center)  # (D, C)
    found: np.ndarray = (scaled @ weights + center).argmax(1)
    return found


def mfcc_fit(rows: Sequence[Row], config: ProsodyTokensConfig) -> FitConfig:
    """Units of MFCC, and every stream of prosody."""
    chosen = tuple(ChosenProsody(name=name) for name in PROSODY_TOKENIZERS)
    return FitConfig(
        encoder="mfcc", clusters=config.clusters, codec=None, prosody=chosen, seed=config.seed,
        cluster_recordings=len(rows),
    )  # fmt: skip


def right_answers(
    rows: Sequence[Row], held_out: Sequence[bool], label: str, folder: Path, fit: FitConfig
) -> dict[str, np.ndarray]:
    """Arm → whether each held-out row's class was named, by tokenizers and probes that know the other rows alone."""
    others = [row for row, held in zip(rows, held_out) if not held]
    tokenizers = fit_tokenizers(others, folder / "tokenizers", fit)
    shards = prepare_shards(rows, tokenizers, folder / "shards", keep_unreadable=False, trim=False)
    place = {row.id: index for index, row in enumerate(rows)}
    order = [place[str(name)] for name in shards.id]
    names = [str(rows[index].extras[label]) for index in order]
    labels = np.array([sorted(set(names)).index(name) for name in names])
    asked = np.array([held_out[index] for index in order])
    found = {arm: probed(histograms(shards, streams), labels, ~asked) for arm, streams in ARMS.items()}
    return {arm: (named == labels)[asked] for arm, named in found.items()}


def each_left_out(rows: Sequence[Row], label: str) -> list[tuple[str, list[bool]]]:
    """(speaker, which rows are held out) for every speaker in turn.

    Raises:
        InputError: a row without a class, or one speaker.
    """
    if unlabelled := [row.id for row in rows if label not in row.extras]:
        raise InputError(f"row {unlabelled[0]} has no {label!r}; give every recording one, in a column of that name")
    speakers = sorted({row.speaker for row in rows})
    if len(speakers) < 2:
        raise InputError(f"{len(rows)} recordings have one speaker, and none can be left out; give several")
    return [(speaker, [row.speaker == speaker for row in rows]) for speaker in speakers]


def real_figures(rows: Sequence[Row], folder: Path, config: ProsodyTokensConfig) -> Figures:
    """Shares of right answers on recordings, each speaker left out in turn. InputError for rows without a class."""
    right: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    speakers = each_left_out(rows, config.label)
    for speaker, held_out in speakers:
        for arm, one in right_answers(rows, held_out, config.label, folder / speaker, mfcc_fit(rows, config)).items():
            right[arm].append(one)
    classes = [str(row.extras[config.label]) for row in rows]
    figures = {f"c11.real.{arm}.accuracy": float(np.concatenate(found).mean()) for arm, found in right.items()}
    return figures | {
        "c11.real.chance": max(map(classes.count, set(classes))) / len(classes),
        "c11.real.rows": float(len(rows)),
        "c11.real.speakers": float(len(speakers)),
        "c11.real.prosody.lowest_speaker": min(float(one.mean()) for one in right["prosody"]),
    }


def check_prosody_tokens(bench: Bench) -> Figures:
    """The class of prosody from tokens, on phrases that are made and on recordings that are given."""
    given = bench.config
    config = ProsodyTokensConfig(sentences=given.sentences, test_sentences=given.test_sentences, seed=given.seed)
    config = overridden(config, given.overrides)
    bench.report(f"seed {config.seed}: corpus, tokenizers, probes")
    rows = read_manifest(
        make_prosody_corpus(
            bench.run / "corpus", sentences=config.sentences, test_sentences=config.test_sentences, seed=config.seed
        )
    )
    held_out = [row.split == "test" for row in rows]
    right = right_answers(rows, held_out, "prosody", bench.run / "made", mfcc_fit(rows, config))
    figures = {f"c11.{arm}.accuracy": float(found.mean()) for arm, found in right.items()}
    figures |= {"c11.chance": 1 / len(CLASSES), "c11.rows": float(len(right["text"]))}
    if config.recordings:
        bench.report(f"recordings of {config.recordings}, each speaker left out in turn")
        figures |= real_figures(read_manifest(config.recordings), bench.run / "real", config)
    return figures


SYSTEM = System(
    name="prosody_tokens",
    title="tokens of prosody",
    row="C11",
    sentences=500,
    test_sentences=40,
    settings=ProsodyTokensConfig,
    check=check_prosody_tokens,
    differs="pitch over the utterance's own level; four classes by espeak-ng; a linear probe of the shares of tokens",
    measures="the class of prosody from tokens of pitch, style and durations, each and together, beside text and units",
    measured=(
        Measured(
            "unitok systems run prosody_tokens",
            {
                "c11.chance": 0.25,
                "c11.text.accuracy": 0.25,
                "c11.units.accuracy": 0.519,
                "c11.pitch.accuracy": 0.769,
                "c11.style.accuracy": 0.894,
                "c11.durations.accuracy": 0.619,
                "c11.prosody.accuracy": 0.963,
            },
        ),
    ),
    targets=(
        Target("tokens of prosody tell the class", lambda f: f["c11.prosody.accuracy"] >= 0.95),
        Target("the text says nothing", lambda f: f["c11.text.accuracy"] <= f["c11.chance"] + 0.05),
    ),
)
