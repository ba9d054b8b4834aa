"""How near log-mels of the built-in codec come to the recordings, codebook by codebook, and how many codes it uses.

    python -m unitok_training.tokbench.distance MANIFEST CODEC [CODEC …]

Each CODEC is a codec's folder, `RUN/codec` of `unitok train-codec` or `DIR/codes` of `fit-tokenizers`; recordings of
the test split are measured.

F mel frames, M mel bins, T latent frames, Q codebooks.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unitok_tokenizers.acoustic.dmel import DmelCodec
from unitok_tokenizers.acoustic.mel_network import STRIDE
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.open import open_codec
from unitok_tokenizers.audio.features import log_mel
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.errors import InputError

DECIBEL = 20.0 / math.log(10.0)
"""Of a neper: log-mels are natural logarithms of amplitudes."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """What the first codebooks say."""

    codebooks: int
    """How many are decoded."""
    kbits: float
    """kbit/s of them, each code by itself."""
    spectral: float
    """Log-spectral distance in dB: the root of the mean square over mel bins, the mean over frames."""
    usage: float
    """Share of the last one's codes that are used at all."""
    perplexity: float
    """2 to its entropy: so many codes, used alike, would say as much."""


def spectral_distance(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Root of the mean square over bins of each frame (F,) in dB, of log-mels (F, M)."""
    squares = (DECIBEL * (found - wanted)) ** 2
    result: np.ndarray = np.sqrt(squares.mean(1))
    return result


def signal_to_noise(codec: DmelCodec, recordings: Sequence[np.ndarray]) -> float:
    """Variance of log-mels over the mean square of what the scale's steps leave out of them, in dB."""
    mels, made = [], []
    for samples in recordings:
        mels.append(log_mel(torch.from_numpy(samples), codec.config.mel).numpy())
        made.append(codec.decode_features(codec.encode(samples)))
    wanted, found = np.concatenate(mels), np.concatenate(made)
    return float(10 * np.log10(wanted.var() / np.square(found - wanted).mean()))


def distances(codec: MelCodec, recordings: Sequence[np.ndarray]) -> list[Distance]:
    """One for each number of codebooks, over recordings (S,) float32 at the codec's rate."""
    codes = codec.encode_batch(recordings)
    table, found = np.concatenate(codes), []
    wanted = [
        log_mel(torch.from_numpy(samples), codec.mel).numpy()[: len(one) * STRIDE]
        for samples, one in zip(recordings, codes)
    ]
    for most in range(1, len(codec.cardinalities) + 1):
        parts = [
            spectral_distance(codec.decode_features(one[:, :most])[: len(mels)], mels)
            for one, mels in zip(codes, wanted)
        ]
        size = codec.cardinalities[most - 1]
        shares = np.bincount(table[:, most - 1], minlength=size) / max(1, len(table))
        used = shares[shares > 0]
        bits = sum(math.log2(one) for one in codec.cardinalities[:most])
        found.append(
            Distance(
                codebooks=most,
                kbits=float(codec.frame_rate) * bits / 1000,
                spectral=float(np.concatenate(parts).mean()),
                usage=len(used) / size,
                perplexity=float(2 ** -(used * np.log2(used)).sum()),
            )
        )
    return found


def report(found: dict[str, list[Distance]]) -> str:
    """A table of Markdown: a row for each number of codebooks, two columns for each codec."""
    names = list(found)
    lines = ["| codebooks | " + " | ".join(f"{name}: dB | codes used" for name in names) + " |"]
    lines.append("|" + "---|" * (1 + 2 * len(names)))
    for place in range(max(len(one) for one in found.values())):
        cells = [str(place + 1)]
        for one in found.values():
            here = one[place] if place < len(one) else None
            cells += ["", ""] if here is None else [f"{here.spectral:.2f}", f"{here.usage:.0%} ({here.perplexity:.0f})"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> str:
    """The table; InputError where a folder is no built-in codec, or nothing is in the split."""
    parser = argparse.ArgumentParser(description="log-spectral distance by codebooks")
    parser.add_argument("manifest")
    parser.add_argument("codecs", nargs="+")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    rows = [row for row in read_manifest(options.manifest) if row.audio is not None and row.split == options.split]
    if not rows:
        raise InputError(f"{options.manifest} has no recordings in the split {options.split}; name another: --split")
    found = {}
    for folder in options.codecs:
        codec = open_codec(f"mel_rvq:{folder}")
        assert isinstance(codec, MelCodec)
        found[folder] = distances(codec, [row.load(codec.sample_rate) for row in rows])
    return report(found)


if __name__ == "__main__":
    try:
        print(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
