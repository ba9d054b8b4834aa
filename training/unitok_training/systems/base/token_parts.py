"""What checks on flat tokens share: a toy corpus, tokenizers fitted once, a unit synthesizer, and ears that know it.

S samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from unitok.nbest.correction import edits
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.compute import AUTO, resolve
from unitok_tokenizers.corpora.toy import (
    CONTOURS,
    LANGUAGES,
    SAMPLE_RATE,
    TRAIN_VOICES,
    Sentence,
    Speaker,
    build_sentences,
    make_toy_corpus,
    synthesize,
)
from unitok_tokenizers.corpora.toy_oracle import Oracle, Recognized
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, atomic_write_bytes, fingerprint
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.ctc import CtcConfig
from unitok_training.fitting.tokenizers import FitConfig, fit_tokenizers, load_recordings, some_recorded, training_rows
from unitok_training.fitting.waveforms.vocoder import UnitMelTraining, train_unit_mel
from unitok_training.systems.base.intervals import Counted
from unitok_vocoder.vocoder import Vocoder

VOICE = TRAIN_VOICES[-1].name
"""Voice that speaks units: what they leave out of a voice is nobody's error. Of three that were tried on recordings
that went through units and back the oracle reads this one best: .99 of the words, where the first has .88."""


@dataclass(frozen=True, kw_only=True)
class PartsConfig:
    """What the parts depend on; runs with the same ones may share them."""

    languages: tuple[str, ...] = LANGUAGES[:1]
    """Of the toy corpus."""
    sentences: int = 600
    """Training sentences, each spoken once a language."""
    test_sentences: int = 100
    """Held-out sentences, spoken by held-out voices and by known ones; a quarter as many again for validation."""
    topics: int = 2
    """What a sentence may be about: all of its words tell."""
    clusters: int = 100
    """Units."""
    encoder: CtcConfig = field(
        default_factory=lambda: CtcConfig(
            steps=300, batch_frames=3200, width=96, blocks=4, noise=0.1, mask_bins=4, mask_frames=4
        )
    )
    """Speech encoder under the units; MFCC where its steps are 1 or fewer."""
    synthesizer_steps: int = 300
    """Updates of the unit synthesizer."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("sentences", "test_sentences", "clusters", "synthesizer_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"parts.{name} is {getattr(self, name)}: it must be 1 or more")


def every_language() -> PartsConfig:
    """Parts of all languages of the corpus. With the updates of one the oracle reads .87 of what went through units
    and back, .72 of the last language."""
    plain = PartsConfig(languages=LANGUAGES, sentences=400, synthesizer_steps=900)
    return replace(plain, encoder=replace(plain.encoder, steps=700))


