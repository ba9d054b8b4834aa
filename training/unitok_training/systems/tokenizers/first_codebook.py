"""What a first codebook says: taught as in SpeechTokenizer, judged as in SLMTokBench, split from the others as in Mimi.

unitok systems run first_codebook -o runs/first_codebook

S samples, T latent frames (25 Hz), Q codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from unitok_tokenizers.acoustic.mel_network import STRIDE
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.audio.features import log_mel
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_training.fitting.tokenizers import load_recordings, training_rows
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import READS
from unitok_training.systems.tokenizers.codec_arms import CodecArms, CodecArmsConfig, Heard, arms_of
from unitok_training.tokbench.corpus import texts_of
from unitok_training.tokbench.distance import Distance, distances, spectral_distance
from unitok_training.tokbench.labels import Labeling, joint_counts, nmi, purity
from unitok_training.tokbench.text_alignment import ReaderConfig, Texts, text_figures

SPOKEN = ("units", "taught", "plain")
"""Codecs whose first codebooks are read, and heard: from what says the words to what says all."""
WORSE = 0.05
"""Word errors that another's voice may add to those of a recording from its own codes."""


@dataclass(frozen=True, kw_only=True)
class FirstCodebookConfig(CodecArmsConfig):
    """What the check depends on."""

    reader: ReaderConfig = field(default_factory=lambda: ReaderConfig(steps=200, width=128, batch_seconds=30.0))
    """What learns to read a first codebook; the seed is that of the arm."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is found of one codec."""

    distance: Counted
    """Log-spectral distance in dB of each recording, all codebooks, summed over frames."""
    nmi: float
    """Of the first codebook and phones, over held-out recordings."""
    purity: float
    """The same."""


def scores_of(codec: MelCodec, rows: Sequence[Row], labeling: Labeling) -> Scores:
    """What the codes of recordings say of them."""
    recordings = load_recordings(rows, codec.sample_rate)
    codes = codec.encode_batch(recordings)
    parts = []
    for samples, table in zip(recordings, codes):
        wanted = log_mel(torch.from_numpy(samples), codec.mel).numpy()[: len(table) * STRIDE]
        parts.append(spectral_distance(codec.decode_features(table)[: len(wanted)], wanted))
    first = [table[:, 0] for table in codes]
    labels = [labeling.frames(row, len(one), float(codec.frame_rate)) for row, one in zip(rows, first)]
    return Scores(
        distance=Counted(
            counts=np.array([float(one.sum()) for one in parts]), sizes=np.array([float(len(one)) for one in parts])
        ),
        nmi=nmi(joint_counts(first, labels)),
        purity=purity(first, labels),
    )


# -- C7: the words of one, the voice of another -----------------------------------------------------------------------


def partners(rows: Sequence[Row], seed: int) -> list[int]:
    """For each row the place of one by another speaker, at random. InputError where there is one speaker alone."""
    random = np.random.default_rng([seed, len(rows)])
    others = [[place for place, one in enumerate(rows) if one.speaker != row.speaker] for row in rows]
    if not all(others):
        raise InputError("one voice says all held-out sentences that are heard: give more of them, --test-sentences")
    return [int(random.choice(places)) for places in others]


def in_the_voice_of(words: np.ndarray, voice: np.ndarray) -> np.ndarray:
    """The first codebook of codes (T, Q) before the others of (T', Q), cut or said over and over: (T, Q)."""
    places = np.arange(len(words)) % max(len(voice), 1)
    found: np.ndarray = np.concatenate([words[:, :1], voice[places, 1:]], axis=1)
    return found


def converted(arms: CodecArms, codec: MelCodec, rows: Sequence[Row]) -> dict[str, Heard]:
    """Recordings from all of their codes, and each one's first codebook with the others of another speaker."""
    codes = codec.encode_batch(load_recordings(rows, codec.sample_rate))
    others = partners(rows, arms.config.seed)
    mixed = [in_the_voice_of(one, codes[other]) for one, other in zip(codes, others)]
    return {
        "own": arms.heard(codec, codes, rows, [row.speaker for row in rows]),
        "converted": arms.heard(codec, mixed, rows, [rows[other].speaker for other in others]),
    }


# -- C8: text alignment and information preservation ----------------------------------------------------------------


def alignment(arms: CodecArms, codec: MelCodec, reader: ReaderConfig) -> dict[str, float]:
    """SLMTokBench's text alignment of the first codebook: `mi`, `wer` and `cer` of a reader of it."""
    train, held_out = (
        Texts(
            tokens=[table[:, :1] for table in codec.encode_batch(load_recordings(rows, codec.sample_rate))],
            texts=texts_of(rows),
        )
        for rows in (training_rows(arms.parts.rows), arms.held_out("test"))
    )
    sizes, rate = codec.cardinalities[:1], float(codec.frame_rate)
    return text_figures(train, held_out, sizes, rate, reader, arms.compute)


