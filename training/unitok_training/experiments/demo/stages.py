"""The stages of the demo: each reads and writes one run folder, in a process of its own.

A stage writes its result atomically, so that a stage that was killed leaves nothing behind and starts anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.model import Decoder
from unitok.model import Model
from unitok_tokenizers.acoustic.registry import load_codec
from unitok_tokenizers.compute import AUTO, Compute, resolve
from unitok_tokenizers.corpora.phrases import make_phrase_corpus
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, read_json, sha256_file, write_json
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.state import load_module, open_checkpoint
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.asr_scorer import AsrScorer
from unitok_training.evaluation.ears.find import find_ears
from unitok_training.evaluation.evaluate import evaluate
from unitok_training.evaluation.run import Evaluation
from unitok_training.experiments.demo.splits import corpus_figures, with_splits
from unitok_training.fitting.codec import CodecConfig
from unitok_training.fitting.ctc import CtcConfig
from unitok_training.fitting.tokenizers import (
    FitConfig,
    RowAudio,
    fit_codec,
    fit_text,
    fit_units,
    fitting_rows,
    load_recordings,
    some_recorded,
    sounding_rows,
    steps_of,
    training_rows,
)
from unitok_training.fitting.waveforms.vocoder import (
    MelVocoderTraining,
    UnitMelTraining,
    train_mel_vocoder,
    train_unit_mel,
)
from unitok_training.model_defaults import learned
from unitok_training.recipes.config import lasting
from unitok_training.recipes.decoder import DecoderRecipe, load_recipe
from unitok_training.reports.demo import write_html
from unitok_training.runs.own_folder import own_folder
from unitok_training.runs.stage_graph import COMPUTE, WALL, StageRecord
from unitok_training.trainer.decoder import train
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.vocoder import Vocoder

Settings = Mapping[str, Any]
JOINED_SHARE = 0.16
"""Rows of several utterances, ÷ groups of utterances."""
RESIDUAL_CODEBOOKS = 1
"""Behind the codec's semantic codebook. A second one costs the decoder a third of the tokens of speech, and it learns
next to nothing of them (5.0 of log 512 = 6.2 nats a code): greedy decoding then says the same code again and again."""
HEARD_AT_MOST = 40
"""Recordings of each kind that ears hear where `make install-real` brought some: 200 seconds or two in all."""


def compute_of(settings: Settings) -> Compute:
    """What the small networks of a run are trained on: the processor, in the run's precision."""
    return resolve("cpu", settings["precision"])


def demo_rows(run: Path, settings: Settings) -> list[Row]:
    """The corpus: the phrase corpus in the run folder, or the user's manifest with splits filled in."""
    if settings["manifest"] is None:
        return read_manifest(run / "corpus" / "manifest.jsonl")
    return with_splits(read_manifest(settings["manifest"]))


def recorded_rows(run: Path, settings: Settings) -> list[Row]:
    """The corpus with recordings that can be learned from: of a user's, neither clicks nor hours."""
    rows = demo_rows(run, settings)
    return rows if settings["manifest"] is None else fitting_rows(rows).rows


def ctc_config(steps: int, seed: int) -> CtcConfig:
    """Training of a recognizer that hears each recording of the phrase corpus about once: that is variety enough, and
    half of the usual noise and masking is learned sooner."""
    return CtcConfig(steps=steps, seed=seed, noise=0.15, mask_bins=6, mask_frames=6)


def fit_config(settings: Settings) -> FitConfig:
    """Tokenizer settings of a run."""
    return FitConfig(
        clusters=settings["clusters"],
        ctc=ctc_config(settings["encoder_steps"], settings["seed"]),
        codec=CodecConfig(steps=settings["codec_steps"], seed=settings["seed"], codebooks=RESIDUAL_CODEBOOKS),
        precision=settings["precision"],
        seed=settings["seed"],
    )


def corpus(run: Path, settings: Settings) -> None:
    """Speak the phrase corpus, or check the user's manifest."""
    if settings["manifest"] is None:
        make_phrase_corpus(
            run / "corpus",
            languages=tuple(settings["languages"]),
            pairs=settings["pairs"],
            test_pairs=settings["test_pairs"],
            seed=settings["seed"],
            workers=settings["threads"],
        )
    rows = demo_rows(run, settings)
    if not any(row.audio is not None and row.text for row in rows):
        raise InputError(f"{settings['manifest']}: no row has both audio and text; the demo trains on such rows")


def units(run: Path, settings: Settings) -> None:
    """Text pieces, speech encoder and units."""
    rows, config = demo_rows(run, settings), fit_config(settings)
    with atomic_directory(run / "fit" / "text") as draft:
        fit_text(rows, config).save(draft)
    tokenizer = fit_units(recorded_rows(run, settings), config)
    with atomic_directory(run / "fit" / "units") as draft:
        tokenizer.save(draft)


