"""Texts that are read aloud, a portion at a time: what is finished stays, and a portion sounds the same every time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unitok.pipelines.backends.piper import PiperSynthesizer
from unitok_tokenizers.audio.io import read_audio, resample, write_audio
from unitok_tokenizers.corpora.espeak import Utterance, Voice, speak_all
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, fingerprint
from unitok_tokenizers.progress import advance

PORTION = 64
"""Texts that are read together: what is killed loses no more."""
RATE = 16000
"""Hz of what is written."""
SPEED = (0.85, 1.2)
"""Least and most of a drawn rate, of the voice's usual one."""
ESPEAK_RATE = 160
"""Usual rate of espeak-ng, in words a minute."""
VARIANTS = ("m1", "m3", "m7", "f1", "f2", "f4")
"""Voices of espeak-ng."""
LANG = "en"
"""Language of what is read."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A text to read."""

    id: str
    """Unique."""
    text: str


Reader = Callable[[Sequence[str]], Iterable[tuple[np.ndarray, int]]]
"""Texts → samples (S,) and their rate in Hz, one after another."""


def piper_reader(voice: Path, random: np.random.Generator) -> Reader:
    """A voice of Piper, at a rate that is drawn for each text."""
    engine = PiperSynthesizer.load(voice, seed=int(random.integers(2**31)))
    if engine.lang != LANG:
        raise InputError(
            f"{voice} speaks {engine.lang!r}, the texts are {LANG!r}; name an English voice: --set reader="
        )

    def read(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
        for text in texts:
            said = replace(engine, rate=float(random.uniform(*SPEED))).speak([text], lang=LANG)[0]
            yield said.samples, said.sample_rate

    return read


def espeak_reader(random: np.random.Generator) -> Reader:
    """espeak-ng, in a voice, at a rate and a pitch that are drawn for each text."""

    def drawn(text: str, number: int) -> Utterance:
        variant, pitch = VARIANTS[int(random.integers(len(VARIANTS)))], int(random.integers(30, 70))
        return Utterance(
            id=str(number), group=str(number), lang=LANG, split="train", text=text,
            voice=Voice(variant, variant, pitch), rate=round(ESPEAK_RATE * float(random.uniform(*SPEED))), pitch=pitch,
        )  # fmt: skip

    def read(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
        jobs = [drawn(text, number) for number, text in enumerate(texts)]
        with tempfile.TemporaryDirectory() as folder:
            speak_all(jobs, Path(folder), workers=1)
            for job in jobs:
                yield read_audio(Path(folder) / f"{job.id}.flac", sample_rate=RATE), RATE

    return read


def read_aloud(passages: Sequence[Passage], folder: Path, *, voice: Path | None, seed: int) -> list[dict[str, Any]]:
    """Read passages that are not read yet, by a voice of Piper or espeak-ng; returns lines of a manifest.

    Portions are folders named by what is in them, by whom and how it was drawn, so that runs share them.
    """
    found: list[dict[str, Any]] = []
    speaker = "espeak" if voice is None else voice.stem
    portions = list(_portions(passages))
    for number, portion in enumerate(portions):
        name = fingerprint([speaker, seed, number, [[one.id, one.text] for one in portion]])
        place = folder / name
        if not (place / "lines.jsonl").exists():
            random = np.random.default_rng([seed, number])
            read = espeak_reader(random) if voice is None else piper_reader(voice, random)
            with atomic_directory(place) as draft:
                _write(portion, draft, read, speaker)
        lines = (place / "lines.jsonl").read_text(encoding="utf-8").splitlines()
        found += [{**line, "audio": str((place / line["audio"]).absolute())} for line in map(json.loads, lines)]
        advance("text read", min((number + 1) * PORTION, len(passages)), len(passages))
    return found


def _portions(passages: Sequence[Passage]) -> Iterator[Sequence[Passage]]:
    for begin in range(0, len(passages), PORTION):
        yield passages[begin : begin + PORTION]


def _write(portion: Sequence[Passage], folder: Path, read: Reader, speaker: str) -> None:
    lines = []
    for one, (samples, rate) in zip(portion, read([one.text for one in portion])):
        write_audio(folder / f"{one.id}.flac", resample(samples, rate, RATE), RATE)
        line = {
            "id": one.id, "audio": f"{one.id}.flac", "text": one.text, "lang": LANG, "speaker": speaker,
            "split": "train", "group": one.id,
        }  # fmt: skip
        lines.append(json.dumps(line, ensure_ascii=False))
    (folder / "lines.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
