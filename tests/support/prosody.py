"""Voices that are made here, with a pitch that is known, and every tokenizer of prosody fitted to some."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.base import ProsodySource, ProsodyTokenizer
from unitok_tokenizers.prosody.contour import contour
from unitok_tokenizers.prosody.registry import PROSODY_TOKENIZERS

RATE = 16000
UNITS = StreamInfo("units", "units", "u", Fraction(50), (12,), deduplicated=True)


def voice(
    hertz: np.ndarray | float, seconds: float = 2.0, *, partials: tuple[float, ...] = (1, 0.8, 0.5, 0.3, 0.2)
) -> np.ndarray:
    """(S,) harmonics of a pitch, a number or one for each sample, in bursts of a fifth of a second."""
    count = round(seconds * RATE)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, count)) / RATE
    sound = sum(share * np.sin((number + 1) * phase) for number, share in enumerate(partials))
    burst = 0.2 + 0.8 * np.sin(np.pi * 5 * np.arange(count) / RATE) ** 2
    return (0.1 * burst * sound).astype(np.float32)


def gliding(middle: float, octaves: float, seconds: float = 2.0, *, turns: float = 1.0) -> np.ndarray:
    """(S,) pitch in Hz that swings around its middle."""
    time = np.arange(round(seconds * RATE)) / RATE
    return middle * 2.0 ** (octaves * np.sin(2 * np.pi * turns * time))


def noise(seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def source() -> ProsodySource:
    """Eight voices, high and low, that swing more or less."""
    sounds = [voice(gliding(middle, swing)) for middle in (110.0, 220.0) for swing in (0.02, 0.1, 0.2, 0.4)]
    return ProsodySource(contours=[contour(sound) for sound in sounds], units=UNITS, seed=0)


def fitted(name: str, most: int = 8) -> ProsodyTokenizer:
    made: ProsodyTokenizer = PROSODY_TOKENIZERS[name].fit(source(), most)
    return made


MAKERS: dict[str, Callable[[], ProsodyTokenizer]] = {
    "pitch": lambda: fitted("pitch"),
    "style": lambda: fitted("style", 3),
    "durations": lambda: fitted("durations"),
}


def write_manners(folder: Path, *, takes: int, label: str) -> Path:
    """A manifest of three voices that swing much or little, take by take, with the same words in both manners."""
    lines = []
    for speaker, middle in (("a", 110.0), ("b", 150.0), ("c", 210.0)):
        for take in range(takes):
            manner = ("flat", "lively")[take % 2]
            hertz = gliding(middle, 0.03 if manner == "flat" else 0.35, 1.2, turns=1 + 0.1 * take)
            name = f"{speaker}{take}.wav"
            write_audio(folder / name, voice(hertz, 1.2), RATE)
            lines.append(
                {"id": name, "audio": name, "text": "two books", "lang": "en", "speaker": speaker, label: manner}
            )
    path = folder / "manners.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
