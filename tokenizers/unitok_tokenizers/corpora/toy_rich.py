"""The toy corpus with more to say of every recording: written forms, rare names, answers, continuations.

A row's `extras` hold what lines of a latent mixture ask for: `prosody`, `segments` (sounds as they are said),
`formatted` and `plain` (in training one of the two, and `mixed` is the one that there is), `keywords` (the names),
`continuation`.

    python -m unitok_tokenizers.corpora.toy_rich FOLDER --sentences 400 --names 200
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.corpora.command import made
from unitok_tokenizers.corpora.toy import (
    CLASSES,
    CONSONANTS,
    CONTOURS,
    HISSES,
    LANGUAGES,
    ORDERS,
    SAMPLE_RATE,
    TEST_VOICES,
    TRAIN_VOICES,
    VOWELS,
    Sentence,
    Speaker,
    build_sentences,
    lexicon,
    say,
    synthesize,
)
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.seeds import check_seed

NAME_SHARE = 0.7
"""Share of the sentences whose second noun is a name, where there are names."""

NAME_SYLLABLES = 24
"""Syllables that names are made of: few, as in the names of a people."""
NAMES_HEARD = 9
"""Names in training sentences ÷ names in held-out ones."""


def names_of(count: int) -> tuple[str, ...]:
    """Names of two or three of `NAME_SYLLABLES` syllables, that no language has as a word; InputError for more than
    half of those that there are, which would take long to find."""
    most = (NAME_SYLLABLES**2 + NAME_SYLLABLES**3) // 2
    if not 0 <= count <= most:
        raise InputError(f"names is {count // (1 + NAMES_HEARD)}: give 0 to {most // (1 + NAMES_HEARD)}")
    random = np.random.default_rng(21)
    known = {word for lang in LANGUAGES for words in lexicon(lang).values() for word in words}
    possible = [onset + vowel for onset in CONSONANTS + HISSES for vowel in VOWELS]
    syllables = [possible[place] for place in random.permutation(len(possible))[:NAME_SYLLABLES]]
    found: list[str] = []
    while len(found) < count:
        name = "".join(str(one) for one in random.choice(syllables, int(random.integers(2, 4))))
        if name not in known and name not in found:
            found.append(name)
    return tuple(found)


def with_name(meaning: Mapping[str, int], lang: str, name: str | None) -> str:
    """A sentence whose second noun is a name."""
    words = say(meaning, lang).split()
    if name is not None:
        words[[role for role in ORDERS[lang] if role in meaning].index("noun2")] = name
    return " ".join(words)


def written(text: str, lang: str, manner: str) -> str:
    """The written form: a capital first, times as digits, a question mark where the voice rises."""
    times = {word: f"{index + 1}:00" for index, word in enumerate(lexicon(lang)["time"])}
    words = " ".join(times.get(word, word) for word in text.split())
    return words[0].upper() + words[1:] + ("?" if manner == "rise" else ".")


def continuation(meaning: Mapping[str, int], lang: str) -> str:
    """The sentence that follows: the two nouns change places and the next verb of the lexicon joins them."""
    turned = {
        "noun1": meaning["noun2"], "verb": (meaning["verb"] + 1) % CLASSES["verb"], "noun2": meaning["noun1"],
    }  # fmt: skip
    return say(turned, lang)


def make_rich_corpus(
    out: Path | str,
    *,
    sentences: int = 400,
    test_sentences: int = 60,
    names: int = 0,
    noise: float = 0.0,
    name_noise: float = 0.0,
    session: int = 0,
    seed: int = 0,
) -> Path:
    """Speak the corpus into `out`; returns its manifest, which is written last.

    One language is spoken; a row without audio in another one translates each sentence. Splits are those of the toy
    corpus. The names of held-out sentences come in no training sentence; those that do are many, so that a model learns
    to spell them rather than which there are.

    Args:
        out: folder.
        sentences: training sentences.
        test_sentences: spoken by held-out voices in `test` and by known ones in `test_seen`.
        names: how many rare names there are in held-out sentences; 0 for none.
        noise: standard deviation of noise added to the audio, full scale 1.
        name_noise: of more noise, over names alone, which are then what cannot be known by ear.
        session: about so many sentences of a speaker share their name, where they have one; a speaker is a voice and
            what it speaks of. 0 for names of their own.
        seed: of every draw.

    Raises:
        InputError: more sentences than there are.
    """
    root, lang, other = Path(out), LANGUAGES[0], LANGUAGES[1]
    check_seed(seed)
    known = names_of(names * (1 + NAMES_HEARD))
    counts, lines = {"train": sentences, "test": test_sentences, "test_seen": test_sentences}, []
    for number, sentence in enumerate(build_sentences(train=sentences, test=test_sentences, dev=0, seed=seed)):
        random = np.random.default_rng([seed, number])
        pool = known[:names] if sentence.split == "test" else known[names:]
        name = str(random.choice(pool)) if pool and random.random() < NAME_SHARE else None
        castings = [(sentence.split, TRAIN_VOICES)]
        if sentence.split == "test":
            castings = [("test", TEST_VOICES), ("test_seen", TRAIN_VOICES)]
        for split, voices in castings:
            voice = voices[int(random.integers(len(voices)))]
            topic = ""
            if session:
                about = int(random.integers(max(1, counts[split] // (session * len(voices)))))
                name = name and pool[(about * len(voices) + voices.index(voice)) % len(pool)]
                topic = f"-{about}"
            row = _row(sentence, split, voice, name, lang, random)
            row["speaker"] += topic
            spoken = synthesize(row["text"], voice, prosody=row["extras"]["prosody"], seed=[seed, number])
            samples = spoken.samples + random.normal(0, noise, len(spoken.samples)).astype(np.float32) * (noise > 0)
            row["words"] = [(word, round(start, 4), round(end, 4)) for word, start, end in spoken.words]
            for word, start, end in row["words"] if name_noise else ():
                if word == name:
                    blurred = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
                    blurred += random.normal(0, name_noise, len(blurred))
            write_audio(root / row["audio"], samples.astype(np.float32), SAMPLE_RATE)
            row["extras"]["segments"] = [(letter, round(a, 4), round(b, 4)) for letter, a, b in spoken.segments]
            text = with_name(sentence.meaning, other, name)
            lines += [
                row,
                {"id": f"{row['id']}-{other}", "group": row["group"], "lang": other, "split": split, "text": text},
            ]
    manifest = root / "manifest.jsonl"
    atomic_write_bytes(manifest, ("\n".join(json.dumps(line) for line in lines) + "\n").encode("utf-8"))
    return manifest


def _row(
    sentence: Sentence, split: str, voice: Speaker, name: str | None, lang: str, random: np.random.Generator
) -> dict[str, Any]:
    manner = tuple(CONTOURS)[int(random.integers(len(CONTOURS)))]
    text = with_name(sentence.meaning, lang, name)
    forms = {"plain": text, "formatted": written(text, lang, manner)}
    form = str(random.choice(list(forms)))
    extras: dict[str, Any] = {"prosody": manner, "mixed": forms[form]}
    extras |= {form: forms[form]} if split == "train" else forms
    extras |= {"keywords": [name]} if name is not None else {"continuation": continuation(sentence.meaning, lang)}
    identity = f"{sentence.group}-{split}"
    return {
        "id": identity, "group": identity, "lang": lang, "speaker": voice.name, "split": split, "text": text,
        "audio": f"audio/{identity}.flac", "extras": extras,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the corpus from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m unitok_tokenizers.corpora.toy_rich", description="Write the toy corpus with richer rows."
    )
    parser.add_argument("out")
    parser.add_argument("--sentences", type=int, default=400, help="training sentences")
    parser.add_argument("--test-sentences", type=int, default=60)
    parser.add_argument("--names", type=int, default=0, help="rare names")
    parser.add_argument("--noise", type=float, default=0.0, help="noise in the audio, full scale 1")
    parser.add_argument("--name-noise", type=float, default=0.0, help="more noise over names")
    parser.add_argument("--session", type=int, default=0, help="sentences of a speaker that share their name")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return made(lambda: make_rich_corpus(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())
