"""The corpora: enough distinct sentences and words, honest held-out splits, repeatable bytes, and an oracle that reads.

Run alone with `pytest tests/test_corpora.py`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unitok_tokenizers.audio.io import read_audio
from unitok_tokenizers.corpora import phrases, toy
from unitok_tokenizers.corpora.espeak import ESPEAK_LANGUAGES, Utterance, speak_all
from unitok_tokenizers.corpora.lexicon import LANGUAGES
from unitok_tokenizers.corpora.toy_oracle import Oracle
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError

MAKERS: dict[str, Callable[..., Path]] = {"phrases": phrases.make_phrase_corpus, "toy": toy.make_toy_corpus}


def digest(folder: Path) -> dict[str, str]:
    """Hash of every file that is not hidden."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def phrases_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` brings espeak-ng")
    return phrases.make_phrase_corpus(tmp_path_factory.mktemp("phrases"), pairs=24, test_pairs=8, seed=3)


@pytest.fixture(scope="module")
def toy_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_corpus(tmp_path_factory.mktemp("toy"), pairs=24, test_pairs=8, seed=3)


@pytest.fixture(scope="module", params=sorted(MAKERS))
def made(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Name and manifest of a small corpus of each kind."""
    return request.param, request.getfixturevalue(f"{request.param}_manifest")


@pytest.fixture
def rows(made: tuple[str, Path]) -> list[Row]:
    return read_manifest(made[1])


# -- both -------------------------------------------------------------------------------------------------------


def test_splits_share_neither_sentences_nor_voices(rows: list[Row]) -> None:
    texts = {split: {row.text for row in rows if row.split == split} for split in ("train", "dev", "test", "test_seen")}
    assert all(texts.values())
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["dev"] and not texts["dev"] & texts["test"]
    assert texts["test_seen"] == texts["test"]
    voices = {split: {row.speaker for row in rows if row.split == split} for split in texts}
    assert not voices["test"] & (voices["train"] | voices["dev"] | voices["test_seen"])
    trained = {voice.name for voice in (*phrases.TRAIN_VOICES, *toy.TRAIN_VOICES)}
    assert len(voices["train"]) > 2 and voices["test_seen"] <= trained


def test_a_group_is_one_sentence_by_one_voice_in_every_language(rows: list[Row]) -> None:
    languages = {row.lang for row in rows}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    for group in groups.values():
        assert {row.lang for row in group} == languages and len(group) == len(languages) == 2
        assert len({row.speaker for row in group}) == 1 and len({row.text for row in group}) == 2


def test_words_lie_in_order_within_the_audio(rows: list[Row]) -> None:
    for row in rows:
        samples = row.load(16000)
        assert 0.3 < len(samples) / 16000 < 12 and 0.01 < np.sqrt(np.mean(samples**2)) < 0.5
        assert [word for word, _, _ in row.words] == (row.text or "").split()
        starts = [start for _, start, _ in row.words]
        assert starts == sorted(starts) and row.words[-1][2] <= len(samples) / 16000 + 0.01
        assert all(start < end for _, start, end in row.words)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made: tuple[str, Path], tmp_path: Path) -> None:
    name, manifest = made
    again = MAKERS[name](tmp_path / "again", pairs=24, test_pairs=8, seed=3)
    assert digest(again.parent) == digest(manifest.parent)
    other = MAKERS[name](tmp_path / "other", pairs=24, test_pairs=8, seed=4)
    assert other.read_bytes() != manifest.read_bytes()


def test_more_training_sentences_leave_the_test_as_it_is() -> None:
    for build in (phrases.build_sentences, toy.build_sentences):
        few = [one for one in build(train=10, test=20, dev=5, seed=1) if one.split != "train"]
        many = [one for one in build(train=300, test=20, dev=5, seed=1) if one.split != "train"]
        assert few == many


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'xx'.*en, de"):
        phrases.make_phrase_corpus(tmp_path, languages=("en", "xx"))
    with pytest.raises(InputError, match="'en'.*qaa"):
        toy.make_toy_corpus(tmp_path, languages=("en",))
    with pytest.raises(InputError, match="ask for fewer"):
        phrases.build_sentences(train=phrases.possible_sentences(), test=1, dev=1, seed=0)
    with pytest.raises(InputError, match="ask for fewer"):
        toy.build_sentences(train=toy.possible_sentences(), test=1, dev=1, seed=0)


# -- the phrase corpus ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences() -> list[phrases.Sentence]:
    return phrases.build_sentences(train=4000, test=200, dev=50, seed=0)


def test_phrases_have_words_and_sentences_enough(sentences: list[phrases.Sentence]) -> None:
    assert len({one.text["en"] for one in sentences}) == len(sentences)
    assert phrases.possible_sentences() >= 10_000
    for code in LANGUAGES:
        assert len({word for one in sentences for word in one.text[code].split()}) >= 120, code
    # Not only counted: far more than 10,000 distinct ones can be drawn.
    drawn = phrases.build_sentences(train=10_000, test=0, dev=0, seed=1)
    for code in LANGUAGES:
        assert len({one.text[code] for one in drawn}) >= 9_900, code


def test_phrases_are_clean_text(sentences: list[phrases.Sentence]) -> None:
    for one in sentences:
        for text in one.text.values():
            assert text == text.lower() == " ".join(text.split()) and all(c.isalpha() or c in " '" for c in text), text


def test_phrases_differ_in_word_order(sentences: list[phrases.Sentence]) -> None:
    """German ends in its verb where English has it in the middle; French and Spanish put adjectives behind nouns."""
    participles = {verb[1][2] for verb in phrases.VERBS}
    assert sum(one.text["de"].split()[-1] in participles for one in sentences) > len(sentences) / 4
    english = {noun[0][0]: index for index, noun in enumerate(phrases.NOUNS)}
    for one in sentences[:400]:
        words = one.text["en"].split()
        found = [word for word in words if word in english and words[words.index(word) - 1] != "the"]
        if found and words[words.index(found[0]) - 2] == "the":
            noun = phrases.NOUNS[english[found[0]]]
            for code, forms in (("fr", noun[2]), ("es", noun[3])):
                other = one.text[code].split()
                before = other[other.index(forms[0]) - 1]
                assert before in ("le", "la", "el"), (words, other)


def test_seen_share_equals_a_brute_force_count(sentences: list[phrases.Sentence]) -> None:
    train = [one.text["en"] for one in sentences if one.split == "train"][:300]
    test = [one.text["en"] for one in sentences if one.split == "test"]
    seen = total = 0
    for text in test:
        words = text.split()
        for start in range(len(words) - 3):
            total += 1
            wanted = " " + " ".join(words[start : start + 4]) + " "
            seen += any(wanted in f" {other} " for other in train)
    share = phrases.seen_ngram_share(train, test)
    assert share == seen / total and 0 < share < 1
    assert phrases.seen_ngram_share(test, test) == 1 and phrases.seen_ngram_share([], test) == 0
    assert phrases.seen_ngram_share(train, []) == 0


# -- espeak-ng --------------------------------------------------------------------------------------------------


def utterance(name: str, lang: str, text: str, voice: phrases.Voice = phrases.TRAIN_VOICES[0]) -> Utterance:
    return Utterance(id=name, group=name, lang=lang, split="train", text=text, voice=voice, rate=170, pitch=voice.pitch)


def test_espeak_speaks_every_language_alike_in_any_order(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` brings espeak-ng")
    assert set(ESPEAK_LANGUAGES) == set(LANGUAGES)
    one = phrases.build_sentences(train=1, test=0, dev=0, seed=0)[0]
    jobs = [utterance(code, code, one.text[code]) for code in LANGUAGES]
    jobs.append(utterance("low", "en", one.text["en"], phrases.TRAIN_VOICES[7]))
    speak_all(jobs, tmp_path / "a", workers=1)
    speak_all(jobs[::-1], tmp_path / "b", workers=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") and len(digest(tmp_path / "a")) == 2 * len(jobs)
    sounds = [read_audio(tmp_path / "a" / f"{job.id}.flac", sample_rate=16000) for job in jobs]
    assert len({sound.tobytes() for sound in sounds}) == len(jobs)


def test_espeak_keeps_what_was_spoken_and_names_what_it_cannot(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` brings espeak-ng")
    job = utterance("a", "en", "good morning")
    words = speak_all([job], tmp_path)
    stamp = (tmp_path / "a.flac").stat().st_mtime_ns
    assert speak_all([job], tmp_path) == words and (tmp_path / "a.flac").stat().st_mtime_ns == stamp
    other = utterance("a", "en", "good evening to all of you")
    assert len(speak_all([other], tmp_path)[0]) == 6, "of that name, and another text"
    assert (tmp_path / "a.flac").stat().st_mtime_ns != stamp and len(words[0]) == 2
    with pytest.raises(InputError, match="espeak-ng failed"):
        speak_all([utterance("b", "no-such-language", "good morning")], tmp_path)


# -- the toy corpus ---------------------------------------------------------------------------------------------


def test_toy_languages_share_no_word_and_translate_exactly() -> None:
    words = [word for code in toy.LANGUAGES for group in toy.lexicon(code).values() for word in group]
    assert len(words) == len(set(words)) == 60 * len(toy.LANGUAGES) and toy.possible_sentences() >= 10_000
    assert len(toy.SEGMENTS) == 20 and len({segment for segment in toy.SEGMENTS.values()}) == 20
    for one in toy.build_sentences(train=300, test=0, dev=0, seed=2):
        texts = {code: one.text(code) for code in toy.LANGUAGES}
        for source in toy.LANGUAGES:
            assert toy.understand(texts[source], source) == one.meaning
            for target in toy.LANGUAGES:
                assert toy.translate(texts[source], source, target) == texts[target]
    for source, target in (("qaa", "qab"), ("qab", "qac"), ("qac", "qaa")):
        assert [role for role in toy.ORDERS[source]] != [role for role in toy.ORDERS[target]]


def test_toy_refuses_what_is_no_sentence() -> None:
    noun, verb = toy.lexicon("qaa")["noun"][0], toy.lexicon("qaa")["verb"][0]
    for text in ("", noun, f"{noun} {verb}", f"{verb} {noun} {noun}", f"{noun} {verb} {noun} what"):
        with pytest.raises(InputError):
            toy.understand(text, "qaa")
    for arguments in ({"text": "QUEUE"}, {"text": " "}, {"text": noun, "prosody": "sad"}):
        with pytest.raises(InputError):
            toy.synthesize(speaker=toy.SPEAKERS[0], **arguments)


def test_toy_segments_fill_the_words(toy_manifest: Path) -> None:
    for row in read_manifest(toy_manifest):
        segments = row.extras["segments"]
        assert "".join(letter for letter, _, _ in segments) == (row.text or "").replace(" ", "")
        begins = [start for _, start, _ in segments]
        assert all(start in begins for _, start, _ in row.words) and row.extras["prosody"] in toy.CONTOURS


def test_oracle_reads_its_corpus(toy_manifest: Path) -> None:
    """At least 99 % of sentences, voices and prosody classes, as it must before it judges anything."""
    rows, oracle = read_manifest(toy_manifest), Oracle()
    heard = [oracle.hear(row.load(16000), row.lang) for row in rows]
    pairs = list(zip(rows, heard))
    words = [(row.text or "").split() == found.text.split() for row, found in pairs]
    assert np.mean(words) >= 0.99
    assert np.mean([row.speaker == found.speaker for row, found in pairs]) >= 0.99
    assert np.mean([row.extras["prosody"] == found.prosody for row, found in pairs]) >= 0.99
    for row, found in pairs[:20]:
        if row.text == found.text:
            gaps = [abs(a[1] - b[1]) for a, b in zip(row.words, found.words)]
            assert max(gaps) < 0.04, (row.words, found.words)


def test_oracle_depends_on_the_sound() -> None:
    oracle = Oracle()
    text = toy.build_sentences(train=1, test=0, dev=0, seed=0)[0].text("qaa")
    spoken = toy.synthesize(text, toy.TRAIN_VOICES[1], prosody="rise", seed=1)
    true = oracle.hear(spoken.samples, "qaa")
    assert (true.text, true.speaker, true.prosody) == (text, toy.TRAIN_VOICES[1].name, "rise")
    assert oracle.hear(spoken.samples * 0.3, "qaa").text == text, "the level may not matter"
    assert oracle.hear(spoken.samples).text == text, "nor not knowing the language"
    assert oracle.transcribe([spoken.samples], ["qaa"]) == [text]
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert oracle.hear(noise, "qaa").cost > 2 * true.cost
    assert oracle.hear(spoken.samples, "qab").cost > 1.2 * true.cost, "another language's words do not fit"
    backwards = oracle.hear(spoken.samples[::-1].copy(), "qaa")
    assert backwards.prosody == "fall" and backwards.text != text
    with pytest.raises(InputError, match="'en'"):
        oracle.hear(noise, "en")
    with pytest.raises(InputError, match="no samples"):
        oracle.hear(noise[:0], "qaa")


def test_toy_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.main([str(tmp_path / "toy"), "--pairs", "2", "--test-pairs", "1", "--languages", "qac", "qaa"]) == 0
    rows = read_manifest(capsys.readouterr().out.strip())
    assert {row.lang for row in rows} == {"qac", "qaa"} and len(rows) == 2 * (2 + 1 + 1)
    assert toy.main([str(tmp_path / "no"), "--languages", "en"]) == 2
    assert "'en'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("corpus", "given", "said"),
    [
        ("prosody", ["--lang", "it"], "'it'"),
        ("prosody", ["--seed", "-1"], "-1"),
        ("toy", ["--seed", "-1"], "-1"),
        ("toy", ["--pairs", "-5"], "-5 train sentences"),
        ("toy", ["--pairs", "0", "--test-pairs", "0"], "no sentences"),
        ("toy_rich", ["--seed", "-1"], "-1"),
        ("toy_rich", ["--names", "1500"], "names is 1500"),
    ],
)
def test_what_a_corpus_cannot_be_made_of_is_one_line(
    corpus: str, given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"unitok_tokenizers.corpora.{corpus}")
    assert module.main([str(tmp_path / "out"), *given]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
