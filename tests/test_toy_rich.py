"""The toy corpus with richer rows: forms, names, continuations, and what its rows are asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unitok_tokenizers.corpora.toy import lexicon, understand
from unitok_tokenizers.corpora.toy_rich import continuation, main, make_rich_corpus, names_of, with_name, written
from unitok_tokenizers.manifest import read_manifest
from unitok_training.latent_lines import LATENT_LINES, asked_items


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
    for key in LATENT_LINES.keys() - {"asr.keywords", "prosody.units"}:
        assert asked_items(LATENT_LINES[key], rows), key
    voices = {split: {row.speaker for row in heard if row.split == split} for split in ("train", "test", "test_seen")}
    assert not voices["train"] & voices["test"] and voices["test_seen"] <= voices["train"]


def test_names_of_the_test_are_new(tmp_path: Path) -> None:
    rows = read_manifest(make_rich_corpus(tmp_path, sentences=30, test_sentences=20, names=20, noise=0.01))
    used = {split: {row.extras["keywords"][0] for row in rows if row.split == split and "keywords" in row.extras}
            for split in ("train", "test")}  # fmt: skip
    assert used["test"] <= set(names_of(20)) and len(used["train"]) > 10 and not used["train"] & set(names_of(20))
    quiet = read_manifest(make_rich_corpus(tmp_path / "quiet", sentences=30, test_sentences=20, names=20))
    assert not np.array_equal(rows[0].load(16000), quiet[0].load(16000)) and rows[0].text == quiet[0].text


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
