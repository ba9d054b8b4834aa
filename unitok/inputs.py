"""What a user may give as speech: a path, samples, samples with their rate, or tokens made elsewhere.

S samples, N units, F frames, Q codebooks.

An array says by its type what it is, and what could be two things is neither:

    float, alone                        samples within [-1, 1], at the rate of the model's tokenizers
    (float, rate)                       samples within [-1, 1], at that rate in Hz
    (int16, int32, int8 or uint8, rate) PCM as files and microphones give it, scaled to [-1, 1]
    int64, alone                        units or codes, as the tokenizers give them
    any other integers                  refused: give PCM with its rate, tokens as int64

Samples may be torch's, and {"array", "sampling_rate"} of `datasets` is a pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.io import LOUDEST, RATES, audio_seconds, read_blocks, resample
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A part of a recording, read when it is needed."""

    path: Path
    """The recording."""
    offset: float = 0.0
    """Where the part begins, in seconds."""
    seconds: float | None = None
    """Its length in seconds; None takes the rest."""


Audio = str | Path | Excerpt | np.ndarray | tuple[np.ndarray, int]
"""A path, a part of a recording, float samples (S,), (samples, rate in Hz), or int64 units (N,) or codes (F, Q); see
the table above."""
AUDIO_SUFFIXES = frozenset(
    ".3g2 .3gp .aac .ac3 .aif .aifc .aiff .amr .ape .au .avi .awb .caf .dsf .dts .flac .flv .gsm .m4a .m4b .m4r .m4v "
    ".mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpga .mpg .oga .ogg .ogv .opus .ra .rf64 .sd2 .snd .sph .spx .tta .voc .w64 "
    ".wav .wave .weba .webm .wma .wmv .wv".split()
)
"""Suffixes of recordings and films, whether they can be read here or not: a name that ends so is never a text."""
PCM: Mapping[str, tuple[int, int]] = {"int8": (0, 7), "uint8": (128, 7), "int16": (0, 15), "int32": (0, 31)}
"""Type of PCM samples → (value of silence, bits of full scale)."""
PATH = re.compile(r"[~.]{0,2}[/\\]\S+|[A-Za-z]:[/\\]\S+|(?!\w+://)\S*[/\\]\S*\.[A-Za-z]\w{0,4}")
"""A path without spaces: absolute, of this or another folder, of a drive, or of a folder and a name with a suffix."""

ADDRESS = re.compile(r"(?:^|\s)(?:www\.|\w+://)[^\s/]*$|\s\w+://\S*$")
"""A text that is the address of a host, which may end as recordings do (`www.abc.net.au`), or ends with an address."""


def is_tokens(audio: object) -> bool:
    """Whether this is units or codes rather than sound; InputError for integers that could be either."""
    if not isinstance(audio, np.ndarray) or audio.dtype.kind not in "iu":
        return False
    if audio.dtype != np.int64:
        raise InputError(
            f"an array of {audio.dtype} may be PCM samples or tokens; give samples with their rate, as (samples, rate),"
            " or tokens as int64: tokens.astype(numpy.int64)"
        )
    return True


def names_a_file(value: Audio) -> bool:
    """Whether this is the path of a recording, be there such a file or not.

    A `Path`, or a string that ends in a suffix of recordings, is the path of an existing file, or looks like a path:
    "/data/talk", "../talk" and "calls/one.bin" do; "and/or", "24/7", addresses and sentences are text.
    """
    if isinstance(value, Path):
        return True
    if not isinstance(value, str):
        return False
    try:
        if Path(value).is_file():
            return True
    except (OSError, ValueError):  # longer than any path, or in a folder that is closed: it is what it looks like
        pass
    if ADDRESS.search(value):
        return False
    stem, dot, ending = value.rpartition(".")
    if stem and dot and "\n" not in stem and f".{ending.lower()}" in AUDIO_SUFFIXES:
        return True
    return PATH.fullmatch(value) is not None


def sample_blocks(audio: Audio, rate: int) -> Iterator[np.ndarray]:
    """(S,) float32 blocks at `rate` Hz; a file is read as they are taken, whatever its length.

    Raises:
        InputError: a file that is missing or cannot be read, or samples that are empty, not finite, not of one channel,
            or of a type that says neither what they are nor how loud.
    """
    if isinstance(audio, str | Path):
        yield from read_blocks(audio, sample_rate=rate)
        return
    if isinstance(audio, Excerpt):
        yield from read_blocks(audio.path, sample_rate=rate, offset=audio.offset, seconds=audio.seconds)
        return
    samples, own_rate = _with_rate(audio, rate)
    if samples.ndim != 1 or not len(samples):
        raise InputError(f"samples have shape {samples.shape}: give one channel (S,) with at least one sample")
    if not np.isfinite(samples).all():
        raise InputError("samples hold values that are not finite; mend the recording")
    if np.abs(samples).max() > LOUDEST:
        raise InputError(f"samples hold the value {np.abs(samples).max():.3g}; scale them to [-1, 1]")
    yield resample(np.ascontiguousarray(samples, dtype=np.float32), own_rate, rate)


