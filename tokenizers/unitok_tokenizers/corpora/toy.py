"""The toy corpus: three small languages spoken by a numpy synthesizer, every sound of which is known.

A word is spelled as it sounds: one letter is one segment, a pair of formants excited by pulses or by noise. Sentences
have the same six roles in every language and an order of their own, so that translation is a word map and one rule.
`toy_oracle` reads the audio back. No speech package is needed:

    python -m unitok_tokenizers.corpora.toy FOLDER --pairs 400

S samples, K harmonics.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.corpora.command import check_counts, made
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.seeds import check_seed

SAMPLE_RATE = 16000
LANGUAGES = ("qaa", "qab", "qac")
"""Codes that ISO 639-2 reserves for local use."""

CLASSES: Mapping[str, int] = {"noun": 24, "verb": 14, "adjective": 14, "time": 8}
"""Words of each class; word i of a class means the same in every language."""
ROLES = ("adjective1", "noun1", "verb", "adjective2", "noun2", "time")
ORDERS: Mapping[str, tuple[str, ...]] = {
    "qaa": ("adjective1", "noun1", "verb", "adjective2", "noun2", "time"),
    "qab": ("time", "noun1", "adjective1", "noun2", "adjective2", "verb"),
    "qac": ("verb", "adjective1", "noun1", "adjective2", "noun2", "time"),
}
"""The one rule that tells the languages apart, beside their words."""
OPTIONAL = ("adjective1", "adjective2", "time")


@dataclass(frozen=True)
class Segment:
    """A sound."""

    formants: tuple[float, float]
    """Centres of its two bands in Hz, for a voice of formant scale 1."""
    noise: bool
    """Excited by noise; otherwise by pulses at the pitch."""


VOWELS, CONSONANTS, HISSES = "aeiou", "ylmnrwjvz", "sfhxtk"
_VOICED = (
    (300, 1000), (300, 1500), (300, 2200), (300, 3100), (420, 1000), (420, 1500), (420, 2200), (420, 3100),
    (580, 1300), (580, 1900), (580, 2700), (800, 1500), (800, 2200), (800, 3100),
)  # fmt: skip
_NOISE = ((900, 1800), (1500, 3200), (2500, 5000), (3500, 6300), (600, 4300), (1200, 6000))
SEGMENTS: Mapping[str, Segment] = {
    **{letter: Segment(pair, False) for letter, pair in zip(VOWELS + CONSONANTS, _VOICED)},
    **{letter: Segment(pair, True) for letter, pair in zip(HISSES, _NOISE)},
}
"""Letter → sound."""

CONTOURS: Mapping[str, tuple[float, float]] = {"flat": (1.0, 1.0), "rise": (0.85, 1.2), "fall": (1.2, 0.85)}
"""Prosody class → pitch at the start and at the end, in parts of the voice's own; independent of the words."""


@dataclass(frozen=True)
class Speaker:
    """A voice, used in every language."""

    name: str
    pitch: float
    """Fundamental frequency in Hz."""
    scale: float
    """Factor on all formants."""
    tilt: float
    """Exponent of the spectrum's fall: amplitude ∝ frequency^-tilt."""
    breath: float
    """Standard deviation of the noise under everything, full scale 1."""


TRAIN_VOICES: tuple[Speaker, ...] = (
    Speaker("ada", 182.0, 1.12, 0.3, 0.0010), Speaker("bo", 112.0, 0.94, 0.7, 0.0020),
    Speaker("cy", 146.0, 1.00, 0.1, 0.0015), Speaker("di", 198.0, 1.18, 0.6, 0.0005),
    Speaker("ed", 92.0, 0.88, 0.4, 0.0010), Speaker("flo", 170.0, 1.06, 0.9, 0.0020),
)  # fmt: skip
TEST_VOICES: tuple[Speaker, ...] = (Speaker("gus", 102.0, 0.91, 0.1, 0.0015), Speaker("hal", 132.0, 1.03, 0.5, 0.0010))
SPEAKERS = TRAIN_VOICES + TEST_VOICES

