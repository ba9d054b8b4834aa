"""Who is compared: every stream of units or codes in some folders of tokenizers, and its tokens of a corpus.

F frames, Q codebooks, S samples, D width.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unitok_tokenizers.compute import Compute
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.progress import advance
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import SpeechTokenizer, TokenizerSet
from unitok_training.tokbench.corpus import Corpus, portions


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A stream."""

    name: str
    """FOLDER/stream."""
    tokenizer: SpeechTokenizer
    """What makes it."""
    info: StreamInfo
    """What it is."""

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        assert self.info.frame_rate is not None, "streams of recordings have a rate"
        return float(self.info.frame_rate)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of a corpus."""

    train: list[np.ndarray]
    """(F, Q) of each training row."""
    held_out: list[np.ndarray]
    """(F, Q) of each held-out row."""
    seconds: float
    """Of all recordings."""
    speed: float
    """Seconds of recordings that are tokenized in a second, reading and resampling not counted."""

    @property
    def all(self) -> list[np.ndarray]:
        """Of all rows, those to learn from first."""
        return [*self.train, *self.held_out]


def contestants(folders: Sequence[str | Path], compute: Compute) -> list[Contestant]:
    """The streams of units and codes in folders that `fit-tokenizers` wrote, on the device of `compute`.

    A stream is named after its folder's last name, or after the whole path where two folders share that.

    Raises:
        InputError: a folder that is none, is given twice, or holds text alone.
    """
    paths = [Path(one) for one in folders]
    last = [path.resolve().name for path in paths]
    if twice := next((path for place, path in enumerate(paths) if path.resolve() in {
        other.resolve() for other in paths[:place]
    }), None):  # fmt: skip
        raise InputError(f"--tokenizers {twice} is given twice; give it once")
    found = []
    for path, name in zip(paths, last):
        chosen = {
            stream: one
            for stream, one in TokenizerSet.load(path).to(compute.device).speech.items()
            if one.info().kind in ("units", "codes")
        }
        if not chosen:
            raise InputError(f"{path} has neither units nor codes; leave it out, or fit them with recordings")
        infos = {stream: _measured(one) for stream, one in chosen.items()}
        shown = name if last.count(name) == 1 else path.as_posix()
        found += [
            Contestant(name=f"{shown}/{stream}", tokenizer=one, info=infos[stream]) for stream, one in chosen.items()
        ]
    return found


def _measured(one: SpeechTokenizer) -> StreamInfo:
    """The stream of ids that frames have: of merged units the units themselves."""
    if isinstance(one, UnitTokenizer):
        return replace(one.unmerged.info(), fingerprint=one.fingerprint)
    return one.info()


def tokenize(one: Contestant, corpus: Corpus) -> Tokens:
    """A contestant's tokens of all recordings, a few at a time."""
    rate, rows = one.tokenizer.sample_rate, corpus.rows
    one.tokenizer.encode_batch([rows[0].load(rate)])  # what is made once is not timed
    found: list[np.ndarray] = []
    samples, spent = 0, 0.0
    for recordings in portions(rows, rate):
        begin = time.perf_counter()
        encoded = one.tokenizer.encode_batch(recordings)
        spent += time.perf_counter() - begin
        samples += sum(map(len, recordings))
        found += [tokens.reshape(len(tokens), len(one.info.cardinalities)) for tokens in encoded]
        advance("recording tokenized", len(found), len(rows))
    seconds, count = samples / rate, len(corpus.train)
    return Tokens(train=found[:count], held_out=found[count:], seconds=seconds, speed=seconds / max(spent, 1e-9))


def mean_frames(units: UnitTokenizer, corpus: Corpus) -> np.ndarray:
    """(N, D) mean over the frames that a unit tokenizer clusters, of each row."""
    found = []
    for recordings in portions(corpus.rows, units.sample_rate):
        found += [frames.mean(axis=0) for frames in encode_recordings(units.encoder, recordings, layer=units.layer)]
        advance("recording encoded", len(found), len(corpus.rows))
    return np.stack(found)