def preserved(arms: CodecArms, codec: MelCodec, rows: Sequence[Row]) -> Heard:
    """SLMTokBench's information preservation of the first codebook: words and voice of what is made of it alone."""
    codes = codec.encode_batch(load_recordings(rows, codec.sample_rate))
    return arms.heard(codec, [table[:, :1] for table in codes], rows, [row.speaker for row in rows])


# -- the check --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is found of all seeds of an arm."""

    scores: list[Scores]
    distances: list[list[Distance]]
    text: list[dict[str, float]]
    """Empty where the first codebook is not read."""
    first: list[Heard]
    """Of the first codebook alone, likewise."""
    again: list[dict[str, Heard]]
    """Of all codebooks and of mixed ones, likewise."""


def found_of(arms: CodecArms, config: FirstCodebookConfig, arm: str) -> Found:
    """Train an arm with every seed and score it."""
    rows, heard = arms.held_out("test"), arms.some("test_seen")
    labeling = Labeling.of(arms.parts.rows)
    assert labeling is not None, "the corpus says what is said when"
    found = Found(scores=[], distances=[], text=[], first=[], again=[])
    for seed in arms.seeds:
        codec = arms.codec(arm, seed)
        found.scores.append(scores_of(codec, rows, labeling))
        found.distances.append(distances(codec, load_recordings(rows, codec.sample_rate)))
        if arm in SPOKEN:
            arms.report(f"{arm}, seed {seed}: read and heard")
            found.text.append(alignment(arms, codec, replace(config.reader, seed=seed)))
            found.first.append(preserved(arms, codec, heard))
            found.again.append(converted(arms, codec, heard))
    return found


def taught_figures(arms: CodecArms, found: Mapping[str, Found]) -> Figures:
    """C7: phones in the first codebook, and voices and words where the other codebooks are another speaker's."""
    figures: Figures = {}
    for arm in SPOKEN:
        again = {way: [one[way] for one in found[arm].again] for way in ("own", "converted")}
        figures |= over_seeds(f"c7.{arm}.nmi", [one.nmi for one in found[arm].scores])
        figures |= over_seeds(f"c7.{arm}.purity", [one.purity for one in found[arm].scores])
        for way, heard in again.items():
            figures |= over_seeds(f"c7.{arm}.{way}.voice", [one.voice.rate for one in heard])
            figures |= over_seeds(f"c7.{arm}.{way}.wer", [one.errors.rate for one in heard])
        one, other = ([each.errors for each in again[way]] for way in ("converted", "own"))
        figures |= arms.compared(f"c7.{arm}.wer_over_own", one, other)
    return figures


def benchmark_figures(arms: CodecArms, found: Mapping[str, Found]) -> Figures:
    """C8: both scores of every first codebook."""
    figures: Figures = {}
    for arm in SPOKEN:
        for name in ("mi", "wer", "cer"):
            figures |= over_seeds(f"c8.{arm}.text.{name}", [one[name] for one in found[arm].text])
        figures |= over_seeds(f"c8.{arm}.kept.voice", [one.voice.rate for one in found[arm].first])
        figures |= over_seeds(f"c8.{arm}.kept.wer", [one.errors.rate for one in found[arm].first])
        figures |= over_seeds(f"c8.{arm}.kept.distance", [one[0].spectral for one in found[arm].distances])
    for one, other in pairwise(SPOKEN[::-1]):
        voices = ([heard.voice for heard in found[arm].first] for arm in (one, other))
        figures |= arms.compared(f"c8.{one}_over_{other}.voice", *voices)
    return figures


def split_figures(arms: CodecArms, nested: Found, split: Found) -> Figures:
    """C9: distance by codebooks, which cost the same bits, and phones in the first one."""
    figures: Figures = {}
    for name, found in (("nested", nested), ("split", split)):
        figures |= over_seeds(f"c9.{name}.nmi", [one.nmi for one in found.scores])
        for place, several in enumerate(zip(*found.distances), 1):
            figures |= over_seeds(f"c9.{name}.distance.q{place}", [one.spectral for one in several])
        figures |= over_seeds(f"c9.{name}.kbits", [one[-1].kbits for one in found.distances])
    one, other = ([scores.distance for scores in found.scores] for found in (split, nested))
    return figures | arms.compared("c9.split_over_nested.distance", one, other)


def check_first_codebook(given: Bench) -> Figures:
    """First codebooks that are units, taught, plain, and taught with the others beside them."""
    arms, config = arms_of(given, FirstCodebookConfig)
    found = {arm: found_of(arms, config, arm) for arm in (*SPOKEN, "split")}
    return (
        taught_figures(arms, found)
        | benchmark_figures(arms, found)
        | split_figures(arms, found["taught"], found["split"])
    )


def ordered(figures: Figures, score: str) -> bool:
    """Whether a score falls from units over the taught first codebook to the plain one."""
    units, taught, plain = (figures[f"c8.{arm}.{score}"] for arm in SPOKEN)
    return units > taught > plain


