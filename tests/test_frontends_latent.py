"""Latent models: vectors in prompts, training of each part, and a tiny model from recordings to answers.

Run alone with `pytest tests/test_frontends_latent.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.launching import ranks
from tests.support.recordings import SENTENCES, write_pairs
from tests.support.tiny_model import speech, tiny_model
from unitok.cli.main import main
from unitok.frontends.adapters.registry import ADAPTERS
from unitok.frontends.prompt_vectors import PromptVectors
from unitok.generation.beam_search import beam_search
from unitok.generation.generate import generate
from unitok.model import Model
from unitok.requests.request import Request
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.latent_examples import LatentSource
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.prompt_probe import Prompt, language_of, probe
from unitok_training.recipes.latent import LatentRecipe, tiny
from unitok_training.run_models.latent import make_front_end
from unitok_training.systems.registry import latent_presets, load_latent_recipe
from unitok_training.train_latent import train_latent
from unitok_training.trainer.batches import LatentBatches
from unitok_training.trainer.config import FROZEN, LatentTrainConfig, PartTuning, Tuning
from unitok_training.trainer.distributed import World
from unitok_training.trainer.latent import latent_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_pairs`."""
    return write_pairs(tmp_path_factory.mktemp("latent"))


def bytes_of(module: nn.Module) -> dict[str, bytes]:
    return {name: value.detach().cpu().numpy().tobytes() for name, value in module.state_dict().items()}


def trainer(recipe: LatentRecipe, manifest: Path, out: Path, world: World | None = None) -> Trainer:
    """A trainer over a model of random weights."""
    model = tiny_model()
    torch.manual_seed(0)
    front = make_front_end(recipe, model.decoder, model.vocabulary.streams["text"].cardinalities[0])
    rows = [row for row in read_manifest(manifest) if row.split == "train"]
    source = LatentSource(
        rows, recipe.mixture, model.tokenizers.text, model.vocabulary, front, seed=0, augmented=recipe.train.augment
    )
    setup = latent_setup(recipe.train, recipe.tuning, front, model.decoder, source, world or World())
    return Trainer(recipe.train, setup, out)


def modules_of(run: Trainer) -> dict[str, nn.Module]:
    """Encoder, adapter and decoder of a run."""
    return {part.name: part.module for part in run.parts}


def steps(recipe: LatentRecipe, count: int, **changes: Any) -> LatentRecipe:
    return replace(recipe, train=replace(recipe.train, steps=count, log_every=count, **changes))


def test_vectors_that_are_embedding_rows_say_the_same_as_ids() -> None:
    model = tiny_model()
    words = np.asarray(model.tokenizers.text.encode("the green house stands"))
    plans = [
        SequenceSpec("mt", "en", "de", conditions=(Span("text", part),)) for part in (words, words[:3], words[::-1])
    ]
    prompts = [render_prompt(plan, model.vocabulary) for plan in plans]
    rows = model.decoder.embedding.detach()
    given, holes = [], []
    for prompt, plan in zip(prompts, plans):
        places = np.arange(5, 5 + len(plan.conditions[0]))
        given.append(PromptVectors(rows[torch.from_numpy(prompt[places])], places))
        hidden = prompt.copy()
        hidden[places] = model.vocabulary.control("<lat>")
        holes.append(hidden)

    def automata() -> list[Automaton]:
        return [Automaton(model.vocabulary, prompt, max_new_tokens=12) for prompt in prompts]

    by_ids = generate(model.decoder, prompts, automata=automata(), max_new_tokens=12)
    by_vectors = generate(model.decoder, holes, automata=automata(), max_new_tokens=12, vectors=given)
    for one, other in zip(by_ids, by_vectors):
        assert one.ids.tolist() == other.ids.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    searched = beam_search(model.decoder, holes[0], automata()[0], beams=2, vectors=given[0])
    assert searched[0].ids.tolist() == beam_search(model.decoder, prompts[0], automata()[0], beams=2)[0].ids.tolist()


