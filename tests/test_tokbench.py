"""The benchmark of tokenizers: its measures by hand, and a whole run of tiny tokenizers on the toy corpus."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command import unitok
from tests.support.tiny_ears import Loudness
from tests.support.tiny_model import tokenizers
from tests.test_formats import compare, json_keys
from unitok_tokenizers.acoustic.dmel import DmelCodec
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.corpora.toy import make_toy_corpus
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.tokbench import opus
from unitok_training.tokbench.contestants import contestants, mean_frames, tokenize
from unitok_training.tokbench.corpus import Corpus
from unitok_training.tokbench.hearing import Hearing
from unitok_training.tokbench.labels import (
    CHARACTERS,
    PHONES,
    Labeling,
    cluster_purity,
    joint_counts,
    nmi,
    pnmi,
    purity,
)
from unitok_training.tokbench.measured import NotMeasured
from unitok_training.tokbench.plot import plot, points_of
from unitok_training.tokbench.rates import rate_figures
from unitok_training.tokbench.resynthesis import Synthesizing, resynthesize
from unitok_training.tokbench.run import TokbenchConfig, run_tokbench
from unitok_training.tokbench.speaker_probe import histograms, probe_parts, speaker_figures
from unitok_training.tokbench.table import as_markdown, as_text
from unitok_training.tokbench.text_alignment import ReaderConfig, Texts, greedy, mutual_information, text_figures
from unitok_training.trainer.optimizer import OptimConfig

CPU = resolve("cpu", "fp32")
NO_EARS = "no ears in this test"
NEEDS_MORE = (
    "recordings.figures.ears.similarity", "recordings.figures.ears.similarity_impostor", "recordings.why.<key>",
    "contestants[].figures.ears.similarity", "contestants[].figures.ears.similarity_impostor",
    "contestants[].why.<key>",
    "classical[].figures.ears.similarity", "classical[].figures.ears.similarity_impostor", "classical[].why.<key>",
)  # fmt: skip
"""Keys of a speaker encoder, and of what could not be measured."""


class Echo:
    """An `Ear` that reads the loudness, so that its words depend on what it is given."""

    sample_rate, lang = 16000, "qaa"

    def transcribe(self, recordings: list[np.ndarray]) -> list[str]:
        return ["loud" if float(np.abs(one).max(initial=0.0)) > 0.05 else "" for one in recordings]

    def normalize(self, text: str) -> str:
        return text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy corpus and two folders of tokenizers: units with a codec of random weights, and dMel."""
    root = tmp_path_factory.mktemp("tokbench")
    make_toy_corpus(root / "c", languages=("qaa",), pairs=14, test_pairs=3)
    tokenizers().save(root / "a")
    TokenizerSet.of(tokenizers().text, DmelCodec.open(choice="16")).save(root / "b")
    return root


@pytest.fixture(scope="module")
def corpus(place: Path) -> Corpus:
    return Corpus.of(read_manifest(place / "c/manifest.jsonl"), split="test", limit=2, train_limit=12, seed=0)


def config(**changes: Any) -> TokbenchConfig:
    made = TokbenchConfig(
        limit=2, train_limit=12, reader=ReaderConfig(steps=2, width=8), synthesizing=Synthesizing(steps=2)
    )
    return replace(made, **changes)


# -- measures by hand ---------------------------------------------------------------------------------------------


def test_purity_and_information_by_hand() -> None:
    clusters = [np.array([0, 0, 0, 1]), np.array([1, 1, 2])]
    labels = [np.array([5, 5, 6, 6]), np.array([6, -1])]  # a frame without a label, and one that labels lack
    table = joint_counts(clusters, labels)
    assert table[:, 5:].tolist() == [[2, 1], [0, 2]] and table.sum() == 5
    assert purity(clusters, labels) == 4 / 5
    assert cluster_purity(clusters, labels) == 4 / 5
    shared = 0.4 * math.log(0.4 / (0.6 * 0.4)) + 0.2 * math.log(0.2 / (0.6 * 0.6)) + 0.4 * math.log(0.4 / (0.4 * 0.6))
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert nmi(table) == pytest.approx(shared / entropy) and pnmi(table) == pytest.approx(shared / entropy)
    split = np.array([[2, 0], [2, 0], [0, 4]])  # every cluster has one phone, a phone has two clusters
    assert pnmi(split) == pytest.approx(1.0) and nmi(split) == pytest.approx(2 * math.log(2) / (2.5 * math.log(2)))
    assert nmi(np.outer([1, 2], [3, 1])) == pytest.approx(0.0, abs=1e-12) and nmi(np.zeros((1, 1))) == 0.0


