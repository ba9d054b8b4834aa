"""The phrase corpus: everyday sentences with exact translations, spoken by espeak-ng in several voices.

A sentence is a template and a choice of words. The templates differ in word order between the languages: German puts
participles, infinitives and subordinate verbs last and time before place; French and Spanish put adjectives after nouns.
Test sentences are combinations of template and words that training never shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitok_tokenizers.corpora.command import check_counts
from unitok_tokenizers.corpora.espeak import Utterance, Voice, speak_all
from unitok_tokenizers.corpora.lexicon import (
    ADJECTIVES,
    LANGUAGES,
    MODALS,
    NOUNS,
    NUMBERS,
    PLACES,
    SUBJECTS,
    TIMES_FUTURE,
    TIMES_PAST,
    VERBS,
)
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.seeds import check_seed

SLOTS = {
    "noun": len(NOUNS),
    "adjective": len(ADJECTIVES),
    "verb": len(VERBS),
    "subject": len(SUBJECTS),
    "other": len(SUBJECTS),
    "past": len(TIMES_PAST),
    "future": len(TIMES_FUTURE),
    "place": len(PLACES),
    "number": len(NUMBERS),
    "modal": len(MODALS),
}
PERSONS = {"3s": 0, "1p": 1, "3p": 2}


@dataclass(frozen=True)
class Choice:
    """Indices of the words that fill a template's slots."""

    words: dict[str, int]

    def subject(self, lang: int, slot: str = "subject") -> str:
        """The subject in language number `lang`."""
        return SUBJECTS[self.words[slot]][lang]

    def person(self, slot: str = "subject") -> int:
        """0 third singular, 1 first plural, 2 third plural."""
        return PERSONS[SUBJECTS[self.words[slot]][4]]

    def verb(self, lang: int) -> tuple[str, ...]:
        """The verb's forms in language number `lang`."""
        return VERBS[self.words["verb"]][lang]

    def phrase(self, table: Sequence[tuple[str, ...]], slot: str, lang: int) -> str:
        """The entry of a table that a slot chooses, in language number `lang`."""
        return table[self.words[slot]][lang]

    def object(self, lang: int, *, nominative: bool = False) -> str:
        """Definite article, adjective and noun in the language's order and agreement."""
        noun, adjective = NOUNS[self.words["noun"]], ADJECTIVES[self.words["adjective"]]
        if lang == 0:
            return f"the {adjective[0]} {noun[0][0]}"
        if lang == 1:
            singular, _, gender = noun[1]
            masculine = ("der", "e") if nominative else ("den", "en")
            article, ending = {"m": masculine, "f": ("die", "e"), "n": ("das", "e")}[gender]
            return f"{article} {adjective[1]}{ending} {singular}"
        singular, _, gender = noun[2] if lang == 2 else noun[3]
        forms = adjective[2] if lang == 2 else adjective[3]
        articles = {"m": "le", "f": "la"} if lang == 2 else {"m": "el", "f": "la"}
        return f"{articles[gender]} {singular} {forms[gender == 'f']}"

    def plural(self, lang: int) -> str:
        """The noun's plural in language number `lang`."""
        return NOUNS[self.words["noun"]][lang][1]


HAVE_DE, HAVE_FR = ("hat", "haben", "haben"), ("a", "avons", "ont")


def _bought(c: Choice) -> tuple[str, str, str, str]:
    who, person = [c.subject(lang) for lang in range(4)], c.person()
    when = [c.phrase(TIMES_PAST, "past", lang) for lang in range(4)]
    where = [c.phrase(PLACES, "place", lang) for lang in range(4)]
    return (
        f"{who[0]} {c.verb(0)[2]} {c.object(0)} {where[0]} {when[0]}",
        f"{who[1]} {HAVE_DE[person]} {when[1]} {c.object(1)} {where[1]} {c.verb(1)[2]}",
        f"{when[2]} {who[2]} {HAVE_FR[person]} {c.verb(2)[4]} {c.object(2)} {where[2]}",
        f"{when[3]} {who[3]} {c.verb(3)[4 + person]} {c.object(3)} {where[3]}",
    )


def _modal(c: Choice) -> tuple[str, str, str, str]:
    who, person, modal = [c.subject(lang) for lang in range(4)], c.person(), MODALS[c.words["modal"]]
    when = [c.phrase(TIMES_FUTURE, "future", lang) for lang in range(4)]
    return (
        f"{who[0]} {modal[0][person > 0]} {c.verb(0)[0]} {c.object(0)} {when[0]}",
        f"{when[1]} {modal[1][person > 0]} {who[1]} {c.object(1)} {c.verb(1)[0]}",
        f"{who[2]} {modal[2][person]} {c.verb(2)[0]} {c.object(2)} {when[2]}",
        f"{who[3]} {modal[3][person]} {c.verb(3)[0]} {c.object(3)} {when[3]}",
    )