def judge(run: Path, settings: Settings) -> None:
    """The judge, on reference audio."""
    chosen = [row for row in training_rows(recorded_rows(run, settings)) if row.audio is not None and row.text]
    config = ctc_config(settings["judge_steps"], settings["seed"])
    found = AsrScorer.train(
        RowAudio(chosen),
        [row.text or "" for row in chosen],
        [row.speaker for row in chosen],
        config,
        compute=compute_of(settings),
        progress=steps_of("judge", config.steps),
    )
    with atomic_directory(run / "judge") as draft:
        found.save(draft)


def codes(run: Path, settings: Settings) -> None:
    """The codec, and the tokenizers as one bundle."""
    rows, config = recorded_rows(run, settings), fit_config(settings)
    codec = fit_codec(rows, UnitTokenizer.load(run / "fit" / "units"), config)
    with atomic_directory(run / "fit" / "codes") as draft:
        codec.save(draft)
    from unitok_tokenizers.text.registry import load_text_tokenizer

    TokenizerSet.of(load_text_tokenizer(run / "fit" / "text"), UnitTokenizer.load(run / "fit" / "units"), codec).save(
        run / "tokenizers"
    )


def prepare(run: Path, settings: Settings) -> None:
    """Token shards."""
    rows = demo_rows(run, settings)
    prepare_shards(
        rows,
        TokenizerSet.load(run / "tokenizers"),
        run / "shards",
        keep_unreadable=True,
        joined_share=JOINED_SHARE,
        seed=settings["seed"],
    )


def mel_vocoder(run: Path, settings: Settings) -> None:
    """The spectral vocoder."""
    recordings = load_recordings(some_recorded(sounding_rows(recorded_rows(run, settings)), 1500, settings["seed"]))
    config = MelVocoderTraining(steps=settings["mel_vocoder_steps"], seed=settings["seed"])
    codec = load_codec(run / "fit" / "codes")
    vocoder = train_mel_vocoder(
        recordings, codec, config, compute=compute_of(settings), progress=steps_of("vocoder", config.steps)
    )
    with atomic_directory(run / "fit" / "mel_vocoder") as draft:
        vocoder.save(draft)


def unit_mel(run: Path, settings: Settings) -> None:
    """The unit synthesizer with its voices."""
    rows = some_recorded(sounding_rows(recorded_rows(run, settings)), 2500, settings["seed"])
    recordings = load_recordings(rows)
    tokenizer = UnitTokenizer.load(run / "fit" / "units")
    config = UnitMelTraining(steps=settings["unit_mel_steps"], seed=settings["seed"])
    model, voices = train_unit_mel(
        recordings,
        tokenizer.encode_batch(recordings),
        [row.speaker for row in rows],
        tokenizer.cardinality,
        config,
        compute=compute_of(settings),
        progress=steps_of("unit synthesizer", config.steps),
    )
    Vocoder(None, model, voices).save(run / "fit" / "unit_mel")


def demo_recipe(settings: Settings) -> DecoderRecipe:
    """The preset with the run's overrides and seed, in the run's precision where it leaves that open."""
    recipe = load_recipe(settings["preset"], [f"train.seed={settings['seed']}", *settings["overrides"]])
    if recipe.train.precision == AUTO:
        recipe = replace(recipe, train=replace(recipe.train, precision=settings["precision"]))
    return recipe


def usable_mixture(mixture: Mixture, shards: Shards) -> Mixture:
    """The mixture without the tasks that these shards cannot serve: one language, no alignments, no text."""
    from unitok_training.data.examples import ExampleSource

    vocabulary = None
    kept = {}
    tokenizers = TokenizerSet.load(shards.folder.parent / "tokenizers")
    vocabulary = tokenizers.vocabulary(shards.languages)
    for task, weight in mixture.tasks.items():
        try:
            source = ExampleSource(
                shards, vocabulary, Mixture(tasks={task: weight}), seed=0, pieces=tokenizers.text.pieces()
            )
            source.check(4096)
        except InputError as error:
            print(f"without {task}: {error}", flush=True)
            continue
        kept[task] = weight
    if not kept:
        raise InputError(f"{shards.folder}: no task of the mixture has rows; give recordings with text")
    return Mixture(tasks=kept)


