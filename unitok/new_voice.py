"""A voice that a model was not trained with, from recordings of one speaker: what stands for it, without training.

A model knows a voice as codes of a piece of its speech, which stand in the prompt, and as the vector that the unit
synthesizer takes. Both come from recordings alone.

S samples, F frames, Q codebooks, E voice width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok.inputs import Audio, is_tokens, names_a_file
from unitok.requests.runner import RequestRunner
from unitok.requests.voices import CLOSE, PROMPT_SECONDS, VOICE_SECONDS
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.progress import advance

LEAST_SECONDS = 2.0
"""Speech below which a voice is a guess."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NewVoice:
    """What stands for a speaker."""

    prompt: np.ndarray | None
    """(F, Q) int32 codes; None for a model without codes."""
    vector: np.ndarray | None
    """(E,) float32; None for a model without a unit synthesizer."""
    seconds: float
    """Speech that was heard, of a recording its first ten at most."""
    silent: int
    """Recordings in which nothing is spoken."""


def check_new_name(model: RequestRunner, name: str, *, replace: bool) -> None:
    """InputError for a name that would be read as something else, or is a known speaker's unless that is replaced."""
    if not name.strip() or name != name.strip():
        raise InputError(f"the voice's name is {name!r}: give one without spaces at its ends, such as 'anna'")
    if names_a_file(name):
        raise InputError(f"the voice's name {name!r} reads as the path of a recording; choose another, such as 'anna'")
    if name in model.voices and not replace:
        raise InputError(f"this model knows a voice {name!r} already; choose another name, or ask for --replace")


def new_voice(model: RequestRunner, recordings: Sequence[Audio]) -> NewVoice:
    """What stands for the speaker of recordings of any rate.

    The prompt is the beginning of the recording of median length, as long as those of the voices that were trained; the
    vector is the mean over all recordings.

    Raises:
        InputError: a model that no voice changes; a recording that cannot be read; less than `LEAST_SECONDS` of speech.
    """
    codec, vocoder = model.codec, model.vocoder
    if vocoder is not None and vocoder.units is None:
        vocoder = None  # codes alone are spoken
    if codec is None and vocoder is None:
        raise InputError("this model has neither codes nor a unit synthesizer: no voice changes what it says")
    if any(is_tokens(one) for one in recordings):
        raise InputError("units or codes are given for a voice; give recordings of somebody speaking")
    rate = codec.sample_rate if codec is not None else model.sample_rate
    heard: list[np.ndarray] = []
    vectors: list[np.ndarray] = []
    for number, one in enumerate(recordings):
        advance("recording", number, len(recordings))
        spoken = model.spoken(model.with_rate(one), rate, seconds=VOICE_SECONDS, trimming=CLOSE)
        if not len(spoken):
            continue
        heard.append(spoken)
        if vocoder is not None:
            vectors.append(vocoder.voice_of(resample(spoken, rate, vocoder.sample_rate)))
    seconds = sum(map(len, heard)) / rate
    _check_enough(recordings, seconds)
    prompt = None
    if codec is not None:
        frames = _prompt_frames(model, float(codec.frame_rate))
        prompt = codec.encode(_median(heard, round(frames / float(codec.frame_rate) * rate)))[:frames].astype(np.int32)
    vector = np.mean(vectors, axis=0).astype(np.float32) if vectors else None
    return NewVoice(prompt=prompt, vector=vector, seconds=seconds, silent=len(recordings) - len(heard))


def _check_enough(recordings: Sequence[Audio], seconds: float) -> None:
    if not recordings:
        raise InputError("no recordings of the voice: give files, a folder or a manifest")
    count = f"{len(recordings)} recording{'s' if len(recordings) > 1 else ''}"
    if not seconds:
        raise InputError(f"nothing is spoken in the {count} given; give recordings of somebody speaking")
    if seconds < LEAST_SECONDS:
        raise InputError(
            f"the {count} given hold {seconds:.1f} s of speech, and a voice needs {LEAST_SECONDS:g} s; give more, or "
            "longer ones"
        )


def _prompt_frames(model: RequestRunner, frame_rate: float) -> int:
    """Frames of a prompt: what training gave the other voices, as that is what the decoder has learned to read."""
    known = [len(codes) for codes in model.prompts.values()]
    return max(known) if known else max(1, round(PROMPT_SECONDS * frame_rate))


def _median(heard: Sequence[np.ndarray], samples: int) -> np.ndarray:
    """(S,) the recording of median length of those that have so many samples; the longest where none has."""
    enough = sorted((one for one in heard if len(one) >= samples), key=len)
    return enough[len(enough) // 2] if enough else max(heard, key=len)