def _array(given: Any) -> np.ndarray:
    """Samples of a library as numpy has them: (1, S), as torchaudio reads a file, and (S, 1) become (S,)."""
    try:
        if hasattr(given, "detach"):  # a tensor of torch, of any device and type
            given = given.detach().cpu()
            given = (given.float() if given.is_floating_point() else given).numpy()
        found = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, sparse tensors
        raise InputError("samples are no plain array; give (samples, rate in Hz) or a path") from None
    return found.reshape(-1) if found.ndim == 2 and 1 in found.shape and found.dtype.kind != "O" else found


def _with_rate(audio: np.ndarray | tuple[np.ndarray, int], rate: int) -> tuple[np.ndarray, int]:
    """(float samples, their rate in Hz) of an array, or of a pair of samples and rate."""
    if isinstance(audio, Mapping) and {"array", "sampling_rate"} <= audio.keys():  # a row's audio of `datasets`
        audio = (audio["array"], audio["sampling_rate"])
    if not isinstance(audio, tuple):
        samples = _array(audio)
        if samples.dtype.kind != "f":
            raise InputError(
                f"samples are {samples.dtype}: give float samples within [-1, 1], PCM with its rate, or a path"
            )
        return samples, rate
    if len(audio) != 2 or np.ndim(audio[1]) or not isinstance(audio[1], Real) or isinstance(audio[1], bool):
        raise InputError("a recording in a pair is (samples, rate in Hz), in this order")
    samples, own_rate = _array(audio[0]), audio[1]
    if not RATES[0] <= own_rate <= RATES[1]:
        raise InputError(f"the sample rate is {own_rate}: give it in Hz, {RATES[0]} to {RATES[1]}")
    if samples.dtype.name in PCM:
        silence, bits = PCM[samples.dtype.name]
        samples = (samples.astype(np.float64) - silence) / 2**bits
    if samples.dtype.kind != "f":
        raise InputError(f"samples are {samples.dtype}: give float samples within [-1, 1], or PCM of {', '.join(PCM)}")
    return samples, own_rate


def read_samples(audio: Audio, rate: int) -> np.ndarray:
    """(S,) float32 samples at `rate` Hz, all at once; errors as `sample_blocks`."""
    return np.concatenate(list(sample_blocks(audio, rate)))


def recording_seconds(audio: Audio, rate: int) -> float:
    """Length of a recording in seconds, of a file by its header; samples without a rate are at `rate` Hz.

    Raises:
        InputError: a file that is missing or whose header cannot be read, or samples that are none.
    """
    if isinstance(audio, Excerpt):
        return max(0.0, audio_seconds(audio.path) - audio.offset) if audio.seconds is None else audio.seconds
    if isinstance(audio, str | Path):
        return audio_seconds(audio)
    samples, own_rate = _with_rate(audio, rate)
    if samples.ndim != 1:
        raise InputError(f"samples have shape {samples.shape}: give one channel (S,)")
    return len(samples) / own_rate


def refuse_longer(audio: Audio, rate: int, most: float | None) -> None:
    """InputError where a recording lasts longer than `most` seconds, without reading it; None allows any length."""
    if most is not None and (seconds := recording_seconds(audio, rate)) > most:
        path = audio.path if isinstance(audio, Excerpt) else audio
        named = f"audio {path}" if isinstance(path, str | Path) else "the recording"
        raise InputError(f"{named} lasts {seconds:.1f} s, max_seconds is {most:g}; cut it, or allow more")


def check_tokens(tokens: np.ndarray, cardinalities: tuple[int, ...], name: str) -> np.ndarray:
    """Tokens as int64, each below its codebook's cardinality; InputError otherwise."""
    wanted = "(N,)" if len(cardinalities) == 1 else f"(F, {len(cardinalities)})"
    if tokens.ndim != (1 if len(cardinalities) == 1 else 2) or not tokens.size:
        raise InputError(f"{name} have shape {tokens.shape}: give {wanted}, not empty")
    table = tokens.reshape(len(tokens), -1)
    if table.shape[1] != len(cardinalities) or (table < 0).any() or (table >= np.asarray(cardinalities)).any():
        raise InputError(
            f"{name} of shape {tokens.shape} do not fit {wanted} with ids below {cardinalities}; if these are samples, "
            "give them as (samples, rate): PCM of int16 or int32, or floats within [-1, 1]"
        )
    return tokens.astype(np.int64)


def without_tokenizer(stream: StreamInfo) -> str:
    """Why a model that has no tokenizer for a stream refuses a recording, and what to give instead."""
    shape = "(N,)" if stream.kind == "units" else f"(F, {len(stream.cardinalities)})"
    return (
        f"this model's {stream.name} were made elsewhere ({stream.fingerprint}), and it has no tokenizer for "
        f"recordings: give the ids, --{stream.kind} FILE or an integer array {shape}"
    )


def check_utf8(text: str) -> None:
    """InputError for a text that has no UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = text.encode("utf-8", "backslashreplace").decode()
        raise InputError(f"the text {shown[:60]!r} is not UTF-8 ({error.reason}); give it in that encoding") from error