def test_prompts_with_equal_holes_share_nothing_behind_them() -> None:
    """A common beginning is computed once, but placeholders are equal where vectors are not."""
    model = tiny_model()
    prompt = render_prompt(SequenceSpec("asr", "en", conditions=(Span("lat", np.zeros(30)),)), model.vocabulary)
    places = np.flatnonzero(prompt == model.vocabulary.control("<lat>"))
    random = torch.Generator().manual_seed(0)
    given = [PromptVectors(torch.randn(30, 32, generator=random), places) for _ in range(3)]
    together = generate(model.decoder, [prompt] * 3, max_new_tokens=5, vectors=given)
    for vectors, one in zip(given, together):
        alone = generate(model.decoder, [prompt], max_new_tokens=5, vectors=[vectors])[0]
        assert alone.ids.tolist() == one.ids.tolist()
        np.testing.assert_allclose(alone.logprobs, one.logprobs, atol=1e-5)
    assert len({round(float(one.score), 3) for one in together}) == 3


@pytest.mark.slow
def test_a_tiny_model_learns_its_recordings_by_heart(manifest: Path, tmp_path: Path) -> None:
    recipe = replace(steps(tiny(), 140), mixture=Mixture(tasks={"asr": 1.0, "s2tt": 1.0}))
    done = train_latent(recipe, manifest, tmp_path / "run")
    assert done.scores["asr"] == {"wer": 0.0, "rows": 8, "unit": "wer"} and done.scores["s2tt"]["bleu"] > 95
    model = Model.load(done.folder)
    for lang, sentences in SENTENCES.items():
        for index, text in enumerate(sentences):
            path = manifest.parent / f"{lang}{index}.wav"
            assert model.transcribe(path, lang=lang, front_end="latent").text == text
            assert model.transcribe(path, lang=lang, beams=3).text == text  # without units latent is what there is
            other = "de" if lang == "en" else "en"
            assert model.translate(path, source=lang, target=other).text == SENTENCES[other][index]
    with pytest.raises(InputError, match="no units"):
        model.transcribe(path, lang="en", front_end="tokens")
    with pytest.raises(InputError, match="choose tokens, latent"):
        model.transcribe(path, lang="en", front_end="ears")
    again = train_latent(recipe, manifest, tmp_path / "run")  # finished: nothing is trained again
    assert bytes_of(again.model.decoder) == bytes_of(done.model.decoder)


@pytest.mark.parametrize("moving", ["encoder", "adapter", "decoder"])
@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_frozen_stays_byte_for_byte(moving: str, rank: int, manifest: Path, tmp_path: Path) -> None:
    if moving == "adapter" and rank:
        pytest.skip("an adapter is small and trained wholly")
    part = PartTuning(full=not rank, lora_rank=rank, learning_rate=1e-2)
    tuning = replace(Tuning(encoder=FROZEN, adapter=FROZEN, decoder=FROZEN), **{moving: part})
    run = trainer(replace(steps(tiny(), 3), tuning=tuning), manifest, tmp_path)
    before = {name: bytes_of(module) for name, module in modules_of(run).items()}
    run.run()
    for name, module in modules_of(run).items():
        after = bytes_of(module)
        changed = {key for key in after if after[key] != before[name][key]}
        if name != moving:
            assert not changed, name
        elif rank:
            assert changed and all(".a." in key or ".b." in key for key in changed)
        else:
            assert changed


def test_a_part_that_starts_later_waits(manifest: Path, tmp_path: Path) -> None:
    late = PartTuning(full=False, lora_rank=2, learning_rate=1e-2, start_step=2)
    run = trainer(replace(steps(tiny(), 4), tuning=replace(tiny().tuning, decoder=late)), manifest, tmp_path)
    before = bytes_of(modules_of(run)["decoder"])
    run.run(stop_after=2)
    assert bytes_of(modules_of(run)["decoder"]) == before
    run.run()
    assert bytes_of(modules_of(run)["decoder"]) != before


def test_a_run_that_stopped_continues_as_if_it_had_not(manifest: Path, tmp_path: Path) -> None:
    recipe = steps(tiny(), 4, checkpoint_every=2, augment=True)
    whole = trainer(recipe, manifest, tmp_path / "whole")
    whole.run()
    first = trainer(recipe, manifest, tmp_path / "parts")
    first.run(stop_after=2)
    second = trainer(recipe, manifest, tmp_path / "parts")
    assert second.resume() and second.step == 2
    second.run()
    for name, module in modules_of(whole).items():
        assert bytes_of(module) == bytes_of(modules_of(second)[name]), name
    other = trainer(replace(recipe, tuning=Tuning(encoder=FROZEN)), manifest, tmp_path / "parts")
    with pytest.raises(InputError, match="tuning"):
        other.resume()