class TokenParts:
    """Parts that are made when they are first asked for, and kept in a folder of their settings.

    Args:
        root: holds the folders of all settings.
        config: what is made.
        precision: of what is trained; None leaves it to the machine.
        report: told what is made.
    """

    judged: ClassVar[str] = "test"
    """Split of the recordings that try the oracle. Units leave the voice out: it may be any."""

    def __init__(
        self, root: Path, config: PartsConfig, *, precision: str | None = None, report: Callable[[str], None] = print
    ) -> None:
        self.config, self.report, self.precision = config, report, precision or AUTO
        self.folder = root / fingerprint(asdict(config))

    @cached_property
    def rows(self) -> list[Row]:
        """The corpus."""
        return self.made_corpus()

    def made_corpus(self) -> list[Row]:
        """The toy corpus, made where it is not there."""
        manifest = self.folder / "corpus" / "manifest.jsonl"
        if not manifest.exists():
            self.report("corpus")
            make_toy_corpus(
                manifest.parent, languages=self.config.languages, pairs=self.config.sentences,
                test_pairs=self.config.test_sentences, seed=self.config.seed, topics=self.config.topics,
            )  # fmt: skip
        return read_manifest(manifest)

    def further(self, first: int, count: int) -> list[Sentence]:
        """So many training sentences, from one on, of those that follow the corpus's own."""
        sizes = (self.config.sentences, self.config.test_sentences)
        drawn = build_sentences(
            train=sizes[0] + first + count, test=sizes[1], dev=sizes[1] // 4, seed=self.config.seed,
            topics=self.config.topics,
        )  # fmt: skip
        return drawn[len(drawn) - count :]

    def texts(self, first: int, count: int) -> list[Row]:
        """Further training sentences as text alone, in each language."""
        return [
            Row(id=f"{one.group}-text-{code}", group=one.group, lang=code, text=one.text(code))
            for one in self.further(first, count)
            for code in self.config.languages
        ]

    def spoken(self, count: int) -> list[Row]:
        """So many further training sentences, spoken: tokenizers are fitted without them."""
        folder = self.folder / f"spoken-{count}"
        if count and not (folder / "manifest.jsonl").exists():
            self.report(f"{count} further sentences")
            write_spoken(self.further(0, count), folder, self.config.languages, seed=self.config.seed)
        return read_manifest(folder / "manifest.jsonl") if count else []

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters and units."""
        return self.fitted("tokenizers")

    def fitted(self, name: str) -> TokenizerSet:
        """Letters and units, fitted to the training rows and kept in a folder of a name."""
        folder, encoder = self.folder / name, self.config.encoder
        if not folder.exists():
            rows = self.rows
            self.report(f"tokenizers: {self.config.clusters} units over an encoder of {encoder.steps} steps")
            with atomic_directory(folder) as draft:
                fit_tokenizers(rows, draft, self.fit_config())
        return TokenizerSet.load(folder)

    def fit_config(self) -> FitConfig:
        """How tokenizers are fitted."""
        encoder = self.config.encoder
        return FitConfig(
            text_pieces=1, encoder="ctc" if encoder.steps > 1 else "mfcc", ctc=encoder, layer=encoder.blocks - 1,
            clusters=self.config.clusters, cluster_recordings=300, codec=None, precision=self.precision,
            seed=self.config.seed,
        )  # fmt: skip

    @property
    def units(self) -> UnitTokenizer:
        """The tokenizer of the units."""
        found = self.tokenizers.units
        assert found is not None, "the corpus has recordings"
        return found

    @cached_property
    def vocoder(self) -> Vocoder:
        """Units to sound, by the voices of the training."""
        folder = self.folder / "vocoder"
        if not folder.exists():
            units = self.units
            self.report(f"unit synthesizer: {self.config.synthesizer_steps} steps")
            rows = some_recorded(training_rows(self.rows), 400, self.config.seed)
            recordings = load_recordings(rows, units.sample_rate)
            network, voices = train_unit_mel(
                recordings, units.encode_batch(recordings), [row.speaker for row in rows], units.cardinality,
                UnitMelTraining(steps=self.config.synthesizer_steps, seed=self.config.seed),
                stride=round(100 / float(units.frame_rate)), compute=resolve("cpu", self.precision),
            )  # fmt: skip
            with atomic_directory(folder) as draft:
                Vocoder(None, network, voices).save(draft)
        return Vocoder.load(folder)

    @cached_property
    def oracle(self) -> OracleEar:
        """The recognizer that knows every sound of the corpus."""
        return OracleEar(self.config.languages)

    def oracle_accuracy(self, most: int) -> float:
        """Share of words that the oracle reads in held-out recordings that went through tokens and back.

        What it misses here no system can be blamed for; below .95 it may not judge.
        """
        chosen = [row for row in self.rows if row.split == self.judged][:most]
        made = [self.resynthesized(row) for row in chosen]
        texts = [row.text or "" for row in chosen]
        return 1.0 - self.oracle.errors(made, texts, [row.lang for row in chosen]).rate

    def resynthesized(self, row: Row) -> np.ndarray:
        """A recording (S,) that went through units and back."""
        units, durations = deduplicate(self.units.encode(row.load(self.units.sample_rate)))
        return self.vocoder.from_units(units, voice=VOICE, durations=durations)


class SameRecordings:
    """Parts of other tokenizers over the recordings of some that are there: what comes before a kind of parts."""

    plain: TokenParts

    @cached_property
    def rows(self) -> list[Row]:
        """The corpus."""
        return self.plain.rows

    def spoken(self, count: int) -> list[Row]:
        """Further training sentences."""
        return self.plain.spoken(count)


def write_spoken(sentences: Sequence[Sentence], folder: Path, languages: Sequence[str], *, seed: int) -> None:
    """Speak training sentences by the voices of the training, as `make_toy_corpus` does, with its manifest."""
    lines = []
    for sentence in sentences:
        number = int(sentence.group[1:])
        random = np.random.default_rng([seed, number])
        voice = TRAIN_VOICES[int(random.integers(len(TRAIN_VOICES)))]
        prosody = tuple(CONTOURS)[int(random.integers(len(CONTOURS)))]
        for index, code in enumerate(languages):
            text, name = sentence.text(code), f"{sentence.group}-{code}"
            made = synthesize(text, voice, prosody=prosody, seed=[seed, number, index])
            write_audio(folder / "audio" / f"{name}.flac", made.samples, SAMPLE_RATE)
            row = {
                "id": name, "group": sentence.group, "lang": code, "speaker": voice.name, "split": "train",
                "text": text, "audio": f"audio/{name}.flac", "words": made.words,
            }  # fmt: skip
            lines.append(json.dumps(row))
    atomic_write_bytes(folder / "manifest.jsonl", ("\n".join(lines) + "\n").encode("utf-8"))


class OracleEar:
    """Reads what was synthesized."""

    def __init__(self, languages: Sequence[str], *, speakers: Sequence[Speaker] = TRAIN_VOICES) -> None:
        self.oracle = Oracle(speakers=speakers, languages=languages)

    def hear(self, recordings: Sequence[np.ndarray], langs: Sequence[str]) -> list[Recognized | None]:
        """What is said in each (S,), by whom and how; None where there is no sound."""
        return [self.oracle.hear(one, lang) if len(one) else None for one, lang in zip(recordings, langs, strict=True)]

    def read(self, recordings: Sequence[np.ndarray], langs: Sequence[str]) -> list[str]:
        """The words of each (S,)."""
        return words_heard(self.hear(recordings, langs))

    def errors(self, recordings: Sequence[np.ndarray], texts: Sequence[str], langs: Sequence[str]) -> Counted:
        """Word errors of each against the text that was to be said."""
        return word_errors(texts, self.read(recordings, langs))


def words_heard(found: Sequence[Recognized | None]) -> list[str]:
    """The words of each recording; none where there is no sound."""
    return ["" if one is None else one.text for one in found]


def voices_heard(found: Sequence[Recognized | None], wanted: Sequence[str]) -> Counted:
    """Whether each recording is in the voice that is wanted; none is where there is no sound."""
    right = [one is not None and one.speaker == name for one, name in zip(found, wanted, strict=True)]
    return Counted(counts=np.array(right, np.float64), sizes=np.ones(len(right)))


def word_errors(references: Sequence[str], outputs: Sequence[str]) -> Counted:
    """Word errors of each output, out of the words of its reference."""
    pairs = [(one.split(), other.split()) for one, other in zip(references, outputs, strict=True)]
    return Counted(
        counts=np.array([edits(one, other) for one, other in pairs], np.float64),
        sizes=np.array([len(one) for one, _ in pairs], np.float64),
    )


def transcribed(rows: Sequence[Row], count: int) -> list[Row]:
    """Rows of which only so many groups of the training keep their text, and the times of their words; 0 for all."""
    groups = sorted({row.group for row in rows if row.split == "train" and row.recorded})
    kept = set(groups[:count]) if count else set(groups)
    return [
        row if row.split != "train" or not row.recorded or row.group in kept else replace(row, text=None, words=())
        for row in rows
    ]