def test_frames_are_named_by_segments_or_by_the_letters_of_timed_words() -> None:
    row = Row(id="r", group="r", lang="en", extras={"segments": [["m", 0.0, 0.1], ["a", 0.12, 0.2]]})
    labeling = Labeling.of([row])
    assert labeling is not None and labeling.kind == PHONES and labeling.numbers == {"a": 0, "m": 1}
    assert labeling.frames(row, 5, 25.0).tolist() == [1, 1, -1, 0, 0]  # middles at .02, .06, .10, .14, .18
    words = Row(id="w", group="w", lang="en", words=(("Ab", 0.0, 0.08), ("c", 0.12, 0.2)))
    spelled = Labeling.of([words])
    assert spelled is not None and spelled.kind == CHARACTERS
    assert spelled.frames(words, 5, 25.0).tolist() == [0, 1, -1, 2, 2]
    assert Labeling.of([Row(id="x", group="x", lang="en", text="a")]) is None
    with pytest.raises(InputError, match="row bad: segments are"):
        Labeling.of([Row(id="bad", group="b", lang="en", extras={"segments": [["m", 0.0]]})])


def test_bit_rates_by_hand() -> None:
    tokens = [np.array([[0, 1], [0, 1], [0, 2], [1, 2]]), np.array([[1, 2], [1, 2]])]
    found = rate_figures(tokens, (2, 8), 10.0, 0.6)
    assert found["bits.nominal"] == 10 * (1 + 3)
    assert found["bits.deduplicated"] == pytest.approx((3 + 1) * 4 / 0.6)
    of_first, of_second = 1.0, -(1 / 3 * math.log2(1 / 3) + 2 / 3 * math.log2(2 / 3))
    assert found["bits.entropy"] == pytest.approx(10 * (of_first + of_second))
    assert found["usage"] == [1.0, 2 / 8] and found["tokens"] == 6
    assert found["perplexity"] == pytest.approx([2.0, 2**of_second])


def test_mutual_information_is_what_summing_over_alignments_gives() -> None:
    """Two recordings of three frames, texts of one and two characters: every path is written out."""
    torch.manual_seed(0)
    found = [torch.randn(3, 3).log_softmax(-1) for _ in range(2)]
    targets = [torch.tensor([1]), torch.tensor([1, 2])]

    def score(one: torch.Tensor, wanted: list[int]) -> float:
        total = 0.0
        for path in itertools.product(range(3), repeat=3):
            kept = [label for label, before in zip(path, (0, *path)) if label and label != before]
            if kept == wanted:
                total += math.exp(sum(float(one[frame, label]) for frame, label in enumerate(path)))
        return math.log(total)

    each = [[score(one, text) for text in ([1], [1, 2])] for one in found]
    expected = np.mean([each[i][i] - np.mean(each[i]) for i in range(2)])
    assert mutual_information(found, targets) == pytest.approx(float(expected), abs=1e-5)
    # A text of more characters than there are frames has no probability there, and does not count.
    longer = [torch.tensor([1]), torch.tensor([1, 2, 1, 2])]
    assert mutual_information(found, longer) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(NotMeasured, match="too short"):
        mutual_information(found[:1], longer[1:])
    assert greedy(torch.eye(3)[[1, 1, 0, 1, 2]], "ab") == "aab"


def test_a_reader_reads_tokens_that_say_the_text_and_not_others() -> None:
    random = np.random.default_rng(0)

    def spoken(count: int, silent: bool) -> Texts:
        texts = ["".join(random.choice(list("abc"), 4)) for _ in range(count)]
        says = [np.repeat([["abc".index(one), 0] for one in text], 2, axis=0) for text in texts]
        return Texts(tokens=[np.zeros_like(one) if silent else one for one in says], texts=texts)

    settings = ReaderConfig(steps=120, width=32, dropout=0.0, optim=OptimConfig(learning_rate=1e-2, warmup_steps=5))
    told, silent = (
        text_figures(spoken(64, mute), spoken(12, mute), (3, 1), 12.5, settings, CPU) for mute in (False, True)
    )
    assert told["cer"] < 0.2 and told["count"] == 12  # at 12.5 frames a second: several outputs a frame
    assert silent["cer"] > 0.5 and told["mi"] > silent["mi"] + 3
    with pytest.raises(NotMeasured, match="no training recording"):
        text_figures(Texts(tokens=[], texts=[]), spoken(2, False), (3, 1), 25.0, settings, CPU)
    with pytest.raises(NotMeasured, match="--probe-steps"):
        text_figures(spoken(2, False), spoken(2, False), (3, 1), 25.0, replace(settings, steps=0), CPU)