def test_a_step_weighs_every_token_alike_whatever_pack_it_is_in(manifest: Path, tmp_path: Path) -> None:
    """By hand: all losses over all tokens, and not the mean of the packs' means."""
    run = trainer(steps(tiny(), 1, packs_per_step=2), manifest, tmp_path / "run")
    assert isinstance(run.source, LatentBatches) and isinstance(run.config, LatentTrainConfig)
    documents = [run.source.source.document(index) for index in range(6)]
    batches = [run.source.batch(documents[:1]), run.source.batch(documents[1:])]
    for part in run.parts:
        part.set_mode(0)
    torch.manual_seed(3)
    found = [run.objective.losses(batch).terms for batch in batches]
    counts = [run.objective.counts(batch) for batch in batches]
    assert 2 * counts[0]["tokens"] < counts[1]["tokens"] and 2 * counts[0]["ctc"] < counts[1]["ctc"]
    weights = {"tokens": 1.0, "ctc": run.config.ctc_weight}
    by_hand = sum(
        weight * (found[0][name] + found[1][name]) / (counts[0][name] + counts[1][name])
        for name, weight in weights.items()
    )
    means = [one["tokens"] / n["tokens"] + weights["ctc"] * one["ctc"] / n["ctc"] for one, n in zip(found, counts)]
    assert isinstance(by_hand, torch.Tensor)
    wanted = by_hand.item()
    assert abs(sum(one.item() for one in means) / 2 - wanted) > 1e-3
    values = [value for part in run.parts for value in part.moving.values()]
    slopes = [one for one in torch.autograd.grad(by_hand, values, allow_unused=True) if one is not None]
    torch.manual_seed(3)
    run._update(batches)
    assert float(run._objective) == pytest.approx(wanted, rel=1e-6)
    assert float(run._norm) == pytest.approx(float(torch.cat([one.flatten() for one in slopes]).norm()), rel=1e-3)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(manifest: Path, tmp_path: Path) -> None:
    """Of a step's two packs each takes one; the first one alone writes and scores."""
    given = ["train.steps=3", "train.log_every=1", "train.packs_per_step=2", "train.pack_size=256"]
    train_latent(load_latent_recipe("tiny", given), manifest, tmp_path / "one", limit=1)
    words = [word for value in given for word in ("--set", value)]
    command = ["train-latent", "tiny", str(manifest), "-o", str(tmp_path / "two"), "--limit", "1", *words]
    done = ranks(["-m", "unitok", *command], 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(str(tmp_path / "two/model")) == 1
    one, two = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("one", "two"))
    assert len(one) == len(two) == 3
    for alone, shared in zip(one, two):
        for key in ("loss", "objective", "ctc_loss", "gradient_norm"):
            assert shared[key] == pytest.approx(alone[key], rel=1e-3), (alone, shared)
        assert shared["tokens"] == alone["tokens"]
    with pytest.raises(InputError, match="make it a multiple"):
        base = load_latent_recipe("tiny", ["train.packs_per_step=1"])
        alone = trainer(base, manifest, tmp_path / "three")
        Trainer(base.train, alone.setup, alone.out, world=World(size=2))


def test_updates_and_front_end_live_in_the_model_directory(manifest: Path, tmp_path: Path) -> None:
    update = PartTuning(full=False, lora_rank=2, learning_rate=1e-2)
    recipe = replace(steps(tiny(), 2), tuning=Tuning(encoder=update, decoder=update))
    base = tiny_model()
    base.save(tmp_path / "base")
    done = train_latent(recipe, manifest, tmp_path / "run", start=tmp_path / "base", limit=2)
    core = "core/model.safetensors"
    assert (done.folder / core).read_bytes() == (tmp_path / "base" / core).read_bytes()
    model = Model.load(done.folder)
    samples = speech(seed=3)
    told = [one.transcribe(samples, lang="en", front_end="latent") for one in (done.model, model)]
    assert told[0].ids.tolist() == told[1].ids.tolist() and told[0].score == pytest.approx(told[1].score, abs=1e-4)
    assert model.transcribe(samples, lang="en").text == model.transcribe(samples, lang="en", front_end="tokens").text
    chunks = list(model.stream(Request(task="asr", source="en", audio=samples)))
    assert chunks[-1].result is not None