def _says(c: Choice) -> tuple[str, str, str, str]:
    who, other, person = [c.subject(k) for k in range(4)], [c.subject(k, "other") for k in range(4)], c.person("other")
    speaks, p = c.person(), c.person("other")
    where = [c.phrase(PLACES, "place", lang) for lang in range(4)]
    german = c.verb(1)[1] if p == 0 else c.verb(1)[0]
    que = "qu'" if other[2][0] in "aeiouéè" else "que "
    return (
        f"{who[0]} {('says', 'say', 'say')[speaks]} that {other[0]} {c.verb(0)[1 if p == 0 else 0]} {c.object(0)} {where[0]}",
        f"{who[1]} {('sagt', 'sagen', 'sagen')[speaks]} dass {other[1]} {c.object(1)} {where[1]} {german}",
        f"{who[2]} {('dit', 'disons', 'disent')[speaks]} {que}{other[2]} {c.verb(2)[1 + person]} {c.object(2)} {where[2]}",
        f"{who[3]} {('dice', 'decimos', 'dicen')[speaks]} que {other[3]} {c.verb(3)[1 + person]} {c.object(3)} {where[3]}",
    )


def _where(c: Choice) -> tuple[str, str, str, str]:
    who, person = [c.subject(lang) for lang in range(4)], c.person()
    when = [c.phrase(TIMES_PAST, "past", lang) for lang in range(4)]
    est_ce = "où est ce qu'" if who[2][0] in "aeiouéè" else "où est ce que "
    return (
        f"where did {who[0]} {c.verb(0)[0]} {c.object(0)} {when[0]}",
        f"wo {HAVE_DE[person]} {who[1]} {when[1]} {c.object(1)} {c.verb(1)[2]}",
        f"{est_ce}{who[2]} {HAVE_FR[person]} {c.verb(2)[4]} {c.object(2)} {when[2]}",
        f"dónde {c.verb(3)[4 + person]} {who[3]} {c.object(3)} {when[3]}",
    )


def _stands(c: Choice) -> tuple[str, str, str, str]:
    when = [c.phrase(TIMES_FUTURE, "future", lang) for lang in range(4)]
    where = [c.phrase(PLACES, "place", lang) for lang in range(4)]
    return (
        f"{c.object(0, nominative=True)} is {where[0]} {when[0]}",
        f"{when[1]} ist {c.object(1, nominative=True)} {where[1]}",
        f"{c.object(2, nominative=True)} est {where[2]} {when[2]}",
        f"{when[3]} {c.object(3, nominative=True)} está {where[3]}",
    )


def _needs(c: Choice) -> tuple[str, str, str, str]:
    who, person = [c.subject(lang) for lang in range(4)], c.person()
    when = [c.phrase(TIMES_FUTURE, "future", lang) for lang in range(4)]
    count = [c.phrase(NUMBERS, "number", lang) for lang in range(4)]
    need = [
        ("needs", "need", "need"),
        ("braucht", "brauchen", "brauchen"),
        ("cherche", "cherchons", "cherchent"),
        ("necesita", "necesitamos", "necesitan"),
    ]
    return (
        f"{who[0]} {need[0][person]} {count[0]} {c.plural(0)} {when[0]}",
        f"{who[1]} {need[1][person]} {when[1]} {count[1]} {c.plural(1)}",
        f"{when[2]} {who[2]} {need[2][person]} {count[2]} {c.plural(2)}",
        f"{who[3]} {need[3][person]} {count[3]} {c.plural(3)} {when[3]}",
    )


TEMPLATES: tuple[tuple[tuple[str, ...], Callable[[Choice], tuple[str, str, str, str]]], ...] = (
    (("subject", "verb", "adjective", "noun", "place", "past"), _bought),
    (("subject", "modal", "verb", "adjective", "noun", "future"), _modal),
    (("subject", "other", "verb", "adjective", "noun", "place"), _says),
    (("subject", "verb", "adjective", "noun", "past"), _where),
    (("adjective", "noun", "place", "future"), _stands),
    (("subject", "number", "noun", "future"), _needs),
)

TRAIN_VOICES: tuple[Voice, ...] = (
    Voice("anna", "f1", 55), Voice("bella", "f2", 62), Voice("clara", "f4", 48), Voice("dora", "f5", 70),
    Voice("emil", "m1", 42), Voice("felix", "m3", 34), Voice("georg", "m7", 52), Voice("hugo", "m2", 25),
)  # fmt: skip
TEST_VOICES: tuple[Voice, ...] = (Voice("iris", "f3", 58), Voice("jonas", "m4", 38), Voice("karl", "m6", 46))


@dataclass(frozen=True)
class Sentence:
    """One meaning in every language."""

    group: str
    split: str
    text: dict[str, str]


