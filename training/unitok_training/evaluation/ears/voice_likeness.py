"""How like a speaker's recordings a voice of a model sounds, beside what such a figure is worth.

N recordings, S samples, E width of a voice vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok.inputs import Audio, read_samples
from unitok.model import Model
from unitok.requests.request import Request
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.ears.interfaces import SpeakerEncoder

FEWEST = 2
"""Recordings without which the speaker cannot be compared with themselves."""


@dataclass(frozen=True, kw_only=True)
class SaidText:
    """What is said."""

    text: str
    lang: str
    """Its language code."""


def voice_likeness(
    model: Model,
    name: str,
    recordings: Sequence[Audio],
    texts: Sequence[SaidText],
    ear: SpeakerEncoder,
    *,
    output: str = "codes",
) -> dict[str, float | int]:
    """Mean cosines with the recordings of a speaker, which the model should not have been given.

    Args:
        model: it says the texts.
        name: one of its voices.
        recordings: of the speaker; two or more in which somebody speaks.
        texts: what is said, once by the voice and once by the model's other voices in turn.
        ear: tells voices apart.
        output: "codes" or "units", through which it is spoken.

    Returns:
        `similarity` of what the voice says; `similarity_recordings`, of each recording with the others, which is as
        good as it gets; `similarity_impostor`, of the same texts in other voices, which says nothing of the speaker
        (absent where there are none); `count` of texts; `silent` of them, in which the ear hears nobody (they count as
        0).

    Raises:
        InputError: no such voice, no texts, or fewer than two recordings of speech.
    """
    if name not in model.voices:
        raise InputError(f"this model has no voice {name!r}; it has {', '.join(model.voices) or 'none'}")
    if not texts:
        raise InputError("no texts to say; give at least one")
    heard = ear.embed([read_samples(one, ear.sample_rate) for one in recordings])
    heard = heard[np.linalg.norm(heard, axis=1) > 0]
    if len(heard) < FEWEST:
        raise InputError(
            f"{len(heard)} of {len(recordings)} recordings hold speech; give {FEWEST} or more, which the model was not "
            "given"
        )
    others = [voice for voice in model.voices if voice != name]
    whole = _direction(heard.sum(0))
    own = _spoken(model, [name], texts, ear, output)
    alone = [float(one @ _direction(heard.sum(0) - one)) for one in heard]
    found: dict[str, float | int] = {
        "similarity": float(np.mean(own @ whole)),
        "similarity_recordings": float(np.mean(alone)),
    }
    if others:
        found["similarity_impostor"] = float(np.mean(_spoken(model, others, texts, ear, output) @ whole))
    return {**found, "count": len(texts), "silent": int((np.linalg.norm(own, axis=1) == 0).sum())}


def _direction(total: np.ndarray) -> np.ndarray:
    """(E,) of length 1."""
    found: np.ndarray = total / max(float(np.linalg.norm(total)), np.finfo(np.float32).tiny)
    return found


def _spoken(
    model: Model, voices: Sequence[str], texts: Sequence[SaidText], ear: SpeakerEncoder, output: str
) -> np.ndarray:
    """Vectors (N, E) of the texts in these voices by turns."""
    requests = [
        Request(task="tts", source=one.lang, text=one.text, voice=voices[index % len(voices)], output=output)
        for index, one in enumerate(texts)
    ]
    sounds: list[np.ndarray] = [np.zeros(0, dtype=np.float32)] * len(requests)
    for place, answer in model.answer_many(requests):
        if isinstance(answer, InputError):
            raise InputError(f"text {place + 1}, {texts[place].text[:60]!r}: {answer}")
        assert answer.audio is not None and answer.sample_rate is not None
        sounds[place] = resample(answer.audio, answer.sample_rate, ear.sample_rate)
    return ear.embed(sounds)