SEGMENT_SECONDS = (0.06, 0.11)
GAP_SECONDS = (0.03, 0.06)
LEVEL = 0.12
"""Root mean square of every segment."""
RAMP_SECONDS = 0.006


# -- words and sentences ----------------------------------------------------------------------------------------


@cache
def lexicon(lang: str) -> Mapping[str, tuple[str, ...]]:
    """Words of a language by class; no word belongs to two languages.

    Raises:
        InputError: an unknown language.
    """
    if lang not in LANGUAGES:
        raise InputError(f"the toy corpus has no language {lang!r}; it has {', '.join(LANGUAGES)}")
    random = np.random.default_rng(20)
    onsets = CONSONANTS + HISSES
    taken: set[str] = set()
    for code in LANGUAGES:
        words: dict[str, tuple[str, ...]] = {}
        for name, count in CLASSES.items():
            found: list[str] = []
            while len(found) < count:
                shape = (onsets, VOWELS, onsets, VOWELS)[: int(random.integers(3, 5))]
                word = "".join(str(random.choice(list(letters))) for letters in shape)
                if word not in taken:
                    taken.add(word)
                    found.append(word)
            words[name] = tuple(found)
        if code == lang:
            return words
    raise AssertionError(lang)


@dataclass(frozen=True)
class Sentence:
    """One meaning."""

    group: str
    split: str
    meaning: Mapping[str, int]
    """Role → index of the word in its class; optional roles may be absent."""

    def text(self, lang: str) -> str:
        """The sentence in a language."""
        return say(self.meaning, lang)


def _class_of(role: str) -> str:
    return role.rstrip("12")


def say(meaning: Mapping[str, int], lang: str) -> str:
    """Words of a meaning in the order of a language."""
    words = lexicon(lang)
    return " ".join(words[_class_of(role)][meaning[role]] for role in ORDERS[lang] if role in meaning)


def understand(text: str, lang: str) -> dict[str, int]:
    """The meaning of a sentence: the inverse of `say`.

    Raises:
        InputError: a word or an order that the language does not have.
    """
    known = {word: (name, index) for name, words in lexicon(lang).items() for index, word in enumerate(words)}
    meaning: dict[str, int] = {}
    order = list(ORDERS[lang])
    nouns_left = sum(known.get(word, ("", 0))[0] == "noun" for word in text.split())
    for word in text.split():
        name, index = known.get(word, ("", -1))
        # An adjective belongs to the noun beside it; which one that is follows from the nouns still to come.
        before = ORDERS[lang].index("adjective1") < ORDERS[lang].index("noun1")
        second = nouns_left <= 1 if name == "noun" or before else nouns_left == 0
        role = name + ("2" if second else "1") if name in ("noun", "adjective") else name
        if role not in order:
            raise InputError(f"{text!r} is no sentence of {lang}: {word!r} cannot stand there")
        del order[: order.index(role) + 1]
        meaning[role] = index
        nouns_left -= name == "noun"
    if missing := [role for role in ROLES if role not in meaning and role not in OPTIONAL]:
        raise InputError(f"{text!r} is no sentence of {lang}: it lacks {', '.join(missing)}")
    return meaning


def translate(text: str, source: str, target: str) -> str:
    """The exact translation."""
    return say(understand(text, source), target)


def possible_sentences(topics: int = 1) -> int:
    """How many distinct meanings there are."""
    total = topics
    for role in ROLES:
        total *= CLASSES[_class_of(role)] // topics + (role in OPTIONAL)
    return total


def topic_of(meaning: Mapping[str, int], topics: int) -> int:
    """What a sentence of a corpus with so many topics is about."""
    return meaning["verb"] % topics


