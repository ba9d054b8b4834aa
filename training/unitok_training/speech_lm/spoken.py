"""Pairs of texts, and the same spoken by one voice each: recordings are kept, and what is there is not spoken again.

S samples.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.model import Model
from unitok.pipelines.backends.choose import synthesizer_of
from unitok.pipelines.backends.interfaces import SpokenText, Synthesizer, Voice
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.corpora import toy
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint
from unitok_tokenizers.progress import advance
from unitok_tokenizers.text.score_normalizer import words
from unitok_training.evaluation.text_ability import TextEvals
from unitok_training.speech_lm.pairs import UnitPair
from unitok_training.speech_lm.pseudo_words import pseudo_words, word_list
from unitok_training.speech_lm.scoring import chosen

TOY = "toy"
"""Name of the synthesizer of the toy corpus."""
AUTO, NONE = "auto", "none"
"""espeak-ng where it is installed; nothing."""
PORTION = 32
"""Texts that are spoken at once: what is killed loses no more."""


@dataclass(frozen=True, kw_only=True)
class TextPair:
    """Two texts of which one is right."""

    set: str
    """The set that the pair belongs to."""
    lang: str
    """Language code."""
    good: str
    """The right one."""
    bad: str
    """The other."""


# -- what is said ----------------------------------------------------------------------------------------------------


def word_pairs(
    texts: Sequence[str], lang: str, *, limit: int, seed: int, other: Collection[str] = ()
) -> tuple[list[TextPair], dict[str, float]]:
    """Words of texts against pseudo-words, and what is known of how alike these are.

    The figures: `words` that the texts have, `unseen` trigrams of a pseudo-word, and `letters`, the share of pairs in
    which the trigram model of letters prefers the word: far from a half, spelling alone would tell.
    """
    known = word_list(texts)
    drawn = [known[at] for at in chosen(len(known), limit, seed)]
    found = pseudo_words(drawn, known, seed=seed, other=other)
    if not found:
        raise InputError("no pseudo-word can be made of the words that there are; give more texts, or --pairs")
    better = [(one.difference > 0) + (one.difference == 0) / 2 for one in found]
    told = {
        "words": float(len(known)),
        "unseen": float(np.mean([one.unseen for one in found])),
        "letters": float(np.mean(better)),
    }
    return [TextPair(set="words", lang=lang, good=one.word, bad=one.pseudo) for one in found], told


def sentence_pairs(evals: TextEvals, lang: str, *, limit: int, seed: int) -> list[TextPair]:
    """Minimal pairs of sentences, at most `limit` of each set."""
    return [
        TextPair(set=name, lang=lang, good=pairs[at].good, bad=pairs[at].bad)
        for name, pairs in sorted(evals.pairs.items())
        for at in chosen(len(pairs), limit, seed)
    ]


def swapped_pairs(texts: Sequence[str], lang: str, *, limit: int, seed: int) -> list[TextPair]:
    """Sentences against the same with two neighboring words exchanged: minimal pairs where nobody has written any."""
    distinct = [said for text in dict.fromkeys(texts) if len(set(said := words(text))) > 2]
    pairs = []
    for at in chosen(len(distinct), limit, seed):
        said, random = distinct[at], np.random.default_rng([seed, at])
        places = [place for place in range(len(said) - 1) if said[place] != said[place + 1]]
        place = places[int(random.integers(len(places)))]
        other = [*said[:place], said[place + 1], said[place], *said[place + 2 :]]
        pairs.append(TextPair(set="swapped_words", lang=lang, good=" ".join(said), bad=" ".join(other)))
    return pairs


# -- who says it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ToySynthesizer:
    """The synthesizer of the toy corpus: every letter that it knows has a sound, in any word."""

    def speak(self, texts: Sequence[str], *, lang: str, voice: Voice = None) -> list[SpokenText]:
        """As `Synthesizer.speak`; a voice is a name of the toy corpus. InputError for another, or a letter that has no
        sound."""
        known = {one.name: one for one in toy.SPEAKERS}
        name = voice or toy.TEST_VOICES[0].name
        if not isinstance(name, str) or name not in known:
            raise InputError(f"the toy corpus has no voice {str(voice)!r}; it has {', '.join(known)}")
        return [
            SpokenText(samples=toy.synthesize(text, known[name], seed=list(text.encode())).samples, sample_rate=16000)
            for text in texts
        ]


def speaker_of(name: str, model: Model) -> tuple[str, Synthesizer]:
    """(its name, a synthesizer) by what a user says: auto, toy, or a name or folder as a cascade takes them.

    Raises:
        InputError: `none`, `auto` where espeak-ng is not installed, or an unknown name.
    """
    if name == NONE:
        raise InputError("nothing speaks with --synthesizer none")
    if name == AUTO:
        if importlib.util.find_spec("espeakng_loader") is None:
            raise InputError("nothing speaks here: pip install 'unitok[demo]' for espeak-ng, or give --synthesizer")
        name = "espeak"
    return name, ToySynthesizer() if name == TOY else synthesizer_of(name, model)


@dataclass(frozen=True, kw_only=True)
class Speaking:
    """How pairs become speech."""

    synthesizer: str = AUTO
    """auto (espeak-ng where it is installed), none, toy, espeak, unitok, or a folder of a model."""
    voices: tuple[str, ...] = ()
    """Voices that take turns, pair by pair; empty for the synthesizer's usual one."""


