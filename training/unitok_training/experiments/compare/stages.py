"""The stages of a comparison: tokenizers and shards, the common start, and one arm; each in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from unitok.decoder.model import Decoder
from unitok.model import Model
from unitok_tokenizers.acoustic.registry import load_codec
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.files import atomic_directory, fingerprint, read_json, sha256_file, write_json
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.registry import load_text_tokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.latent_examples import LatentSource
from unitok_training.evaluation.asr_scorer import AsrScorer
from unitok_training.evaluation.ears.find import find_ears
from unitok_training.evaluation.run import Evaluation
from unitok_training.experiments.compare.recipes import CODES_IN, CompareRecipe, load_compare_recipe
from unitok_training.experiments.compare.report import ROWS
from unitok_training.experiments.compare.scores import score_arm, text_ability
from unitok_training.experiments.demo.stages import (
    HEARD_AT_MOST,
    Settings,
    demo_rows,
    fit_config,
    recorded_rows,
    usable_mixture,
)
from unitok_training.fitting.codec import CodecConfig
from unitok_training.fitting.tokenizers import fit_codec, training_rows
from unitok_training.recipes.base import Shape
from unitok_training.recipes.config import lasting
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.recipes.layout import ModelChoice
from unitok_training.run_models.latent import make_front_end, spelled
from unitok_training.runs.own_folder import own_folder
from unitok_training.train import train_model
from unitok_training.train_latent import train_latent
from unitok_training.trainer.metrics import read_metrics
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.vocoder import Vocoder


def compare_recipe(settings: Settings) -> CompareRecipe:
    """The recipe of a run."""
    return load_compare_recipe(settings["preset"], settings["overrides"])


def prepare(run: Path, settings: Settings) -> None:
    """The tokenizers of all approaches, without acoustic codes, and token shards."""
    bundle = TokenizerSet.of(load_text_tokenizer(run / "fit" / "text"), UnitTokenizer.load(run / "fit" / "units"))
    bundle.save(run / "tokenizers")
    prepare_shards(demo_rows(run, settings), bundle, run / "shards", keep_unreadable=True)


CODES = "codes"
"""Folder of a run with the tokenizers and shards of approaches that read and write codes."""


def codec(run: Path, settings: Settings) -> None:
    """The codec of all layouts, whose first codebook is the units."""
    config, recipe = fit_config(settings), compare_recipe(settings)
    config = replace(config, codec=replace(config.codec or CodecConfig(), codebooks=recipe.codebooks))
    made = fit_codec(recorded_rows(run, settings), UnitTokenizer.load(run / "fit" / "units"), config)
    with atomic_directory(run / "fit" / "codes") as draft:
        made.save(draft)


def prepare_codes(run: Path, settings: Settings) -> None:
    """Tokenizers with the codec, and token shards of them."""
    text, units = load_text_tokenizer(run / "fit" / "text"), UnitTokenizer.load(run / "fit" / "units")
    bundle = TokenizerSet.of(text, units, load_codec(run / "fit" / "codes"))
    bundle.save(run / CODES / "tokenizers")
    prepare_shards(demo_rows(run, settings), bundle, run / CODES / "shards", keep_unreadable=True)


def start(run: Path, settings: Settings, name: str, seed: str, width: str) -> None:
    """A decoder that knows text, in a model that has everything but a front end; `width` is "wide" or nothing."""
    recipe = compare_recipe(settings)
    shape = widened(recipe, TokenizerSet.load(run / "tokenizers")) if width else recipe.decoder
    arm, shards = recipe.start, run / "shards"
    chosen = DecoderRecipe(
        name=name, decoder=shape, mixture=arm.mixture, plans=arm.plans, train=replace(arm.train, seed=int(seed))
    )
    data = read_json(shards / "manifest.json")
    folder = own_folder(run / "arms" / name, {"recipe": lasting(chosen), "shards": data})
    trained = train_model(chosen, shards=shards, tokenizers=run / "tokenizers", out=folder)
    assert trained is not None, "a stage is one process"
    model = Model.load(trained)
    model.vocoder = Vocoder.load(run / "fit" / "unit_mel")
    model.save(trained)
    bench = Evaluation(model=model, shards=Shards.open(shards), limit=recipe.evaluate_limit)
    write_json(folder / "result.json", {"text": text_ability(bench), **training_cost(folder)})


def widened(recipe: CompareRecipe, tokenizers: TokenizerSet) -> Shape:
    """The decoder's shape with so much more feed-forward as the latent approach has encoder and adapter."""
    pieces = tokenizers.text.size
    shape = recipe.decoder
    config = shape.config(pieces)
    front_end = make_front_end(recipe.latent, Decoder(config), pieces)
    extra = sum(value.numel() for value in front_end.parameters())
    return replace(shape, ffn=config.ffn_dim + round(extra / (3 * config.width * config.layers)))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of one approach, and where it stands."""

    run: Path
    """Run folder of the comparison."""
    folder: Path
    """Its own."""
    first: Path
    """Model that it starts from."""
    recipe: CompareRecipe
    """Of the comparison."""
    approach: str
    """Which."""
    seed: int
    """Of every draw."""
    steps: int
    """Updates; 0 where the budget of decoder tokens decides."""

    def begin(self, recipe: DecoderRecipe | LatentRecipe, heard: Sequence[Row] = ()) -> Path:
        """Its folder, for training with this recipe, on recordings where it hears any itself."""
        weights = sha256_file(self.first / "core" / "model.safetensors")
        shards = self.run / CODES / "shards" if self.coded else self.run / "shards"
        # the start has learned texts alone: it is the same whatever was recorded, and with whatever codec
        made_from = {"recipe": lasting(recipe), "start": weights, "shards": read_json(shards / "manifest.json")}
        if heard:
            made_from["recordings"] = fingerprint([row.stamp() for row in heard])
        return own_folder(self.folder, made_from)

    @property
    def coded(self) -> bool:
        """Whether it reads and writes codes."""
        return self.approach.startswith(CODES_IN)


def arm(run: Path, settings: Settings, name: str, begin: str, approach: str, seed: str, steps: str) -> None:
    """Train one approach and score it; `steps` is 0 where the budget of decoder tokens decides."""
    recipe = compare_recipe(settings)
    shards = Shards.open(run / CODES / "shards" if approach.startswith(CODES_IN) else run / "shards")
    folder, first = run / "arms" / name, run / "arms" / begin
    job = Job(
        run=run, folder=folder, first=first / "model", recipe=recipe, approach=approach, seed=int(seed),
        steps=int(steps),
    )  # fmt: skip
    model, trainable = latent_arm(job, demo_rows(run, settings)) if approach == "latent" else stream_arm(job, shards)
    bench = Evaluation(
        model=model, shards=shards, judge=AsrScorer.load(run / "judge"), ears=find_ears(), heard_at_most=HEARD_AT_MOST,
        limit=recipe.evaluate_limit,
    )  # fmt: skip
    result: dict[str, Any] = score_arm(bench, approach)
    write_json(folder / ROWS, result.pop("rows"))
    result["text"]["ppl"]["before"] = read_json(first / "result.json")["text"]["ppl"]["after"]
    write_json(folder / "result.json", {**result, **training_cost(folder), "trainable_parameters": trainable})


def stream_arm(job: Job, shards: Shards) -> tuple[Model, int]:
    """(model, parameters that were trained) of an approach that trains the decoder alone."""
    part, coded = job.recipe.stream(job.approach), job.coded
    chosen = DecoderRecipe(
        name=job.approach,
        decoder=job.recipe.decoder,
        model=job.recipe.laid(job.approach.removeprefix(CODES_IN)) if coded else ModelChoice(),
        mixture=usable_mixture(part.mixture, shards),
        plans=part.plans,
        train=replace(part.train, seed=job.seed, steps=job.steps or job.recipe.steps(job.approach)),
    )
    tokenizers = job.run / CODES / "tokenizers" if coded else None
    trained = train_model(
        chosen, shards=shards.folder, tokenizers=tokenizers, out=job.begin(chosen), start=job.first
    )  # fmt: skip
    assert trained is not None, "a stage is one process"
    model = Model.load(trained)
    if coded and model.vocoder is not None:
        mels = MelVocoder.load(job.run / "fit" / "mel_vocoder")
        model.vocoder = Vocoder(mels, model.vocoder.units, model.vocoder.voices)
        model.save(trained)
    parts = [model.decoder, *(part for part in model.parts.values() if isinstance(part, nn.Module))]
    return model, sum(value.numel() for part in parts for value in part.parameters())


def latent_arm(job: Job, rows: Sequence[Row]) -> tuple[Model, int]:
    """(model, parameters that were trained) of the latent approach."""
    chosen = replace(job.recipe.latent, train=replace(job.recipe.latent.train, seed=job.seed))
    steps = job.steps or latent_steps(job.recipe, chosen, Model.load(job.first), rows)
    chosen = replace(chosen, train=replace(chosen.train, steps=steps))
    done = train_latent(chosen, rows, job.begin(chosen, rows), start=job.first, split="")
    return done.model, sum(done.scores["trainable_parameters"].values())


def latent_steps(recipe: CompareRecipe, chosen: LatentRecipe, model: Model, rows: Sequence[Row]) -> int:
    """Updates of the latent approach within the budget, by the examples of its first window.

    Packs are laid out for the most vectors that augmented recordings may give; what counts is what they usually give:
    those of the recording as it is, or where content decides, one for each label of what is said.
    """
    said = [row.text or "" for row in training_rows(rows)]
    chosen = replace(chosen, adapter=spelled(chosen.adapter, said, model.tokenizers.text))
    front_end = make_front_end(chosen, model.decoder, model.tokenizers.text.size)
    laid_out, plain = (
        LatentSource(
            training_rows(rows), chosen.mixture, model.tokenizers.text, model.vocabulary, front_end,
            seed=chosen.train.seed, augmented=augmented,
        )
        for augmented in (chosen.train.augment, False)
    )  # fmt: skip
    room = positions = 0
    for document in map(plain.document, range(chosen.train.window)):
        most, usual = (sum(map(source.most_vectors, document.heard)) for source in (laid_out, plain))
        rest = len(document.ids) - usual
        room += rest + most
        positions += rest + sum(map(plain.usual_vectors, document.heard))
    packs = room / (chosen.train.pack_size * chosen.train.packs_per_step)
    return max(1, round(recipe.budget * packs / positions))


def training_cost(folder: Path) -> dict[str, Any]:
    """What a training's log says of its size and time; a run that continued is counted whole."""
    rows = read_metrics(folder / "metrics.jsonl")
    seconds = sum(row["seconds"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    return {
        "train": {
            "steps": rows[-1]["step"], "decoder_tokens": tokens, "seconds": seconds,
            "tokens_per_second": tokens / max(seconds, 1e-9),
        }
    }  # fmt: skip