SYSTEM = System(
    name="first_codebook",
    title="SpeechTokenizer, SLMTokBench, Mimi's split",
    row="C7, C8, C9",
    sentences=600,
    test_sentences=100,
    settings=FirstCodebookConfig,
    check=check_first_codebook,
    differs="the built-in codec of log-mels at 25 frames a second, with residuals exchanged between frames, as it is "
    "always trained; the teacher is a small recognizer of letters, not self-supervised; the toy corpus, its oracle and "
    "Griffin-Lim in the place of a recognizer and of vocoders",
    measures="phones in a first codebook that is taught, beside one that is not; words and voice where the other "
    "codebooks are another speaker's; text alignment and voice of units and of first codebooks alone; distance at "
    "equal bit rates of codebooks behind and beside the first one",
    targets=(
        Target("a taught first codebook says more of the phones", lambda f: f["c7.taught.nmi"] > f["c7.plain.nmi"]),
        Target("the oracle reads resynthesized speech", lambda f: f["c7.taught.own.wer"] <= 1 - READS),
        Target("with another's codes behind it, another's voice", lambda f: f["c7.taught.converted.voice"] > 0.5),
        Target("… and the same words", lambda f: f["c7.taught.wer_over_own"] <= WORSE),
        Target("text is in units, then in the taught codebook, then in the plain one", lambda f: ordered(f, "text.mi")),
        Target(
            "the voice is in the plain codebook, then in the taught one, then in units",
            lambda f: f["c8.plain.kept.voice"] > f["c8.taught.kept.voice"] > f["c8.units.kept.voice"],
        ),
        Target(
            "codebooks beside the first come nearer at the same bit rate",
            lambda f: f["c9.split_over_nested.distance.high"] < 0,
        ),
        Target("… and it says as much of the phones", lambda f: f["c9.split.nmi"] >= f["c9.nested.nmi"]),
    ),
    measured=(
        Measured(
            "unitok systems run first_codebook",
            {
                "c7.plain.converted.voice": 0.0556,
                "c7.plain.converted.wer": 0.455,
                "c7.plain.nmi": 0.697,
                "c7.plain.own.voice": 0.903,
                "c7.plain.own.wer": 0.1,
                "c7.plain.purity": 0.842,
                "c7.plain.wer_over_own": 0.355,
                "c7.plain.wer_over_own.high": 0.509,
                "c7.plain.wer_over_own.low": 0.208,
                "c7.taught.converted.voice": 0.167,
                "c7.taught.converted.wer": 0.509,
                "c7.taught.nmi": 0.645,
                "c7.taught.own.voice": 0.792,
                "c7.taught.own.wer": 0.194,
                "c7.taught.purity": 0.847,
                "c7.taught.wer_over_own": 0.315,
                "c7.taught.wer_over_own.high": 0.444,
                "c7.taught.wer_over_own.low": 0.17,
                "c7.units.converted.voice": 0.319,
                "c7.units.converted.wer": 1.12,
                "c7.units.nmi": 0.589,
                "c7.units.own.voice": 0.833,
                "c7.units.own.wer": 0.248,
                "c7.units.purity": 0.785,
                "c7.units.wer_over_own": 0.873,
                "c7.units.wer_over_own.high": 1.07,
                "c7.units.wer_over_own.low": 0.691,
                "c8.plain.kept.distance": 5.96,
                "c8.plain.kept.voice": 0.931,
                "c8.plain.kept.wer": 0.252,
                "c8.plain.text.cer": 0.342,
                "c8.plain.text.mi": 65.1,
                "c8.plain.text.wer": 0.874,
                "c8.plain_over_taught.voice": 0.417,
                "c8.plain_over_taught.voice.high": 0.556,
                "c8.plain_over_taught.voice.low": 0.278,
                "c8.taught.kept.distance": 6.27,
                "c8.taught.kept.voice": 0.514,
                "c8.taught.kept.wer": 0.306,
                "c8.taught.text.cer": 0.107,
                "c8.taught.text.mi": 92.3,
                "c8.taught.text.wer": 0.442,
                "c8.taught_over_units.voice": 0.403,
                "c8.taught_over_units.voice.high": 0.556,
                "c8.taught_over_units.voice.low": 0.25,
                "c8.units.kept.distance": 7.55,
                "c8.units.kept.voice": 0.111,
                "c8.units.kept.wer": 0.624,
                "c8.units.text.cer": 0.0855,
                "c8.units.text.mi": 97.9,
                "c8.units.text.wer": 0.346,
                "c9.nested.distance.q1": 6.27,
                "c9.nested.distance.q2": 5.76,
                "c9.nested.distance.q3": 5.52,
                "c9.nested.distance.q4": 5.36,
                "c9.nested.kbits": 0.8,
                "c9.nested.nmi": 0.645,
                "c9.split.distance.q1": 6.19,
                "c9.split.distance.q2": 5.9,
                "c9.split.distance.q3": 5.77,
                "c9.split.distance.q4": 5.7,
                "c9.split.kbits": 0.8,
                "c9.split.nmi": 0.658,
                "c9.split_over_nested.distance": 0.334,
                "c9.split_over_nested.distance.high": 0.357,
                "c9.split_over_nested.distance.low": 0.313,
            },
            "193ca92",
        ),
    ),
)
