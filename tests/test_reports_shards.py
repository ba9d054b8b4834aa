"""The page about shards refers to nothing outside itself, and its figures are the shards'."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import unitok
from tests.support.tiny_model import RATE, model_folder, speech
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shard_statistics import chosen_rows, codebook_use, histogram, statistics
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.tokenizer_set import TokenizerSet


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    model_folder(folder / "model")
    lines = []
    for number in range(6):
        write_audio(folder / f"{number}.wav", speech(0.5, seed=number % 4), RATE)  # the last two are the first again
        text = "we buy <b>two</b> books" if number in (0, 5) else f"number {number}"
        row = {"audio": f"{number}.wav", "text": text, "lang": "de" if number == 3 else "en", "speaker": "anna & co"}
        lines.append(json.dumps({**row, "id": f"r{number}"}))
    (folder / "m.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare_shards(read_manifest(folder / "m.jsonl"), TokenizerSet.load(folder / "model/tokenizers"), folder / "s")
    return folder


def test_figures_are_those_of_the_ids(place: Path) -> None:
    shards = Shards.open(place / "s")
    found = statistics(shards)
    assert found.rows == 6 and found.hours == pytest.approx(6 * 0.5 / 3600)
    assert found.languages == {"en": (5, pytest.approx(2.5 / 3600)), "de": (1, pytest.approx(0.5 / 3600))}
    by_what = {one.what: one for one in found.duplicates}
    assert by_what["text"].rows == 1 and by_what["text"].examples == (("r0", "r5"),)
    assert by_what["codes"].rows == 2 and by_what["codes"].examples == (("r0", "r4"), ("r1", "r5"))
    for use in codebook_use(shards, shards.streams["codes"]):
        ids = np.concatenate([shards.codes(index)[:, use.codebook] for index in range(6)])
        shares = np.bincount(ids) / len(ids)
        entropy = -sum(share * np.log(share) for share in shares if share)
        assert use.count == len(ids) and use.used == len(set(ids.tolist()))
        assert use.perplexity == pytest.approx(np.exp(entropy)) and use.perplexity <= use.used <= use.size
    assert chosen_rows(shards, 3) == [0, 2, 3] and chosen_rows(shards, 0) == []


def test_every_value_is_in_the_histogram() -> None:
    values = np.array([1.0] * 99 + [1000.0])
    steps = histogram(values, bins=4)
    assert sum(count for _, _, count in steps) == 100 and steps[-1][1] < 100 and histogram(np.zeros(0)) == []
    assert sum(count for _, _, count in histogram(np.zeros(3))) == 3


def test_the_page_holds_everything(place: Path) -> None:
    plain = unitok("inspect", place / "s")
    words = ("inspect", place / "s", "--html", place / "page.html", "--rows", 3)
    ended = unitok(*words, "--tokenizers", place / "model/tokenizers", "--vocoder", place / "model/vocoder")
    assert ended.code == 0 and ended.out == plain.out, ended
    page = (place / "page.html").read_text("utf-8")
    assert page.count('<div class="example">') == 3 and page.count("data:audio/flac") == 6
    assert page.count("recording <span") == 3 and page.count("from codes <span") == 3
    assert "anna &amp; co" in page and "&lt;b&gt;two" in page and "<b>two" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "http" not in page
    for title in ("Languages", "Speakers", "Lengths", "Use of ids", "Duplicates"):
        assert f"<h2>{title}</h2>" in page
    assert "r0 = r5" in page and "r0 = r4; r1 = r5" in page


def test_shards_without_their_recordings_have_a_page(place: Path) -> None:
    text = TokenizerSet.of(TokenizerSet.load(place / "model/tokenizers").text)
    (place / "t.jsonl").write_text('{"text": "hello", "audio": "gone.wav"}\n{"text": "hello"}\n', encoding="utf-8")
    prepare_shards(read_manifest(place / "t.jsonl"), text, place / "text")
    ended = unitok("inspect", place / "text", "--html", place / "text.html")
    assert ended.code == 0 and "data:audio" not in (place / "text.html").read_text("utf-8")


def test_other_tokenizers_are_refused(place: Path) -> None:
    from tests.support.tiny_model import tokenizers
    from unitok_tokenizers.text.sentencepiece import SentencePieceText

    other = SentencePieceText.train(["quite other words here", "and more of them"], 300)
    TokenizerSet.of(other, *(one for name, one in tokenizers().streams.items() if name != "text")).save(place / "other")
    ended = unitok("inspect", place / "s", "--html", place / "no.html", "--tokenizers", place / "other")
    assert ended.code == 2 and "stream 'text': the shards have fingerprint" in ended.err
    assert not (place / "no.html").exists()