def build_sentences(*, train: int, test: int, dev: int, seed: int, topics: int = 1) -> list[Sentence]:
    """Draw distinct sentences; the test's come first, so that more training text never changes them.

    With several topics all words of a sentence are of one: every so many-th of each class. What is said first then
    tells what may follow, as it does in any language and as it does not where words are drawn apart.

    Raises:
        InputError: more sentences than can be drawn without trouble, or more topics than a class has words.
    """
    if not 1 <= topics <= min(CLASSES.values()):
        raise InputError(f"topics is {topics}: it lies between 1 and {min(CLASSES.values())}")
    check_counts(train=train, test=test, dev=dev)
    splits = ["test"] * test + ["dev"] * dev + ["train"] * train
    possible = possible_sentences(topics)
    if len(splits) > possible // 20:
        raise InputError(f"{len(splits)} sentences asked, there are {possible}; ask for fewer")
    random = np.random.default_rng(seed)
    seen: set[tuple[tuple[str, int], ...]] = set()
    sentences: list[Sentence] = []
    while len(sentences) < len(splits):
        topic = int(random.integers(topics)) if topics > 1 else 0
        drawn = {role: topics * int(random.integers(CLASSES[_class_of(role)] // topics)) + topic for role in ROLES}
        kept = {role: word for role, word in drawn.items() if role not in OPTIONAL or random.random() < 0.6}
        if tuple(kept.items()) not in seen:
            seen.add(tuple(kept.items()))
            sentences.append(Sentence(f"s{len(sentences):05d}", splits[len(sentences)], kept))
    return sentences


# -- sound ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyUtterance:
    """A synthesized sentence with everything that is known of it."""

    samples: np.ndarray
    """(S,) float32 at `SAMPLE_RATE`."""
    words: tuple[tuple[str, float, float], ...]
    """(word, start, end) in seconds."""
    segments: tuple[tuple[str, float, float], ...]
    """(letter, start, end) in seconds."""


def envelope(hz: np.ndarray, segment: Segment, speaker: Speaker) -> np.ndarray:
    """Amplitude of a segment at frequencies in Hz: two bands over a floor, tilted.

    A band is never narrower than the distance of harmonics, or its loudness would depend on the pitch.
    """
    hz = np.maximum(hz, 40.0)
    centres = [center * speaker.scale for center in segment.formants]
    low, high = (
        np.exp(-0.5 * ((hz - center) / np.hypot(0.11 * center, 0.6 * speaker.pitch)) ** 2) for center in centres
    )
    return (low + 0.8 * high + 0.004) * (hz / 500.0) ** -speaker.tilt


def synthesize_segment(
    segment: Segment, speaker: Speaker, pitch: np.ndarray, phase: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """(S,) float64 of one segment, for its pitch in Hz and phase in cycles at every sample."""
    count = len(pitch)
    if segment.noise:
        spectrum = np.fft.rfft(random.standard_normal(count))
        samples = np.fft.irfft(spectrum * envelope(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), segment, speaker), count)
    else:
        harmonics = np.arange(1, int(7400 / pitch.max()) + 1)  # (K,)
        weights = envelope(harmonics * pitch.mean(), segment, speaker)
        samples = np.sin(2 * np.pi * np.outer(phase, harmonics)) @ weights
    samples *= LEVEL / max(float(np.sqrt(np.mean(samples**2))), 1e-9)
    ramp = min(int(RAMP_SECONDS * SAMPLE_RATE), count // 2)
    window = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)
    samples[:ramp] *= window
    samples[count - ramp :] *= window[::-1]
    return samples


def synthesize(text: str, speaker: Speaker, *, prosody: str = "flat", seed: int | Sequence[int] = 0) -> ToyUtterance:
    """Speak words that are spelled with the letters of `SEGMENTS`; the same arguments give the same samples.

    Raises:
        InputError: a letter without a sound, an unknown prosody class, or no text.
    """
    if bad := sorted(set(text) - set(SEGMENTS) - {" "}):
        raise InputError(f"{text!r} holds {bad[0]!r}, which has no sound; use the letters {''.join(SEGMENTS)}")
    if prosody not in CONTOURS:
        raise InputError(f"prosody is {prosody!r}; choose one of {', '.join(CONTOURS)}")
    if not text.split():
        raise InputError("no text to speak; give at least one word")
    random = np.random.default_rng(seed)
    position = round(random.uniform(*GAP_SECONDS) * SAMPLE_RATE)
    spans: list[tuple[str, int, int]] = []
    words = []
    for word in text.split():
        begin = position
        for letter in word:
            end = position + round(random.uniform(*SEGMENT_SECONDS) * SAMPLE_RATE)
            spans.append((letter, position, end))
            position = end
        words.append((word, begin / SAMPLE_RATE, position / SAMPLE_RATE))
        position += round(random.uniform(*GAP_SECONDS) * SAMPLE_RATE)
    contour = CONTOURS[prosody]
    pitch = speaker.pitch * random.uniform(0.97, 1.03) * np.linspace(*contour, position)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    samples = random.normal(0.0, speaker.breath, position)
    for letter, begin, stop in spans:
        samples[begin:stop] += synthesize_segment(
            SEGMENTS[letter], speaker, pitch[begin:stop], phase[begin:stop], random
        )
    return ToyUtterance(
        samples.astype(np.float32),
        tuple(words),
        tuple((letter, begin / SAMPLE_RATE, stop / SAMPLE_RATE) for letter, begin, stop in spans),
    )


SAID_AGAIN = "b"
"""What is behind the group of a test sentence that a voice of the training says as well."""

# -- the corpus -------------------------------------------------------------------------------------------------


def make_toy_corpus(
    out: Path | str,
    *,
    languages: Sequence[str] = ("qaa", "qab"),
    pairs: int = 400,
    test_pairs: int = 40,
    seed: int = 0,
    topics: int = 1,
) -> Path:
    """Speak the corpus into `out`; returns its manifest, which is written last. `topics` as in `build_sentences`.

    Columns and splits are those of the phrase corpus: `train`; `dev`; `test` (held-out sentences by held-out voices);
    `test_seen` (the same sentences by voices of the training). `extras` holds the prosody class and the segments.

    Raises:
        InputError: an unknown language, or more sentences than there are.
    """
    check_seed(seed)
    for code in languages:
        lexicon(code)
    root = Path(out)
    lines = []
    sentences = build_sentences(train=pairs, test=test_pairs, dev=test_pairs // 4, seed=seed, topics=topics)
    for number, sentence in enumerate(sentences):
        random = np.random.default_rng([seed, number])
        castings = [(sentence.split, TRAIN_VOICES)]
        if sentence.split == "test":
            castings = [("test", TEST_VOICES), ("test_seen", TRAIN_VOICES)]
        for split, voices in castings:
            voice = voices[int(random.integers(len(voices)))]
            prosody = tuple(CONTOURS)[int(random.integers(len(CONTOURS)))]
            for index, code in enumerate(languages):
                text = sentence.text(code)
                spoken = synthesize(text, voice, prosody=prosody, seed=[seed, number, split == "test_seen", index])
                name = f"{sentence.group}-{split}-{code}"
                write_audio(root / "audio" / f"{name}.flac", spoken.samples, SAMPLE_RATE)
                row = {
                    "id": name, "group": sentence.group + (SAID_AGAIN if split == "test_seen" else ""), "lang": code,
                    "speaker": voice.name, "split": split, "text": text, "audio": f"audio/{name}.flac",
                    "words": _rounded(spoken.words),
                    "extras": {"prosody": prosody, "segments": _rounded(spoken.segments)},
                }  # fmt: skip
                lines.append(json.dumps(row))
    manifest = root / "manifest.jsonl"
    atomic_write_bytes(manifest, ("\n".join(lines) + "\n").encode("utf-8"))
    return manifest


def _rounded(spans: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    return [(name, round(start, 4), round(end, 4)) for name, start, end in spans]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the corpus from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m unitok_tokenizers.corpora.toy", description="Write the toy corpus."
    )
    parser.add_argument("out")
    parser.add_argument("--languages", nargs="+", default=["qaa", "qab"])
    parser.add_argument("--pairs", type=int, default=400, help="training sentences, each spoken once a language")
    parser.add_argument("--test-pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return made(lambda: make_toy_corpus(**{**vars(options), "languages": tuple(options.languages)}))


if __name__ == "__main__":
    sys.exit(main())