def possible_sentences() -> int:
    """How many distinct choices the templates have."""
    return sum(math.prod(SLOTS[slot] for slot in slots) for slots, _ in TEMPLATES)


def build_sentences(*, train: int, test: int, dev: int, seed: int) -> list[Sentence]:
    """Draw distinct sentences, template by template in turn; test and dev choices are disjoint from training's.

    Raises:
        InputError: more sentences than the templates can make.
    """
    check_counts(train=train, test=test, dev=dev)
    total = train + test + dev
    if total > possible_sentences() // 20:
        raise InputError(f"{total} sentences asked, the templates give {possible_sentences()}; ask for fewer")
    random = np.random.default_rng(seed)
    seen: set[tuple[str, ...]] = set()
    sentences: list[Sentence] = []
    # Test sentences are drawn first, so that more training text never changes them.
    splits = ["test"] * test + ["dev"] * dev + ["train"] * train
    while len(sentences) < total:
        slots, template = TEMPLATES[int(random.choice(len(TEMPLATES), p=TEMPLATE_SHARE))]
        choice = Choice({slot: int(random.integers(SLOTS[slot])) for slot in slots})
        if choice.words.get("other", -1) == choice.words.get("subject"):
            continue
        texts = template(choice)
        if texts[:1] in seen:
            continue
        seen.add(texts[:1])
        number = len(sentences)
        sentences.append(Sentence(f"s{number:05d}", splits[number], dict(zip(LANGUAGES, texts))))
    return sentences


TEMPLATE_SHARE = (0.22, 0.22, 0.2, 0.18, 0.1, 0.08)
"""How often each template is drawn: in rough proportion to its choices, the small ones still seen."""


def seen_ngram_share(train: Iterable[str], test: Iterable[str], n: int = 4) -> float:
    """Share of the test text's word n-grams that the training text contains."""
    known = {gram for text in train for gram in _ngrams(text, n)}
    grams = [gram for text in test for gram in _ngrams(text, n)]
    return sum(gram in known for gram in grams) / max(len(grams), 1)


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def check_languages(codes: Sequence[str]) -> None:
    """InputError for a language that the phrase corpus does not have."""
    for code in codes:
        if code not in LANGUAGES:
            raise InputError(f"the phrase corpus has no language {code!r}; it has {', '.join(LANGUAGES)}")


def make_phrase_corpus(
    out: Path | str,
    *,
    languages: Sequence[str] = ("en", "de"),
    pairs: int = 3000,
    test_pairs: int = 120,
    seed: int = 0,
    workers: int = 2,
) -> Path:
    """Speak the corpus into `out`; returns its manifest, which is written last. Finished audio is kept on a repeat.

    Splits: `train`; `dev`; `test` (held-out sentences by held-out voices); `test_seen` (the same sentences by voices
    of the training).

    Raises:
        InputError: an unknown language, too many sentences, or no espeak-ng.
    """
    check_languages(languages)
    check_seed(seed)
    root = Path(out)
    manifest = root / "manifest.jsonl"
    utterances = _utterances(
        build_sentences(train=pairs, test=test_pairs, dev=test_pairs // 3, seed=seed), languages, seed
    )
    spoken = speak_all(utterances, root / "audio", workers=workers)
    lines = []
    for utterance, words in zip(utterances, spoken):
        row = {
            "id": utterance.id, "group": utterance.group, "lang": utterance.lang, "speaker": utterance.voice.name,
            "split": utterance.split, "text": utterance.text, "audio": f"audio/{utterance.id}.flac", "words": words,
        }  # fmt: skip
        lines.append(json.dumps(row, ensure_ascii=False))
    atomic_write_bytes(manifest, ("\n".join(lines) + "\n").encode("utf-8"))
    return manifest


def _utterances(sentences: Sequence[Sentence], languages: Sequence[str], seed: int) -> list[Utterance]:
    """Every sentence once a language by one voice; test sentences by a held-out and by a known voice."""
    utterances = []
    for number, sentence in enumerate(sentences):
        random = np.random.default_rng([seed, number])
        castings = [(sentence.split, TRAIN_VOICES)]
        if sentence.split == "test":
            castings = [("test", TEST_VOICES), ("test_seen", TRAIN_VOICES)]
        for split, voices in castings:
            voice = voices[int(random.integers(len(voices)))]
            for code in languages:
                utterances.append(
                    Utterance(
                        id=f"{sentence.group}-{split}-{code}",
                        group=sentence.group if split != "test_seen" else f"{sentence.group}b",
                        lang=code,
                        split=split,
                        text=sentence.text[code],
                        voice=voice,
                        rate=int(random.integers(150, 190)),
                        pitch=voice.pitch + int(random.integers(-4, 5)),
                    )
                )
    return utterances
