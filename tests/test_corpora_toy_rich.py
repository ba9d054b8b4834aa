"""The toy corpus with richer rows: forms, names, continuations, and what its rows are asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unitok_tokenizers.corpora.toy import lexicon, understand
from unitok_tokenizers.corpora.toy_rich import (
    continuation,
    main,
    make_rich_corpus,
    names_of,
    with_name,
    written,
)
from unitok_tokenizers.data.manifest import read_manifest
from unitok_training.data.latent_tasks import LATENT_TASKS, asked_items


def test_rows_answer_every_line_and_forms_conflict_in_training_alone(tmp_path: Path) -> None:
    rows = read_manifest(make_rich_corpus(tmp_path, sentences=20, test_sentences=4))
    heard = [row for row in rows if row.audio is not None]
    assert {row.split for row in rows} == {"train", "test", "test_seen"} and len(rows) == 2 * len(heard) == 56
    for row in heard:
        forms = {"plain", "formatted"} & set(row.extras)
        assert len(forms) == (1 if row.split == "train" else 2) and row.extras["mixed"] in {
            row.extras[f] for f in forms
        }
        assert row.extras.get("plain", row.text) == row.text
    for key in LATENT_TASKS.keys() - {"asr.keywords", "prosody.units", "prosody.tokens"}:
        assert asked_items(LATENT_TASKS[key], rows), key
    voices = {split: {row.speaker for row in heard if row.split == split} for split in ("train", "test", "test_seen")}
    assert not voices["train"] & voices["test"] and voices["test_seen"] <= voices["train"]


def test_names_of_the_test_are_new(tmp_path: Path) -> None:
    rows = read_manifest(make_rich_corpus(tmp_path, sentences=30, test_sentences=20, names=20, noise=0.01))
    used = {split: {row.extras["keywords"][0] for row in rows if row.split == split and "keywords" in row.extras}
            for split in ("train", "test")}  # fmt: skip
    assert used["test"] <= set(names_of(20)) and len(used["train"]) > 10 and not used["train"] & set(names_of(20))
    quiet = read_manifest(make_rich_corpus(tmp_path / "quiet", sentences=30, test_sentences=20, names=20))
    assert not np.array_equal(rows[0].load(16000), quiet[0].load(16000)) and rows[0].text == quiet[0].text


def test_noise_over_names_leaves_other_words_as_they_are(tmp_path: Path) -> None:
    sizes = {"sentences": 4, "test_sentences": 1, "names": 20}
    rows = read_manifest(make_rich_corpus(tmp_path / "noisy", **sizes, name_noise=0.3))
    clean = read_manifest(make_rich_corpus(tmp_path / "clean", **sizes))
    for row, other in zip(rows, clean):
        if row.words and row.split != "test_seen":  # whose voices are drawn after the noise
            apart = np.abs(row.load(16000) - other.load(16000))
            for word, start, end in row.words:
                loud = apart[round(start * 16000) : round(end * 16000)].mean()
                assert (loud > 0.1) == (word in row.extras.get("keywords", ())), word


def test_a_speaker_of_sessions_speaks_of_one_name(tmp_path: Path) -> None:
    rows = read_manifest(make_rich_corpus(tmp_path, sentences=60, test_sentences=16, names=20, session=4))
    names: dict[str, set[str]] = {}
    for row in rows:
        if row.audio is not None:
            names.setdefault(f"{row.split} {row.speaker}", set()).update(row.extras.get("keywords", ()))
            assert set(row.extras.get("keywords", ())) <= set(row.text.split())
    assert max(len(one) for one in names.values()) == 1 and len({name for one in names.values() for name in one}) > 8
    assert names["test gus-0"] != names["test gus-1"] and names["test gus-0"] != names["test hal-0"]


def test_what_is_written_follows_from_words_and_voice() -> None:
    words = lexicon("qaa")
    said = f"{words['noun'][0]} {words['verb'][1]} {words['noun'][2]} {words['time'][6]}"
    assert written(said, "qaa", "rise") == said.rsplit(" ", 1)[0].capitalize() + " 7:00?"
    assert written(said, "qaa", "fall").endswith("7:00.")
    meaning = understand(said, "qaa")
    after = understand(continuation(meaning, "qaa"), "qaa")
    assert (after["noun1"], after["verb"], after["noun2"]) == (2, 2, 0)
    assert with_name(meaning, "qab", "bobo").split()[2] == "bobo"  # time, noun, noun, verb: the second noun
    assert main(["/dev/null/x"]) == 2