def test_presets_resolve_and_name_what_is_wrong(manifest: Path, tmp_path: Path) -> None:
    for name in latent_presets().table:
        recipe = load_latent_recipe(name)
        recipe.save(tmp_path / f"{name}.json")
        assert load_latent_recipe(tmp_path / f"{name}.json") == recipe and recipe.name == name
        assert recipe.adapter.kind in ADAPTERS
    changed = load_latent_recipe("slam_asr", ["adapter.stride=3", "tuning.decoder.full=true"])
    assert changed.adapter.stride == 3 and changed.tuning.decoder.full
    with pytest.raises(InputError, match="slam_asr"):
        load_latent_recipe("slam-asr")
    with pytest.raises(InputError, match=r"adapter\.stride"):
        load_latent_recipe("latent", ["adapter.strid=3"])
    with pytest.raises(InputError, match="latent models are trained on"):
        load_latent_recipe("latent", ["mixture.tts=1"])
    with pytest.raises(InputError, match=r"encoder\.folder"):
        train_latent(load_latent_recipe("slam_asr"), manifest, tmp_path / "run")
    frozen = replace(tiny(), tuning=Tuning(encoder=FROZEN, adapter=FROZEN, decoder=FROZEN))
    with pytest.raises(InputError, match="all frozen"):
        trainer(frozen, manifest, tmp_path)


def test_the_probe_measures_what_prompts_change(manifest: Path, tmp_path: Path) -> None:
    base = tiny_model()
    base.save(tmp_path / "base")
    done = train_latent(steps(tiny(), 2), manifest, tmp_path / "run", start=tmp_path / "base", limit=1)
    rows = read_manifest(manifest)
    figures = probe(done.model, rows, limit=2)
    assert set(figures["following"]) == {*figures["kl"], "asr"} and figures["recordings"] == 2
    assert all(0 <= share <= 1 for share in figures["following"].values())
    assert all(value > 0 for value in figures["kl"].values())
    assert sum(figures["attention"].values()) == pytest.approx(1.0, abs=1e-4)
    same = probe(done.model, rows, prompts=[Prompt("a", "asr"), Prompt("b", "asr")], limit=1)
    assert same["kl"] == {"b": pytest.approx(0.0, abs=1e-6)}
    done.model.decoder.embedding.data.mul_(0.5)
    assert probe(done.model, rows, limit=1)["norm_ratio"] > 1.5 * figures["norm_ratio"]
    assert language_of("das haus steht", {"en": {"house"}, "de": {"haus", "das"}}) == "de"
    assert main(["probe", str(done.folder), str(manifest), "-o", str(tmp_path / "probe"), "--limit", "1"]) == 0
    assert json.loads((tmp_path / "probe/probe.json").read_text(encoding="utf-8"))["recordings"] == 1
    with pytest.raises(InputError, match="no latent front end"):
        probe(base, rows)


def test_other_recordings_are_another_run(manifest: Path, tmp_path: Path) -> None:
    rows = read_manifest(manifest)
    first, longer = next(row for row in rows if row.split == "train"), steps(tiny(), 4)
    train_latent(steps(tiny(), 2), rows, tmp_path / "run", split="")

    def with_first(**changed: Any) -> list[Row]:
        return [replace(row, **changed) if row is first else row for row in rows]

    shorter = with_first(seconds=0.3)
    for other in (
        rows[::-1], shorter, with_first(extras={"keywords": ["a"]}), with_first(words=(("a", 0.0, 0.1),)),
        with_first(tokens={"units": [1, 2]}),
    ):  # fmt: skip
        with pytest.raises(InputError, match="--allow-change rows"):
            train_latent(longer, other, tmp_path / "run", split="")
    train_latent(longer, shorter, tmp_path / "run", split="", allow_change=("rows",))


def test_many_recordings_are_encoded_in_batches_that_memory_holds() -> None:
    model = tiny_model()
    front = make_front_end(tiny(), model.decoder, model.vocabulary.streams["text"].cardinalities[0]).eval()
    recordings = [speech(0.5 + 0.01 * number, seed=number) for number in range(24)]
    given: list[int] = []
    front.encoder.register_forward_pre_hook(lambda _, inputs: given.append(len(inputs[0])))
    whole = front.encode(recordings)
    assert front.encode([]) == []
    type(front.encoder).batch_seconds, before = 2, type(front.encoder).batch_seconds
    try:
        given.clear()
        parts = front.encode(recordings)
    finally:
        type(front.encoder).batch_seconds = before
    assert max(given) <= 4 and len(given) >= 6
    for one, other in zip(parts, whole):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
