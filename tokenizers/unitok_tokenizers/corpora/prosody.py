"""The prosody corpus: phrases spoken by espeak-ng in classes of prosody that their text says nothing of.

Every test sentence is spoken in every class, so that nobody who sees the text alone can be right more often than once
in `len(CLASSES)`; the voices of the test are heard in no training.

    python -m unitok_tokenizers.corpora.prosody FOLDER --sentences 500
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitok_tokenizers.corpora.command import made
from unitok_tokenizers.corpora.espeak import Utterance, Voice, speak_all
from unitok_tokenizers.corpora.phrases import TEST_VOICES, TRAIN_VOICES, Sentence, build_sentences, check_languages
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.seeds import check_seed


@dataclass(frozen=True)
class Manner:
    """How a class is spoken."""

    rate: int
    """Words a minute."""
    pitch: int
    """Added to the voice's own pitch, of espeak's 0 to 99."""
    range: int
    """How far the pitch moves, 0 (monotone) to 99."""


CLASSES: Mapping[str, Manner] = {
    "neutral": Manner(165, 0, 50),
    "excited": Manner(195, 16, 95),
    "sad": Manner(125, -8, 10),
    "hurried": Manner(230, 0, 10),
}
"""Class → manner; loudness is the same in all, because log-mels lose it."""


def make_prosody_corpus(
    out: Path | str,
    *,
    sentences: int = 500,
    test_sentences: int = 40,
    lang: str = "en",
    seed: int = 0,
    workers: int = 2,
) -> Path:
    """Speak the corpus into `out`; returns its manifest, which is written last. Finished audio is kept on a repeat.

    A training sentence is spoken once, in a class and by a voice of the training drawn for it; a test sentence in every
    class, each by a held-out voice. `extras.prosody` is the class.

    Raises:
        InputError: too many sentences, or no espeak-ng.
    """
    check_languages([lang])
    check_seed(seed)
    drawn = build_sentences(train=sentences, test=test_sentences, dev=0, seed=seed)
    utterances, classes = [], []
    for number, sentence in enumerate(drawn):
        random = np.random.default_rng([seed, number])
        names = list(CLASSES) if sentence.split == "test" else [str(random.choice(list(CLASSES)))]
        voices = TEST_VOICES if sentence.split == "test" else TRAIN_VOICES
        for name in names:
            utterances.append(_utterance(sentence, name, voices[int(random.integers(len(voices)))], lang, random))
            classes.append(name)
    root = Path(out)
    spoken = speak_all(utterances, root / "audio", workers=workers)
    lines = [
        json.dumps(
            {
                "id": one.id, "group": one.id, "lang": lang, "speaker": one.voice.name, "split": one.split,
                "text": one.text, "audio": f"audio/{one.id}.flac", "words": words, "extras": {"prosody": name},
            },
            ensure_ascii=False,
        )
        for one, words, name in zip(utterances, spoken, classes)
    ]  # fmt: skip
    atomic_write_bytes(root / "manifest.jsonl", ("\n".join(lines) + "\n").encode("utf-8"))
    return root / "manifest.jsonl"


def _utterance(sentence: Sentence, name: str, voice: Voice, lang: str, random: np.random.Generator) -> Utterance:
    manner = CLASSES[name]
    return Utterance(
        id=f"{sentence.group}-{sentence.split}-{name}",
        group=sentence.group,
        lang=lang,
        split=sentence.split,
        text=sentence.text[lang],
        voice=voice,
        rate=manner.rate + int(random.integers(-8, 9)),
        pitch=int(np.clip(voice.pitch + manner.pitch + random.integers(-4, 5), 0, 99)),
        range=manner.range,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the corpus from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m unitok_tokenizers.corpora.prosody", description="Write the prosody corpus."
    )
    parser.add_argument("out")
    parser.add_argument("--sentences", type=int, default=500, help="training sentences")
    parser.add_argument("--test-sentences", type=int, default=40, help="test sentences, each spoken in every class")
    parser.add_argument("--lang", default="en")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return made(lambda: make_prosody_corpus(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())
