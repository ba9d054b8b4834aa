"""Second passes from shards to answers: `unitok train` with codes of which the decoder says the first codebook alone.

Run alone with `pytest tests/test_train_second_pass.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_model import WORDS, tokenizers
from tests.test_formats import compare, json_keys, keys
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok.requests.request import Request
from unitok.results import Result
from unitok.second_passes.base import SecondPass, refined_slots
from unitok.second_passes.refiner import Refiner
from unitok.second_passes.regression import Regression
from unitok_tokenizers.acoustic.base import LatentCodec
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.files import list_checkpoints
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import DataState
from unitok_training.evaluation.run import Evaluation
from unitok_training.evaluation.tokens import put_token_scores, slot_means, slot_sums, token_documents
from unitok_training.objectives.second_pass import PassBatch, TrainedPass
from unitok_training.objectives.tokens import TokenBatch, TokenObjective
from unitok_training.recipes.decoder import DecoderRecipe, load_recipe
from unitok_training.run_models.checkpoint import model_at
from unitok_training.shard_set import open_shards
from unitok_training.train import train_model
from unitok_training.trainer.batches import TokenBatches
from unitok_training.trainer.config import TrainConfig

VOICES = ("ann", "eva", "tom")
SETS = (
    *("train.pack_size=640", "train.window=256", "train.log_every=50", "train.checkpoint_every=100"),
    *("train.optim.learning_rate=8e-3", "train.optim.schedule=linear", "plans.voice_share=1.0"),
    *("mixture={only: {vtts.voice: 2, vtts: 0.5}}", "model.second_layers=2", "model.second_width=32"),
    *("model.second_heads=2", "model.second_kv_heads=1"),
)


def first_codes(text: str) -> np.ndarray:
    """(F,) codes of codebook 0: two a word."""
    numbers = [WORDS.index(word) for word in text.split()]
    return np.array([code for one in numbers for code in (one % 12, (5 * one + 3) % 12)])


def spoken(first: np.ndarray, voice: str) -> np.ndarray:
    """(F, 3) codes of codebook 0 (F,): the next says the voice, which no text tells, the last what both say."""
    second = (first + 3 * VOICES.index(voice)) % 8
    return np.stack([first, second, (second + first) % 8], 1)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Shards of such codes, and the tokenizers with the codec whose codes they are."""

    root: Path
    codec: LatentCodec


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    place, bundle = tmp_path_factory.mktemp("second"), tokenizers()
    rng, rows = np.random.default_rng(3), list[dict[str, Any]]()
    for number in range(240):
        text, voice = " ".join(rng.choice(WORDS[:12], int(rng.integers(2, 5)))), VOICES[number % 3]
        row = {"id": f"r{number}", "text": text, "lang": "en", "split": "train", "speaker": voice}
        rows.append({**row, "codes": spoken(first_codes(text), voice).tolist()})
    (place / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert bundle.codec is not None and isinstance(bundle.codec, LatentCodec)
    codes = bundle.codec.info()
    prepare_shards(
        read_manifest(place / "m.jsonl"), TokenizerSet.of(bundle.text), place / "shards", external={"codes": codes}
    )
    bundle.save(place / "tokenizers")
    return Corpus(root=place, codec=bundle.codec)


def recipe(layout: str, *changes: str) -> DecoderRecipe:
    return load_recipe("tiny", [*SETS, f"model.layout={layout}", *changes])


def trained(corpus: Corpus, out: str, made: DecoderRecipe, **more: Any) -> Model:
    given: dict[str, Any] = {} if "start" in more else {"tokenizers": corpus.root / "tokenizers"}
    train_model(made, shards=corpus.root / "shards", out=corpus.root / out, **{**given, **more})
    return Model.load(corpus.root / out / "model")


def second_of(model: Model) -> SecondPass:
    found = model.parts["second_pass"]
    assert isinstance(found, SecondPass)
    return found


def same(one: Model, other: Model) -> bool:
    pairs = [(one.decoder, other.decoder), *((one.parts[name], other.parts[name]) for name in one.parts)]
    return one.parts.keys() == other.parts.keys() and all(
        torch.equal(value, theirs.state_dict()[name])
        for ours, theirs in pairs
        for name, value in ours.state_dict().items()
    )


def requests(count: int = 24) -> list[tuple[Request, str]]:
    """Sentences in the voices of codes that no example has."""
    rng, found = np.random.default_rng(77), list[tuple[Request, str]]()
    for number in range(count):
        voice, text = VOICES[number % 3], " ".join(rng.choice(WORDS[:12], 3))
        prompt = spoken(rng.integers(12, size=8), voice)
        found.append((Request(task="vtts", source="en", text=text, voice=prompt), voice))
    return found


def codes_in(result: Result) -> np.ndarray:
    assert result.outputs[-1].kind == "codes"
    return result.outputs[-1].content


@pytest.fixture(scope="module")
def refined(corpus: Corpus) -> tuple[Model, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    return trained(corpus, "nar", recipe("first_nar", "train.steps=280"), on_row=rows.append), rows


def test_it_learns_and_is_measured(refined: tuple[Model, list[dict[str, Any]]], corpus: Corpus) -> None:
    model, rows = refined
    assert isinstance(second_of(model), Refiner) and rows[-1]["refined_loss"] < 0.5 < rows[0]["refined_loss"]
    assert set(rows[-1]["loss_by_stream"]) >= {"codes.0", "codes.1", "codes.2"} and rows[-1]["bits_per_second"]["codes"]
    for row in rows:
        compare("metrics.jsonl", set(keys(row)), missing=("learning_rate",))
    folder = corpus.root / "nar/model/modules"
    compare("modules/second_pass.json", json_keys(folder / "second_pass.json"))
    model.save(corpus.root / "again")
    assert same(model, Model.load(corpus.root / "again"))
    assert same(model, model_at(list_checkpoints(corpus.root / "nar/checkpoints")[-1]))


def test_answers_have_the_codes_that_first_codebook_and_voice_decide(
    refined: tuple[Model, list[dict[str, Any]]],
) -> None:
    model, right = refined[0], list[np.ndarray]()
    asked = requests()
    alone = [model.answer(one) for one, _ in asked]
    for result, (_, voice) in zip(alone, asked):
        codes = codes_in(result)
        assert len(codes) and (codes >= 0).all() and result.audio is not None and len(result.audio)
        right.append(codes == spoken(codes[:, 0], voice))
    assert np.concatenate(right)[:, 1:].mean(0).min() > 0.9
    together = dict(model.answer_many([one for one, _ in asked]))
    for place, result in enumerate(alone):
        other = together[place]
        assert isinstance(other, Result) and np.array_equal(codes_in(other), codes_in(result))
    told = [chunk.result for chunk in model.stream(asked[0][0])][-1]
    assert told is not None and np.array_equal(codes_in(told), codes_in(alone[0]))


def test_a_voice_that_is_continued_is_the_prompt(refined: tuple[Model, list[dict[str, Any]]]) -> None:
    """`voice_text`: the answer goes on behind the prompt's codes, which are no part of it."""
    model, rng, right = refined[0], np.random.default_rng(5), list[np.ndarray]()
    for voice in VOICES * 4:
        said, text = " ".join(rng.choice(WORDS[:12], 2)), " ".join(rng.choice(WORDS[:12], 2))
        prompt = spoken(first_codes(said), voice)
        codes = codes_in(model.answer(Request(task="vtts", source="en", text=text, voice=prompt, voice_text=said)))
        assert (codes >= 0).all()
        right.append(codes[:, 1:] == spoken(codes[:, 0], voice)[:, 1:])
    assert np.concatenate(right).mean() > 0.9


def test_held_out_codes_of_a_second_pass_are_scored(
    refined: tuple[Model, list[dict[str, Any]]], corpus: Corpus
) -> None:
    """What a voice tells costs little behind one; without it a codebook that no text tells is a guess among voices."""
    model = refined[0]
    shards = open_shards(corpus.root / "shards").folders[0].shards
    run = Evaluation(model=model, shards=shards, split="train")
    told, guessed = (token_documents(run, key, shards, 24) for key in ("vtts.voice", "vtts"))
    sums = slot_sums(model, told)
    apart = [slot_sums(model, [one]) for one in told]
    for name in ("codes.1", "codes.2"):
        assert sums[name] == pytest.approx(np.sum([one[name] for one in apart], axis=0), rel=1e-4)
    said = sum(np.count_nonzero(one.loss_weight[one.frames.index]) for one in told if one.frames is not None)
    assert sums["codes.1"][1] == sums["codes.2"][1] == said
    means, without = slot_means(model, told), slot_means(model, guessed)
    assert max(means.values()) < 0.4 and without["codes.1"] > 0.7 and without["codes.2"] < 0.4
    put_token_scores(run, "vtts.voice", told)
    found = run.metrics["tokens"]["vtts"]["voice"]["by_stream"]["codes"]
    assert found.keys() == {"0", "1", "2"} and found["1"]["ppl"] == pytest.approx(np.exp(means["codes.1"]))


def first_batches(model: Model, corpus: Corpus, *, rank: int = 0, world_size: int = 1) -> list[TokenBatch]:
    """The batches of the first two packs that a process gets, of speech and of recognition."""
    mixture = Mixture(tasks={"vtts.voice": 1.0, "vtts": 1.0, "lm": 1.0})
    source = ExampleSource(open_shards(corpus.root / "shards"), model.vocabulary, mixture, seed=4)
    config = TrainConfig(steps=1, pack_size=640, packs_per_step=2, window=64, seed=4)
    batches = TokenBatches(source, config, None, TrainedPass(second=second_of(model)))
    (made, _) = next(batches.steps(DataState(), rank=rank, world_size=world_size, pin=False))
    return made


def test_packs_give_the_spans_of_their_documents(corpus: Corpus) -> None:
    """Whole codes, stages that no number of processes changes, and as many labels as losses are of."""
    model = trained(corpus, "begun", recipe("first_nar", "train.steps=1"))
    second, both, stages = second_of(model), first_batches(model, corpus), list[int]()
    halves = [first_batches(model, corpus, rank=rank, world_size=2)[0] for rank in (0, 1)]
    for batch, half in zip(both, halves, strict=True):
        found, other = batch.finished, half.finished
        assert isinstance(found, PassBatch) and isinstance(other, PassBatch) and found.spans.stages is not None
        for name in ("conditions", "prompt", "codes", "bounds", "stages"):
            assert torch.equal(getattr(found.spans, name), getattr(other.spans, name)), name
        shift = (found.spans.codes[:, 1] - found.spans.codes[:, 0]) % 8
        assert all(len(set(one.tolist())) <= 1 for one in shift.split(found.spans.bounds.diff().tolist()))
        stages += found.spans.stages.tolist()
        objective = TokenObjective(decoder=model.decoder, layout=model.layout, second=second)
        with torch.no_grad():
            losses = objective.losses(batch)
        assert objective.counts(batch)["refined"] == len(found.spans.codes) and losses.slots is not None
        assert losses.slots.weight[list(refined_slots(second.pattern))].sum() == len(found.spans.codes)
        assert float(losses.terms["refined"]) == pytest.approx(float(losses.slots.total.sum()))
        none = replace(batch, finished=None)
        assert objective.counts(none)["refined"] == 0 == float(objective.losses(none).terms["refined"])
    assert set(stages) == {0, 1}
    begun = [int(one) for batch in both if batch.finished for one in batch.finished.spans.prompt_bounds.diff()]
    assert 0 in begun and len(set(begun)) > 2


def test_a_run_that_stopped_ends_where_another_does(corpus: Corpus) -> None:
    for layout in ("first_nar", "first_regress"):
        made = recipe(layout, "train.steps=6", "train.checkpoint_every=3", "train.optim.schedule=constant")
        trained(corpus, f"{layout}-parts", replace(made, train=replace(made.train, steps=3)))
        parts, whole = (trained(corpus, f"{layout}-{one}", made) for one in ("parts", "whole"))
        assert second_of(parts).name == layout and same(whole, parts)


def test_a_second_pass_that_there_is_not_and_one_of_another_shape_are_refused(corpus: Corpus) -> None:
    with pytest.raises(InputError, match=r"model\.second_layers is 2, and this layout leaves nothing"):
        made = load_recipe("tiny", [*SETS, "model.layout=group", "model.frames=2", "model.refined=false"])
        trained(corpus, "unrefined", made)
    trained(corpus, "short", recipe("first_nar", "train.steps=1"))
    with pytest.raises(InputError, match=r"model\.second_layers is 3.*a start keeps its own"):
        more = recipe("first_nar", "train.steps=1", "model.second_layers=3")
        trained(corpus, "other", more, start=corpus.root / "short/model")
    for name in ("second_width=33", "second_heads=3"):
        with pytest.raises(InputError, match=r"second pass 'first_nar', its decoder \(model\.second_…\)"):
            trained(corpus, "narrow", recipe("first_nar", f"model.{name}"))


def test_an_edit_by_latents_holds_what_stands_around_it(corpus: Corpus) -> None:
    made = recipe("first_regress", "train.steps=8", "mixture={only: {edit: 1}}")
    model = trained(corpus, "edited", made)
    whole = spoken(first_codes(" ".join(WORDS[:6])), "ann")
    text = Span("text", model.tokenizers.text.encode(WORDS[0]))
    plan = SequenceSpec("edit", "en", conditions=(text, Span("codes", whole[:4]), Span("codes", whole[8:])))
    (result,) = model.run([PromptRequest(plan=plan)])
    codes = codes_in(result)
    assert result.latents is not None and len(result.latents) == len(codes) > len(whole) - 4
    for part, place in ((whole[:4], slice(0, 4)), (whole[8:], slice(len(codes) - len(whole) + 8, None))):
        np.testing.assert_allclose(result.latents[place], corpus.codec.latents(part), atol=1e-6)


def test_latents_are_found(corpus: Corpus) -> None:
    model = trained(corpus, "regress", recipe("first_regress", "train.steps=120"))
    second = second_of(model)
    assert isinstance(second, Regression) and same(model, Model.load(corpus.root / "regress/model"))
    assert same(model, model_at(list_checkpoints(corpus.root / "regress/checkpoints")[-1]))
    asked, errors = requests(12), list[np.ndarray]()
    for request, voice in asked:
        result = model.answer(request)
        codes, latents = codes_in(result), result.latents
        assert latents is not None and len(latents) == len(codes) and (codes[:, 1:] == ABSENT).all()
        assert result.audio is not None and len(result.audio)
        wanted = corpus.codec.latents(spoken(codes[:, 0], voice))
        errors.append((latents - wanted) / second.range.deviation.numpy())
    assert np.abs(np.concatenate(errors)).mean() < 0.3