def test_the_speaker_probe_knows_voices_only_where_tokens_differ() -> None:
    speakers = [name for name in "ab" for _ in range(9)] + ["c", ""]
    assert probe_parts(speakers).tolist() == [0, 0, 1] * 6 + [-1, -1]
    random = np.random.default_rng(0)
    voiced = [random.integers(0, 3, (20, 1)) + (3 if name == "b" else 0) for name in speakers]
    same = [np.arange(12)[:, None] % 6 for _ in speakers]
    shares = histograms(voiced, (6,))
    assert shares.shape == (20, 6) and np.allclose(shares.sum(1), 1.0)
    assert histograms([np.array([[1, 0], [1, 2]])], (2, 3)).tolist() == [[0.0, 1.0, 0.5, 0.0, 0.5]]
    found = speaker_figures(shares, speakers, compute=CPU, seed=0)
    assert found == {"accuracy": 1.0, "chance": 0.5, "speakers": 2, "count": 6}
    assert speaker_figures(histograms(same, (6,)), speakers, compute=CPU, seed=0)["accuracy"] == 0.5
    rare = np.zeros((20, 40), np.float32)  # a code that one tested recording has and none that is learned from
    for place, row in enumerate(np.flatnonzero(probe_parts(speakers) == 1)):
        rare[row, place] = 0.005
    assert speaker_figures(np.hstack([shares, rare]), speakers, compute=CPU, seed=0)["accuracy"] == 1.0
    with pytest.raises(NotMeasured, match="no two speakers"):
        speaker_figures(shares, ["a"] * 20, compute=CPU, seed=0)


# -- recordings, tokenizers, resynthesis ----------------------------------------------------------------------------


def test_streams_are_named_after_their_folders(place: Path, corpus: Corpus) -> None:
    every = contestants([place / "a", place / "b"], CPU)
    assert [one.name for one in every] == ["a/units", "a/codes", "b/codes"]
    tokens = tokenize(every[1], corpus)
    assert len(tokens.train) == 12 and len(tokens.held_out) == 2 and tokens.held_out[0].shape[1] == 3
    alone = every[1].tokenizer.encode_batch([corpus.held_out[0].load(16000)])[0]
    assert np.array_equal(tokens.held_out[0], alone) and tokens.speed > 0
    assert tokens.seconds == pytest.approx(sum(row.length() for row in corpus.rows), rel=1e-6)
    assert mean_frames(every[0].tokenizer, corpus).shape == (14, 16)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="given twice"):
        contestants([place / "a", place / "b" / ".." / "a"], CPU)
    TokenizerSet.of(tokenizers().text).save(place / "silent")
    with pytest.raises(InputError, match="neither units nor codes"):
        contestants([place / "silent"], CPU)


def test_recordings_are_chosen_or_refused(place: Path) -> None:
    rows = read_manifest(place / "c/manifest.jsonl")
    with pytest.raises(InputError, match="split 'nowhere'"):
        Corpus.of(rows, split="nowhere", limit=2, train_limit=2, seed=0)
    with pytest.raises(InputError, match="--split is train"):
        Corpus.of(rows, split="train", limit=2, train_limit=2, seed=0)
    one, same = (Corpus.of(rows, split="test", limit=2, train_limit=4, seed=0) for _ in range(2))
    renamed = [replace(row, speaker="x") for row in rows]
    assert one.fingerprint == same.fingerprint and len(one.train) == 4
    assert one.fingerprint != Corpus.of(renamed, split="test", limit=2, train_limit=4, seed=0).fingerprint


def test_tokens_become_recordings_again(place: Path, corpus: Corpus) -> None:
    units, codes, dmel = contestants([place / "a", place / "b"], CPU)
    made = {one.name: resynthesize(one, tokenize(one, corpus), corpus, Synthesizing(steps=2), CPU) for one in
            (units, codes, dmel)}  # fmt: skip
    assert made["a/codes"].by == "Griffin-Lim" and "2 steps" in made["a/units"].by
    for one in made.values():
        for audio, row in zip(one.audio, corpus.held_out, strict=True):
            assert len(audio) / one.sample_rate == pytest.approx(row.length(), abs=0.08)
    with pytest.raises(NotMeasured, match="--synthesizer-steps"):
        resynthesize(units, tokenize(units, corpus), corpus, Synthesizing(steps=0), CPU)


