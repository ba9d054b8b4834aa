"""The parts of checks on voices: many voices speak, of which some are held out, and the ear may name any of eight.

S samples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.corpora.toy import (
    CONTOURS,
    SAMPLE_RATE,
    SPEAKERS,
    TEST_VOICES,
    Sentence,
    Speaker,
    synthesize,
)
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, atomic_write_bytes, fingerprint
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.codec import CodecConfig
from unitok_training.fitting.tokenizers import fit_codec
from unitok_training.systems.base.code_bench import CodeParts, CodePartsConfig
from unitok_training.systems.base.token_parts import OracleEar

PITCHES = (90.0, 205.0)
"""Hz between which the pitch of a drawn voice lies."""
SCALES = (0.86, 1.20)
"""Factor on all formants of the lowest voice and of the highest."""
SCATTER = 0.06
"""Most by which that of a drawn voice is off the line between them."""
TILTS, BREATHS = (0.0, 0.9), (0.0005, 0.002)
NEAR = {"pitch": 0.08, "scale": 0.04, "tilt": 0.25}
"""A drawn voice whose log pitch, scale and tilt all are nearer to a held-out one than this would give it away."""


def near(one: Speaker, other: Speaker) -> bool:
    """Whether two voices are all but the same."""
    away = {
        "pitch": abs(float(np.log(one.pitch / other.pitch))),
        "scale": abs(one.scale - other.scale),
        "tilt": abs(one.tilt - other.tilt),
    }
    return all(away[name] < NEAR[name] for name in NEAR)


def drawn_voices(count: int, seed: int) -> list[Speaker]:
    """So many voices, none of them near a held-out one; low voices have low formants, as those of the corpus have."""
    random, found = np.random.default_rng([seed, len(NEAR)]), list[Speaker]()
    while len(found) < count:
        place = float(random.random())
        voice = Speaker(
            f"voice{len(found):03d}",
            pitch=PITCHES[0] * (PITCHES[1] / PITCHES[0]) ** place,
            scale=SCALES[0] + (SCALES[1] - SCALES[0]) * place + float(random.uniform(-SCATTER, SCATTER)),
            tilt=float(random.uniform(*TILTS)),
            breath=float(random.uniform(*BREATHS)),
        )
        if not any(near(voice, one) for one in TEST_VOICES):
            found.append(voice)
    return found


def takes(sentences: Sequence[Sentence], lang: str) -> list[tuple[str, str]]:
    """(name, text) of what drawn voices say: a sentence, and the next two in one breath, in turn.

    Who continues a prompt writes two sentences: those who never saw more than one lose their way in the second.
    """
    found, place = list[tuple[str, str]](), 0
    while place < len(sentences):
        some = sentences[place : place + 1 + len(found) % 2]
        found.append((some[0].group, " ".join(one.text(lang) for one in some)))
        place += len(some)
    return found


def write_takes(
    said: Sequence[tuple[str, str]], folder: Path, voices: Sequence[Speaker], *, lang: str, seed: int
) -> None:
    """Have texts said by voices in turn, as training rows of a manifest, which is written last."""
    lines = []
    for number, (group, text) in enumerate(said):
        random = np.random.default_rng([seed, number])
        voice, name = voices[number % len(voices)], f"{group}-take-{lang}"
        prosody = tuple(CONTOURS)[int(random.integers(len(CONTOURS)))]
        made = synthesize(text, voice, prosody=prosody, seed=[seed, number, 1])
        write_audio(folder / "audio" / f"{name}.flac", made.samples, SAMPLE_RATE)
        row = {
            "id": name, "group": f"{group}-take", "lang": lang, "speaker": voice.name, "split": "train", "text": text,
            "audio": f"audio/{name}.flac", "words": made.words,
        }  # fmt: skip
        lines.append(json.dumps(row))
    atomic_write_bytes(folder / "manifest.jsonl", ("\n".join(lines) + "\n").encode("utf-8"))


@dataclass(frozen=True, kw_only=True)
class VoicePartsConfig(CodePartsConfig):
    """What the parts depend on."""

    codec: CodecConfig = field(default_factory=lambda: CodecConfig(steps=800, codebooks=3, cardinality=64))
    """Codec whose first codebook is the units: with its own ones, Q."""
    voices: int = 48
    """Voices of the training beside the corpus's own: of six alone, no other voice is learned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.voices < 1:
            raise InputError(f"parts.voices is {self.voices}: it must be 1 or more")


class VoiceParts(CodeParts):
    """The parts with many voices."""

    config: VoicePartsConfig

    @cached_property
    def corpus(self) -> list[Row]:
        """The toy corpus, a sentence a row."""
        return self.made_corpus()  # what it keeps under `rows` are not all of them

    @cached_property
    def rows(self) -> list[Row]:
        """The corpus, and further training sentences by drawn voices: what is fitted knows them all."""
        corpus, folder, config = self.corpus, self.folder / "takes", self.config
        if not (folder / "manifest.jsonl").exists():
            self.report(f"{config.voices} voices")
            drawn = super().further(0, config.sentences)
            voices, lang = drawn_voices(config.voices, config.seed), config.languages[0]
            write_takes(takes(drawn, lang), folder, voices, lang=lang, seed=config.seed)
        return [*corpus, *read_manifest(folder / "manifest.jsonl")]

    def further(self, first: int, count: int) -> list[Sentence]:
        """Those behind the sentences that the drawn voices say."""
        return super().further(first + self.config.sentences, count)

    @cached_property
    def oracle(self) -> OracleEar:
        """The recognizer, which may name every voice of the corpus, held-out ones among them."""
        return OracleEar(self.config.languages, speakers=SPEAKERS)


class LearnedParts(VoiceParts):
    """The same recordings and units with a codec whose first codebook is learned.

    Args:
        base: the parts whose corpus and units these are.
        codec: how it is trained; with `distilled` above 0.
    """

    def __init__(self, base: VoiceParts, codec: CodecConfig) -> None:
        assert codec.distilled > 0, "a codec learns its first codebook where it is distilled"
        self.base, self.report, self.precision = base, base.report, base.precision
        self.config = replace(base.config, codec=codec)
        self.folder = base.folder / f"codec-{fingerprint(asdict(codec))}"

    @cached_property
    def corpus(self) -> list[Row]:
        """The toy corpus."""
        return self.base.corpus

    @cached_property
    def rows(self) -> list[Row]:
        """All recordings."""
        return self.base.rows

    @cached_property
    def oracle(self) -> OracleEar:
        """The recognizer."""
        return self.base.oracle

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters and units of the base, and a codec of its own."""
        folder = self.folder / "tokenizers"
        if not folder.exists():
            units, text = self.base.units, self.base.tokenizers.text
            self.report(f"codec with a first codebook of its own: {self.config.codec.steps} steps")
            codec = fit_codec(self.rows, units, self.fit_config())
            with atomic_directory(folder) as draft:
                TokenizerSet.of(text, units, codec).save(draft)
        return TokenizerSet.load(folder)