def decoder(run: Path, settings: Settings) -> None:
    """The decoder."""
    shards = Shards.open(run / "shards", check=True)
    tokenizers = TokenizerSet.load(run / "tokenizers")
    vocabulary = tokenizers.vocabulary(shards.languages)
    recipe = demo_recipe(settings)
    recipe = replace(recipe, mixture=usable_mixture(recipe.mixture, shards))
    made_from = lasting(replace(recipe, train=replace(recipe.train, precision=AUTO)))  # a run may go on in another one
    out = own_folder(run / "train", {"recipe": made_from, "shards": read_json(run / "shards" / "manifest.json")})
    recipe.save(out / "recipe.json")
    generator = torch.Generator().manual_seed(settings["seed"])
    network = Decoder(recipe.decoder.config(vocabulary.size), generator=generator)
    train(
        recipe.train,
        network,
        shards,
        vocabulary,
        out,
        mixture=recipe.mixture,
        curriculum=recipe.curriculum,
        plans=recipe.plans,
        pieces=tokenizers.text.pieces(),
    )


def model(run: Path, settings: Settings) -> None:
    """The model directory: newest checkpoint, vocoder, voices, limits."""
    shards = Shards.open(run / "shards")
    tokenizers = TokenizerSet.load(run / "tokenizers")
    vocabulary = tokenizers.vocabulary(shards.languages)
    recipe = load_recipe(run / "train" / "recipe.json")
    network = Decoder(recipe.decoder.config(vocabulary.size))
    load_module(network, open_checkpoint(run / "train" / "checkpoints").model)
    spoken = Vocoder.load(run / "fit" / "unit_mel")
    known = learned(shards, vocabulary)
    Model(
        decoder=network.float().eval(),
        vocabulary=vocabulary,
        tokenizers=tokenizers,
        vocoder=Vocoder(MelVocoder.load(run / "fit" / "mel_vocoder"), spoken.units, spoken.voices),
        prompts=known.prompts,
        limits=known.limits,
        characters=known.characters,
        info={"tasks": list(recipe.mixture.tasks), "preset": recipe.name},
    ).save(run / "model")


def evaluate_stage(run: Path, settings: Settings) -> None:
    """All metrics and the examples of the report."""
    found = evaluate(
        Evaluation(
            model=Model.load(run / "model"),
            shards=Shards.open(run / "shards"),
            judge=AsrScorer.load(run / "judge"),
            ears=find_ears(),
            heard_at_most=HEARD_AT_MOST,
            limit=settings["evaluate_limit"],
            seed=settings["seed"],
        ),
        progress=lambda name: print(name, flush=True),
    )
    found.metrics["checkpoint"] = sha256_file(run / "model" / "core" / "model.safetensors")
    rows = demo_rows(run, settings)
    found.metrics["corpus"] = corpus_figures(rows)
    save_examples(found, run / "examples")
    write_json(run / "evaluation.json", found.metrics)


def training_summary(folder: Path) -> dict[str, Any]:
    """Padding, dropped share and speed of a training run, from its rows of metrics."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = rows[-1]
    speed = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    return {
        "steps": last.get("step"),
        "loss": last.get("loss"),
        "padding_share": float(np.mean([row["padding_share"] for row in rows if "padding_share" in row])),
        "dropped_share": max(row["dropped_share"] for row in rows if "dropped_share" in row),
        "tokens_per_second": float(np.median(speed)) if speed else None,
    }


def save_examples(found: Evaluation, folder: Path) -> None:
    """Audio and captions of the examples, for the report."""
    from unitok_tokenizers.audio.io import write_audio

    rate = found.model.sample_rate
    with atomic_directory(folder) as draft:
        captions = []
        for number, example in enumerate(found.examples):
            entry = {name: getattr(example, name) for name in ("task", "reference", "output", "source", "note")}
            for name in ("audio", "reference_audio"):
                samples = getattr(example, name)
                if samples is not None:
                    entry[name] = f"{number:03d}-{name}.flac"
                    write_audio(draft / entry[name], samples, rate)
            captions.append(entry)
        write_json(draft / "examples.json", captions)


def write_report(run: Path, records: Mapping[str, StageRecord]) -> Path:
    """`metrics.json` with seconds and memory added, and `report.html`."""
    metrics = read_json(run / "evaluation.json")
    metrics["seconds"] = {name: round(record.seconds, 1) for name, record in records.items()}
    metrics["seconds"]["sum_of_stages"] = round(sum(record.seconds for record in records.values()), 1)
    metrics["memory"] = {"by_stage": {name: record.peak_bytes for name, record in records.items()}}
    if (run / WALL).exists():  # of a run that was interrupted nobody knows
        wall = read_json(run / WALL)
        metrics["seconds"]["total"] = wall["seconds"]
        metrics["memory"]["peak_bytes"] = wall["peak_bytes"]
    metrics["train"] = training_summary(run / "train")
    if (run / COMPUTE).exists():
        metrics["compute"] = read_json(run / COMPUTE)
    write_json(run / "metrics.json", metrics)
    return write_html(run)