@pytest.mark.skipif(bool(opus.opus_missing()), reason="libsndfile without Opus")
def test_opus_has_the_rates_and_lengths_that_it_says(corpus: Corpus) -> None:
    recordings = [row.load(opus.SAMPLE_RATE) for row in corpus.held_out]
    rates = [opus.bit_rate(recordings, level) for level in opus.LEVELS]
    assert rates == sorted(rates) and 4000 < rates[0] < 16000 < rates[-1]
    made = opus.through_opus(recordings, opus.LEVELS[-1])
    assert [len(one) for one in made.audio] == [len(one) for one in recordings]
    error = [np.square(a - b).mean() / np.square(a).mean() for a, b in zip(recordings, made.audio)]
    assert max(error) < 0.5


def test_without_opus_the_reason_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soundfile.available_subtypes", lambda kind: {"VORBIS": "Vorbis"})
    with pytest.raises(NotMeasured, match="no Opus"):
        opus.through_opus([np.zeros(16000, np.float32)], 1.0)


# -- a whole run ------------------------------------------------------------------------------------------------------


def test_a_run_is_one_table_and_continues(place: Path) -> None:
    rows = read_manifest(place / "c/manifest.jsonl")
    ears, said = Ears(ear=Echo(), quality=Loudness(), source="a test"), list[str]()

    def run(**changes: Any) -> dict[str, Any]:
        said.clear()
        return run_tokbench(
            rows, [place / "a", place / "b"], place / "out", config(**changes), compute=CPU, notice=said.append,
            hearing=lambda corpus: Hearing(ears=ears, corpus=corpus),
        )  # fmt: skip

    results = run()
    units, codes, _ = results["contestants"]
    compare("results.json", json_keys(place / "out/results.json"), missing=NEEDS_MORE)
    kept = sorted((place / "out/contestants").iterdir(), key=lambda path: path.stat().st_mtime)
    assert "text.all.mi" in codes["figures"] and "text.all.mi" not in units["figures"]
    assert codes["figures"]["phones.purity"] == units["figures"]["phones.purity"]  # the first codebook is the units
    assert results["corpus"]["labels"] == PHONES and "ears.similarity" not in units["figures"]
    assert "ears.wer" in results["recordings"]["figures"] and len(results["classical"]) == len(opus.LEVELS)
    assert json.loads((place / "out/results.json").read_text("utf-8")) == results
    again = run()
    assert again == results and all(line.endswith("as measured before") for line in said)
    changed = run(reader=ReaderConfig(steps=0))
    assert changed["contestants"][0]["why"]["text.first"] == "--probe-steps is 0"
    assert not any(line.endswith("as measured before") for line in said)
    table = as_markdown(results)
    assert table == as_markdown(again) and "| a/units |" in table and "spoken by Griffin-Lim" in table
    # One that is stopped continues with the next one.
    kept[0].unlink()
    run()
    assert [line for line in said if not line.endswith("as measured before")] == ["recordings"]


def test_a_run_without_ears_says_so(place: Path) -> None:
    rows = [replace(row, extras={}, words=()) for row in read_manifest(place / "c/manifest.jsonl")]
    results = run_tokbench(
        rows, [place / "a"], place / "deaf", config(), compute=CPU,
        hearing=lambda corpus: Hearing(ears=None, corpus=corpus, without=NO_EARS),
    )  # fmt: skip
    text = as_text(results)
    assert NO_EARS in text and "ear WER" not in text and "no phones" in text and "purity" not in text.split("\n")[0]
    title, points, own = points_of(results)
    assert title.startswith("text alignment") and [one.name for one in points] == ["a/units", "a/codes"] and own is None
    drawn = plot(results)
    assert drawn.startswith("<svg") and drawn.count("<circle") == 2 and "a/codes" in drawn
    bare = {**results, "contestants": [], "classical": []}
    assert "nothing to show" in plot(bare)


def test_the_command_prints_the_table(place: Path, tmp_path: Path) -> None:
    words = f"tokbench {place}/c/manifest.jsonl --tokenizers {place}/b -o {tmp_path}/o --ears none --limit 2".split()
    ended = unitok(*words, "--train-limit", "4", "--probe-steps", "0")
    assert ended.code == 0 and "b/codes" in ended.out and "opus/1" in ended.out
    for name in ("results.json", "table.md", "plot.svg"):
        assert (tmp_path / "o" / name).is_file()
    for more, message in (
        (("--synthesizer-steps", "3"), "--synthesizer-steps changes nothing"),
        (("--probe-steps", "-1"), "--probe-steps is -1"),
        (("--split", "train"), "--split is train"),
        (("--limit", "0"), "--limit is 0"),
    ):
        wrong = unitok(*words, *more)
        assert wrong.code == 2 and message in wrong.err, wrong
