"""Evaluation on a model of random weights: every figure is there, and the controls behave as controls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_model import RATE, speech, tiny_model
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.asr_scorer import AsrScorer, SpeakerClassifier
from unitok_training.evaluation.evaluate import (
    evaluate,
    evaluate_speech,
    evaluate_speech_translation,
    evaluate_texts,
    voices_in_turn,
)
from unitok_training.evaluation.language import FRAME, evaluate_interleaved, evaluate_speech_lm, foils
from unitok_training.evaluation.resynthesis import evaluate_resynthesis
from unitok_training.evaluation.run import Evaluation, drawn
from unitok_vocoder.vocoder import Vocoder

SENTENCES = {
    "en": ("the green house stands here today now", "we buy two books here now today", "she sings here now two books",
           "two books here we buy today"),
    "de": ("das grüne haus steht heute hier", "haus steht das grüne heute hier", "hier steht heute das grüne haus",
           "heute steht hier das grüne haus"),
}  # fmt: skip
KEYS = (
    "judge.wer judge.control_noise_wer judge.control_shuffled_wer asr.wer asr.by_lang.en.wer asr.by_lang.de.wer "
    "asr.seen_voices.wer asr.codes.wer mt.bleu mt.chrf s2tt.bleu s2tt.seen_voices.bleu s2tt.by_direction.en-de.bleu "
    "tts.units.judge_wer tts.codes.judge_wer tts.codes.voice_match s2st_chained.asr_bleu s2st.asr_bleu "
    "resynthesis.codes.judge_wer resynthesis.units.judge_wer lm.ppl lm.five_gram_ppl slm.order_accuracy "
    "ilm.cloze_accuracy ilm.cloze_chance"
).split()


def rows(folder: Path) -> list[Row]:
    """Every sentence in both languages: in training, and in both test splits; four of each in all."""
    found = []
    for split in ("train", "test", "test_seen"):
        for number in range(4):
            for lang, sentences in SENTENCES.items():
                text = sentences[number]
                name = f"{split}{number}{lang}"
                write_audio(folder / f"{name}.wav", speech(0.8, seed=number), RATE)
                starts = np.linspace(0, 0.8, len(text.split()) + 1)
                words = tuple((w, float(a), float(b)) for w, a, b in zip(text.split(), starts, starts[1:]))
                speaker = "iris" if split == "test" else ("anna", "bob")[number % 2]
                found.append(
                    Row(
                        id=name, group=f"{split}{number}", lang=lang, speaker=speaker, split=split, text=text,
                        words=words, audio=folder / f"{name}.wav",
                    )
                )  # fmt: skip
    return found


def tiny_judge() -> AsrScorer:
    torch.manual_seed(0)
    network = CtcNetwork(CtcNetworkConfig(width=16, blocks=1, alphabet=tuple("abcdefgh ")))
    recordings = [speech(seed=seed) for seed in range(4)]
    speakers = SpeakerClassifier.train(recordings, ["anna", "bob", "anna", "bob"])
    return AsrScorer(CtcEncoder(network, MelConfig(), 1), speakers)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("corpus")
    return prepare_shards(rows(folder), tiny_model().tokenizers, folder / "shards")


@pytest.fixture(scope="module")
def found(shards: Shards) -> Evaluation:
    return evaluate(Evaluation(model=tiny_model(), shards=shards, judge=tiny_judge()))


def figure(metrics: dict[str, Any], key: str) -> float:
    value: Any = metrics
    for part in key.split("."):
        value = value[part]
    return float(value)


def test_every_figure_is_there_and_finite(found: Evaluation) -> None:
    assert {key: np.isfinite(figure(found.metrics, key)) for key in KEYS} == dict.fromkeys(KEYS, True)


def test_random_weights_are_not_praised(found: Evaluation) -> None:
    for key in ("asr.wer", "asr.codes.wer", "tts.units.judge_wer", "resynthesis.codes.judge_wer"):
        assert figure(found.metrics, key) > 0.8, key
    for key in ("mt.bleu", "s2tt.bleu", "s2st.asr_bleu", "s2st_chained.asr_bleu"):
        assert figure(found.metrics, key) < 15, key
    assert figure(found.metrics, "lm.ppl") > figure(found.metrics, "lm.five_gram_ppl")
    assert figure(found.metrics, "ilm.cloze_chance") == 0.25


def test_examples_of_every_task_are_kept(found: Evaluation) -> None:
    tasks = {example.task for example in found.examples}
    assert {"asr", "mt", "s2tt", "tts.units", "tts.codes", "s2st", "s2st_chained"} <= tasks
    spoken = [example for example in found.examples if example.task == "tts.codes"]
    assert all(example.audio is not None and example.reference_audio is not None for example in spoken)


def test_a_limit_bounds_the_rows_of_a_task(shards: Shards) -> None:
    run = Evaluation(model=tiny_model(), shards=shards, limit=3)
    assert len(run.rows("test", "units")) == 3 and len(Evaluation(model=run.model, shards=shards).rows("test")) == 8


def test_a_limit_leaves_whole_pairs(shards: Shards) -> None:
    run = Evaluation(model=tiny_model(), shards=shards, limit=3)
    pairs = run.pairs("test", "units", "text_ids")
    assert len(pairs) == 3 and all(shards.group[a] == shards.group[b] for a, b in pairs)


def test_what_cannot_be_spoken_or_chosen_from_is_left_out(tmp_path: Path) -> None:
    """A vocoder for codes only, and a language with fewer test rows than the cloze test has choices."""
    few = [row for row in rows(tmp_path) if row.lang == "en" or row.group.endswith(("0", "1"))]
    model = tiny_model(vocoder=Vocoder(None), prompts={})
    data = prepare_shards(few, model.tokenizers, tmp_path / "shards")
    metrics = evaluate(Evaluation(model=model, shards=data, judge=tiny_judge())).metrics
    assert set(metrics["tts"]) == {"codes"} and "s2st" not in metrics and metrics["ilm"]["count"] == 4


def test_tasks_that_were_not_learned_have_no_figures(shards: Shards) -> None:
    model = tiny_model()
    model.info = {**model.info, "tasks": ["asr"]}
    metrics = evaluate(Evaluation(model=model, shards=shards)).metrics
    assert "asr" in metrics and not {"lm", "slm", "ilm", "mt"} & metrics.keys()


def test_speech_that_is_longer_than_what_a_model_reads_is_left_out(shards: Shards) -> None:
    model = tiny_model()
    run = Evaluation(model=model, shards=shards)
    longest = max(len(run.cell("units", row)) for row in run.rows("test", "units"))
    short = replace(model.decoder.config, max_positions=longest + FRAME - 1)
    model.decoder.config = short
    evaluate_speech_lm(run)
    evaluate_interleaved(run)
    counted = [run.metrics.get(name, {}).get("count", 0) for name in ("slm", "ilm")]
    assert counted[0] < 8 and counted[1] < 8


def test_what_else_a_sentence_could_go_on_with_says_something_else(tmp_path: Path) -> None:
    """Two voices read each sentence: the true end in another voice is no foil."""
    twice = [one for row in rows(tmp_path) for one in (row, replace(row, id=f"{row.id}-2", group=f"{row.group}-2"))]
    model = tiny_model()
    run = Evaluation(model=model, shards=prepare_shards(twice, model.tokenizers, tmp_path / "shards"))
    found = run.rows("test", "units", "text_ids")
    for row in found:
        others = foils(run, row, found, 3, np.random.default_rng(0))
        texts = {run.text(one) for one in others}
        assert len(texts) == len(others) == 3 and run.text(row) not in texts
        assert {run.lang(one) for one in others} == {run.lang(row)}


def test_every_language_is_said_in_every_voice() -> None:
    langs = ["en", "de"] * 8
    voices = voices_in_turn(["a", "b", "c", "d"], langs)
    assert {(lang, voice) for lang, voice in zip(langs, voices)} == {(lang, v) for lang in ("en", "de") for v in "abcd"}


@pytest.mark.parametrize("limit", [20, 50, 99])
def test_a_draw_is_of_all_that_alternates(limit: int) -> None:
    items = [(number, lang, voice) for number in range(25) for lang in ("en", "de") for voice in "ab"]
    some = drawn(items, limit)
    assert len(some) == len(set(some)) == limit and some == sorted(some, key=items.index)
    for kind in (1, 2):
        counts = Counter(one[kind] for one in some)
        assert max(counts.values()) < 3 * min(counts.values())
    assert drawn(items, limit) == some != drawn(items, limit, seed=1) and drawn(items, 0) == items == drawn(items, 100)


class Heard(AsrScorer):
    """A judge that notes how long what it hears is."""

    seconds: list[float]

    def transcribe(self, recordings: Sequence[np.ndarray]) -> list[str]:
        self.seconds += [len(one) / self.recognizer.sample_rate for one in recordings]
        return super().transcribe(recordings)


def test_what_a_vocoder_says_at_another_rate_is_heard_at_its_own_speed(shards: Shards) -> None:
    plain = tiny_judge()
    judge = Heard(plain.recognizer, plain.speakers)
    judge.seconds = []
    model = tiny_model(vocoder=Vocoder(None, mel_config=MelConfig(sample_rate=24000)), prompts={})
    run = Evaluation(model=model, shards=shards, judge=judge, limit=3)
    assert model.vocoder.sample_rate == 24000 and model.sample_rate == 16000  # type: ignore[union-attr]
    evaluate_resynthesis(run)
    wanted = [len(run.codes(row)) / float(model.codec.frame_rate) for row in run.rows("test", "codes")]  # type: ignore[union-attr]
    assert judge.seconds[-3:] == pytest.approx(wanted, abs=0.1)
    assert len(run.spoken(np.zeros(24000, np.float32))) == 16000


def test_rows_without_text_are_said_by_nobody(tmp_path: Path) -> None:
    silent = [replace(row, text=None) if row.split == "test" else row for row in rows(tmp_path)]
    model = tiny_model()
    data = prepare_shards(silent, model.tokenizers, tmp_path / "shards")
    metrics = evaluate(Evaluation(model=model, shards=data, judge=tiny_judge(), limit=2)).metrics
    assert "tts" not in metrics and json.dumps(metrics, allow_nan=False)


def test_without_a_judge_only_text_is_scored(shards: Shards) -> None:
    metrics = evaluate(Evaluation(model=tiny_model(), shards=shards, limit=2)).metrics
    assert "asr" in metrics and "tts" not in metrics and "judge" not in metrics


def test_a_split_that_is_absent_is_named(shards: Shards) -> None:
    with pytest.raises(InputError, match="no rows of split 'dev'.*test_seen"):
        evaluate(Evaluation(model=tiny_model(), shards=shards, split="dev"))


def test_speakers_are_told_apart_on_reference_audio() -> None:
    def voice(pitch: float, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        waves = [np.sin(np.arange(8000) * pitch * k) / k for k in range(1, 6)]
        return (np.sum(waves, 0) * 0.1 + random.normal(0, 0.01, 8000)).astype(np.float32)

    train = [voice(0.03 + 0.05 * (index % 2), index) for index in range(8)]
    classifier = SpeakerClassifier.train(train, ["low", "high"] * 4)
    assert classifier.predict([voice(0.08, 90), voice(0.03, 91)]) == ["high", "low"]


def test_a_judge_is_the_same_after_saving(tmp_path: Path) -> None:
    judge = tiny_judge()
    judge.save(tmp_path / "judge")
    again = AsrScorer.load(tmp_path / "judge")
    recordings = [speech(0.8, seed=5), speech(0.5, seed=6)]
    assert again.transcribe(recordings) == judge.transcribe(recordings)
    assert again.speakers is not None and judge.speakers is not None
    assert again.speakers.predict(recordings) == judge.speakers.predict(recordings)


def test_a_translation_needs_no_recording_of_its_own(tmp_path: Path) -> None:
    """English is spoken and German is text alone, as in corpora of speech translation, and stands there twice."""
    texts = [replace(row, audio=None, words=()) if row.lang == "de" else row for row in rows(tmp_path)]
    texts += [replace(row, id=f"{row.id}-2") for row in texts if row.lang == "de"]
    model = tiny_model()
    run = Evaluation(model=model, shards=prepare_shards(texts, model.tokenizers, tmp_path / "shards"))
    evaluate_texts(run)
    assert run.metrics["s2tt"]["count"] == 4 and set(run.metrics["s2tt"]["by_direction"]) == {"en-de"}


def test_speech_that_was_not_learned_has_no_figures(shards: Shards) -> None:
    model = tiny_model()
    model.info = {**model.info, "tasks": ["asr", "tts.codes"]}
    run = Evaluation(model=model, shards=shards, judge=tiny_judge())
    evaluate_speech(run)
    evaluate_speech_translation(run)
    assert set(run.metrics) == {"tts"} and set(run.metrics["tts"]) == {"codes"}


def test_rows_that_leave_no_room_for_an_answer_are_left_out_and_counted(shards: Shards) -> None:
    model = tiny_model()
    run = Evaluation(model=model, shards=shards)
    sizes = sorted(len(run.cell("units", row)) for row in run.rows("test", "units"))
    model.decoder.config = replace(model.decoder.config, max_positions=sizes[3] + 14)
    evaluate_texts(run)
    asr = run.metrics["asr"]
    assert 0 < asr["count"] < 8 and asr["left_out"] == 8 - asr["count"]
