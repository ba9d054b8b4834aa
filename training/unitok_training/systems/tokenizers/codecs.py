"""Residual quantization, factorized codes, and channels without training: RVQ, DAC's codes, dMel.

unitok systems run codec_codes -o runs/codec_codes

S samples, F mel frames (100 Hz), M mel bins, T latent frames (25 Hz), Q codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from unitok_tokenizers.acoustic.dmel import DmelCodec, DmelConfig
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.errors import InputError
from unitok_training.fitting.tokenizers import load_recordings
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.tokenizers.codec_arms import CodecArmsConfig, arms_of
from unitok_training.tokbench.distance import Distance, distances, signal_to_noise

USED = 0.8
"""Share of a codebook's codes that recordings must use."""


@dataclass(frozen=True, kw_only=True)
class CodecCodesConfig(CodecArmsConfig):
    """What the check depends on."""

    bins: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Steps of dMel's scale, the fewest first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.bins) < 2 or list(self.bins) != sorted(set(self.bins)) or self.bins[0] < 2:
            raise InputError(f"bins is {list(self.bins)}: give two or more numbers of steps from 2 on, the least first")


def repeats(codec: MelCodec, recordings: Sequence[np.ndarray]) -> float:
    """Share of recordings (S,) whose log-mels come out the same when they are coded and decoded a second time."""
    first, second = ([codec.decode_features(codec.encode(samples)) for samples in recordings] for _ in range(2))
    return float(np.mean([np.array_equal(one, other) for one, other in zip(first, second)]))


def series(figures: Figures, key: str) -> list[float]:
    """Figures `key`1, `key`2 and so on, by their numbers. KeyError where there are none."""
    numbers = sorted(int(name[len(key) :]) for name in figures if name.startswith(key) and name[len(key) :].isdigit())
    return [figures[f"{key}{number}"] for number in numbers] or [figures[key]]


def falls(values: Sequence[float]) -> bool:
    """Whether each value is smaller than the one before."""
    return all(one > other for one, other in zip(values, values[1:]))


def arm_figures(key: str, found: Sequence[list[Distance]]) -> Figures:
    """Of an arm's seeds: distance in dB by codebooks; share of codes used and their perplexity, the residual ones'
    mean, and the share of the codebook that uses the fewest."""
    figures: Figures = {}
    for place, several in enumerate(zip(*found), 1):
        figures |= over_seeds(f"{key}.distance.q{place}", [one.spectral for one in several])
    behind = [one[1:] for one in found]
    figures |= over_seeds(f"{key}.usage", [fmean(one.usage for one in books) for books in behind])
    figures |= over_seeds(f"{key}.perplexity", [fmean(one.perplexity for one in books) for books in behind])
    return figures | {f"{key}.usage.least": min(one.usage for books in found for one in books)}


def check_codes(given: Bench) -> Figures:
    """Distance and use of plain and factorized codes by the codebook, and what the steps of dMel leave out."""
    arms, config = arms_of(given, CodecCodesConfig)
    recordings = load_recordings(arms.held_out("test"))
    figures: Figures = {"c10.recordings": float(len(recordings))}
    for row, arm in (("c2", "plain"), ("c5", "factorized")):
        codecs = [arms.codec(arm, seed) for seed in arms.seeds]
        figures |= arm_figures(f"{row}.{arm}", [distances(codec, recordings) for codec in codecs])
        figures |= {f"{row}.{arm}.repeats": min(repeats(codec, recordings[:8]) for codec in codecs)}
    snr = {bins: signal_to_noise(DmelCodec(DmelConfig(bins=bins)), recordings) for bins in config.bins}
    figures |= {f"c10.snr.bins{bins}": value for bins, value in snr.items()}
    return figures


SYSTEM = System(
    name="codec_codes",
    title="residual quantization, DAC's codes, dMel",
    row="C2, C5, C10",
    sentences=600,
    test_sentences=100,
    settings=CodecCodesConfig,
    check=check_codes,
    differs="the built-in codec of log-mels at 25 frames a second, with residuals exchanged between frames, as it is "
    "always trained; of DAC the codes, not the network",
    measures="log-spectral distance by codebooks, the share of codes that held-out recordings use, plain and "
    "factorized at equal sizes; what the steps of dMel's scale leave out of log-mels, by their number",
    targets=(
        Target("every codebook brings the recordings nearer", lambda f: falls(series(f, "c2.plain.distance.q"))),
        Target("four codes of five are used, of every codebook", lambda f: f["c2.plain.usage.least"] > USED),
        Target("a recording is coded and decoded the same again", lambda f: f["c2.plain.repeats"] == 1),
        Target(
            "more codes are used where they are factorized", lambda f: f["c5.factorized.usage"] > f["c2.plain.usage"]
        ),
        Target("… and used more evenly", lambda f: f["c5.factorized.perplexity"] > f["c2.plain.perplexity"]),
        Target(
            "the more steps, the less dMel leaves out", lambda f: falls([-one for one in series(f, "c10.snr.bins")])
        ),
    ),
    measured=(
        Measured(
            "unitok systems run codec_codes",
            {
                "c10.recordings": 100.0,
                "c10.snr.bins16": 17.0,
                "c10.snr.bins32": 23.0,
                "c10.snr.bins4": 3.06,
                "c10.snr.bins64": 29.0,
                "c10.snr.bins8": 10.4,
                "c2.plain.distance.q1": 5.96,
                "c2.plain.distance.q1.interval": 0.0875,
                "c2.plain.distance.q2": 5.16,
                "c2.plain.distance.q2.interval": 0.0359,
                "c2.plain.distance.q3": 4.83,
                "c2.plain.distance.q3.interval": 0.0601,
                "c2.plain.distance.q4": 4.65,
                "c2.plain.distance.q4.interval": 0.0794,
                "c2.plain.perplexity": 162.0,
                "c2.plain.perplexity.interval": 6.65,
                "c2.plain.repeats": 1.0,
                "c2.plain.usage": 0.925,
                "c2.plain.usage.interval": 0.00814,
                "c2.plain.usage.least": 0.688,
                "c5.factorized.distance.q1": 5.88,
                "c5.factorized.distance.q1.interval": 0.122,
                "c5.factorized.distance.q2": 5.45,
                "c5.factorized.distance.q2.interval": 0.0589,
                "c5.factorized.distance.q3": 5.2,
                "c5.factorized.distance.q3.interval": 0.067,
                "c5.factorized.distance.q4": 5.04,
                "c5.factorized.distance.q4.interval": 0.0431,
                "c5.factorized.perplexity": 176.0,
                "c5.factorized.perplexity.interval": 9.03,
                "c5.factorized.repeats": 1.0,
                "c5.factorized.usage": 0.974,
                "c5.factorized.usage.interval": 0.0135,
                "c5.factorized.usage.least": 0.738,
            },
            "d5d777e",
        ),
    ),
)
