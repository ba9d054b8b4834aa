"""The demo end to end on a few synthetic recordings: every stage in its process, the metrics, the report, a repeat."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import works
from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.files import read_json
from unitok_training.checkpoint.state import open_checkpoint
from unitok_training.experiments.demo import run as demo_run
from unitok_training.experiments.demo.run import DemoConfig, demo_stages, quicker, run_demo
from unitok_training.experiments.demo.splits import corpus_figures, with_splits
from unitok_training.experiments.demo.stages import decoder
from unitok_training.recipes.decoder import load_recipe
from unitok_training.runs.stage_graph import Pipeline

TEXTS = {
    "en": ("the green house stands here today now", "we buy two books here now today"),
    "de": ("das grüne haus steht heute jetzt hier", "wir kaufen hier heute jetzt zwei bücher"),
}


def test_a_quick_run_takes_a_quarter_and_leaves_overrides_the_last_word() -> None:
    whole = DemoConfig(overrides=("train.optim.warmup_steps=4",))
    quick = quicker(whole)
    assert (quick.pairs, quick.codec_steps, quick.judge_steps) == (
        750,
        round(whole.codec_steps / 4),
        round(whole.judge_steps / 4),
    )
    assert quick.clusters == whole.clusters and quick.test_pairs == whole.test_pairs
    recipe = load_recipe(quick.preset, quick.overrides)
    assert recipe.train.steps == load_recipe("demo").train.steps // 4
    assert recipe.train.optim.warmup_steps == 4


def write_manifest(root: Path) -> Path:
    """Twelve meanings in two languages by two voices, two of them for the test."""
    rows = []
    for index in range(12):
        for lang, texts in TEXTS.items():
            text, name = texts[index % 2], f"{lang}{index}.wav"
            write_audio(root / name, speech(1.2, seed=index), RATE)
            edges = np.linspace(0, 1.2, len(text.split()) + 1).round(3).tolist()
            words = [list(one) for one in zip(text.split(), edges, edges[1:])]
            split = ("test", "test_seen")[index % 2] if index >= 10 else "train"
            rows.append({"id": name, "audio": name, "text": text, "lang": lang, "speaker": f"s{index % 2}",
                         "group": f"g{index}", "split": split, "words": words})  # fmt: skip
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root / "m.jsonl"


def short_demo(manifest: Path) -> DemoConfig:
    """Every stage, in steps and sizes that teach nothing."""
    train = "steps=2 optim.warmup_steps=1 window=64 pack_size=1024 compile=false"
    shape = "width=32 heads=2 kv_heads=1 layers=1"
    short = (*(f"train.{one}" for one in train.split()), *(f"decoder.{one}" for one in shape.split()))
    return DemoConfig(
        manifest=str(manifest), clusters=8, encoder_steps=2, codec_steps=2, judge_steps=2, mel_vocoder_steps=2,
        unit_mel_steps=2, overrides=short,
    )  # fmt: skip


@pytest.mark.slow
def test_every_stage_runs_and_a_repeat_does_nothing_again(tmp_path: Path) -> None:
    config = short_demo(write_manifest(tmp_path))
    said: list[str] = []
    report = run_demo(tmp_path / "run", config, report=said.append)
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert {"asr", "mt", "s2tt", "tts", "s2st", "resynthesis", "lm", "slm", "judge", "seconds", "memory"} <= set(
        metrics
    )
    assert metrics["compute"]["threads"] == config.threads and metrics["compute"]["precision"] in ("fp32", "bf16")
    assert any("evaluate: started" in line for line in said) and said[0].startswith("computes on cpu")
    assert metrics["train"]["steps"] == 2 and metrics["train"]["dropped_share"] == 0
    assert set(metrics["seconds"]) >= {stage.name for stage in demo_stages(config)}
    page = report.read_text(encoding="utf-8")
    assert "<audio" in page and "asr.wer" in page
    assert (tmp_path / "run/model/core/model.safetensors").stat().st_size > 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}
    run_demo(tmp_path / "run", config, report=said.append)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}


def test_a_decoder_of_other_steps_begins_anew(tmp_path: Path) -> None:
    """`train.steps` is free to change for a run that is continued, and a demo promises what its settings give."""
    manifest = write_manifest(tmp_path)

    def trained(name: str, *steps: int) -> dict[str, torch.Tensor]:
        run = tmp_path / name
        if not run.exists():
            works(
                "fit-tokenizers",
                manifest,
                run / "tokenizers",
                "--encoder",
                "mfcc",
                "--clusters",
                12,
                "--text-pieces",
                300,
            )
            works("prepare", manifest, run / "shards", "--tokenizers", run / "tokenizers")
        for count in steps:
            config = short_demo(manifest)
            steps_last = (*config.overrides, "train.window=16", f"train.steps={count}")
            settings = asdict(config) | {"overrides": list(steps_last), "languages": ["en", "de"], "precision": "fp32"}
            decoder(run, settings)
        return open_checkpoint(run / "train" / "checkpoints").model

    again, fresh = trained("a", 2, 4), trained("b", 4)
    assert again.keys() == fresh.keys() and all(torch.equal(value, fresh[name]) for name, value in again.items())


def texts_of(count: int, groups: bool) -> list[Row]:
    """So many texts, each said by two speakers, in groups of their own unless told otherwise."""
    return [
        Row(id=f"{number}-{who}", group=f"{number}" if groups else f"{number}-{who}", lang="en", speaker=who,
            text=f"text number {number}", split="train")
        for number in range(count)
        for who in "ab"
    ]  # fmt: skip


def test_what_is_held_out_of_a_manifest_is_said_in_no_training_row() -> None:
    for groups in (False, True):
        rows = with_splits(texts_of(60, groups))
        found = corpus_figures(rows)
        assert found["test_rows"] == 12 and found["seen_text_share"] == 0 and found["seen_voice_share"] == 1
    polite = [row for number in range(100) for row in (
        Row(id=f"{number}", group=f"{number}", lang="en", text=f"text number {number}", split="train"),
        Row(id=f"{number}-t", group=f"{number}", lang="en", text="thank you", split="train"),
    )]  # fmt: skip
    assert corpus_figures(with_splits(polite))["test_rows"] == 20, "what everybody says is no test"
    silent = [Row(id=str(number), group=str(number), lang="en", split="train") for number in range(20)]
    assert corpus_figures(with_splits(silent))["seen_text_share"] == 0
    few = corpus_figures(with_splits(texts_of(10, False)))  # as of digits: each is to be learned
    assert few["test_rows"] == 2 and few["seen_text_share"] == 1


def test_other_recordings_and_new_ears_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(tmp_path)
    config = short_demo(manifest)
    settings = asdict(config) | {"languages": list(config.languages), "overrides": list(config.overrides)}

    def keys() -> dict[str, str]:
        return Pipeline(tmp_path, demo_stages(config), settings, threads=1).keys

    monkeypatch.setattr(demo_run, "ears_at_hand", lambda: ())
    before = keys()
    monkeypatch.setattr(demo_run, "ears_at_hand", lambda: ("recognizer",))
    heard = keys()
    assert {name for name in before if heard[name] != before[name]} == {"evaluate"}
    recording = next(path for path in tmp_path.rglob("*.wav"))
    write_audio(recording, speech(0.9, seed=99), RATE)
    assert not set(keys().values()) & set(heard.values())