def spoken_pairs(model: Model, pairs: Sequence[TextPair], speaking: Speaking, folder: Path) -> list[UnitPair]:
    """Pairs as units: both sides of one are said by the same voice, and kept in `folder` as recordings.

    Raises:
        InputError: nothing speaks, or not these texts; the model reads no recordings.
    """
    name, synthesizer = speaker_of(speaking.synthesizer, model)
    turns = speaking.voices or ("",)
    said = [
        (text, pair.lang, turns[number % len(turns)])
        for number, pair in enumerate(pairs)
        for text in (pair.good, pair.bad)
    ]
    speaker = _content(name, model)
    paths = [folder / f"{fingerprint([*speaker, *one])}.flac" for one in said]
    _speak(synthesizer, {path: one for path, one in zip(paths, said) if not path.exists()})
    rate, units = model.sample_rate, list[np.ndarray]()
    for start in range(0, len(paths), PORTION):
        sounds = [(read_audio(path, sample_rate=rate), rate) for path in paths[start : start + PORTION]]
        units += model.units_of(sounds)
        advance("recording read", len(units), len(paths))
    return [
        UnitPair(name=f"{pair.good} / {pair.bad}", set=pair.set, lang=pair.lang, good=good, bad=bad)
        for pair, good, bad in zip(pairs, units[0::2], units[1::2])
    ]


def made_by(model: Model) -> list[str]:
    """Identifies the weights of a model's decoder and vocoder."""
    networks = [model.decoder, *(model.vocoder.parts.values() if model.vocoder is not None else ())]
    return [
        array_fingerprint(*(one.detach().float().cpu().numpy() for one in network.parameters())) for network in networks
    ]


def content(speaking: Speaking, model: Model) -> list[Any]:
    """What identifies the synthesizer that `spoken_pairs` takes, by what it is now; nothing where nothing speaks."""
    try:
        return _content(speaker_of(speaking.synthesizer, model)[0], model)
    except InputError:
        return []


def _content(name: str, model: Model) -> list[Any]:
    """What identifies a synthesizer, beside its name: the model that speaks, or the files that it is read from."""
    if name == "unitok":
        return [name, *made_by(model), model.vocabulary.fingerprint]
    files = sorted(one for one in Path(name).rglob("*") if one.is_file()) if Path(name).is_dir() else []
    files += [one for one in (Path(name), Path(f"{name}.json")) if one.is_file()]
    stats = [(one.as_posix(), one.stat()) for one in files]
    return [name, *([path, found.st_size, found.st_mtime_ns] for path, found in stats)]


def _speak(synthesizer: Synthesizer, waiting: dict[Path, tuple[str, str, str]]) -> None:
    """Write what is not there yet, a portion of one language and voice at a time."""
    kinds: dict[tuple[str, str], list[Path]] = {}
    for path, (_, lang, voice) in waiting.items():
        kinds.setdefault((lang, voice), []).append(path)
    done = 0
    for (lang, voice), paths in kinds.items():
        for start in range(0, len(paths), PORTION):
            portion = paths[start : start + PORTION]
            spoken = synthesizer.speak([waiting[path][0] for path in portion], lang=lang, voice=voice or None)
            for path, one in zip(portion, spoken):
                write_audio(path, one.samples, one.sample_rate)
            done += len(portion)
            advance("text spoken", done, len(waiting))
