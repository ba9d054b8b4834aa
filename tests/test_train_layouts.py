"""A recipe's layout from shards to a model directory and out again: `unitok train` with codes beside ids.

Run alone with `pytest tests/test_train_layouts.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.recordings import write_pairs
from tests.support.tiny_model import tokenizers
from tests.test_formats import compare, json_keys, keys
from unitok.decoder.lora import lora_config
from unitok.decoder.model import pack_documents
from unitok.export import export_hf, import_hf
from unitok.generation.sampling import GREEDY, Sampling
from unitok.layouts.base import CodebookLayout
from unitok.model import Model
from unitok.requests.request import GenerationConfig, Request
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.files import list_checkpoints
from unitok_training.evaluation.run import Evaluation
from unitok_training.evaluation.tokens import put_token_scores, slot_means, token_documents
from unitok_training.recipes.decoder import DecoderRecipe, load_recipe
from unitok_training.recipes.layout import ModelChoice
from unitok_training.run_models.checkpoint import model_at
from unitok_training.shard_set import open_shards
from unitok_training.train import train_model
from unitok_training.trainer.config import DecoderTuning, DistillConfig, PartTuning

DEPTH = ("layout=depth", "depth_layers=1", "depth_width=32", "depth_heads=2", "depth_kv_heads=1")
SMALL = ("steps=20", "pack_size=512", "window=64", "log_every=5", "checkpoint_every=10", "optim.schedule=constant")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with codes of three codebooks, and their tokenizers."""
    place = tmp_path_factory.mktemp("layouts")
    prepare_shards(read_manifest(write_pairs(place)), tokenizers(), place / "shards")
    tokenizers().save(place / "tokenizers")
    return place


def recipe(*changes: str, model: tuple[str, ...] = DEPTH) -> DecoderRecipe:
    sets = [f"train.{one}" for one in (*SMALL, *changes)]
    return load_recipe("tiny", [*sets, *(f"model.{one}" for one in model), "mixture.tts.codes=2"])


def trained(root: Path, out: Path, made: DecoderRecipe, **more: Any) -> Model:
    given: dict[str, Any] = {} if "start" in more else {"tokenizers": root / "tokenizers"}
    train_model(made, shards=root / "shards", out=out, **{**given, **more})
    return Model.load(out / "model")


def layout_of(model: Model) -> CodebookLayout:
    found = model.parts["layout"]
    assert isinstance(found, CodebookLayout)
    return found


def same(one: Model, other: Model) -> bool:
    pairs = [(one.decoder, other.decoder), (layout_of(one), layout_of(other))]
    return all(
        torch.equal(value, theirs.state_dict()[name])
        for ours, theirs in pairs
        for name, value in ours.state_dict().items()
    )


@pytest.fixture(scope="module")
def run(root: Path) -> tuple[Path, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    trained(root, root / "run", recipe(), on_row=rows.append)
    return root / "run", rows


def test_it_trains_is_saved_and_opened(run: tuple[Path, list[dict[str, Any]]], root: Path) -> None:
    out, rows = run
    assert rows[-1]["codes_loss"] < rows[0]["codes_loss"] and rows[-1]["loss"] < rows[0]["loss"]
    assert (
        set(rows[-1]["loss_by_stream"]) >= {"codes.0", "codes.1", "codes.2"} and "codes" in rows[-1]["bits_per_second"]
    )
    model = Model.load(out / "model")
    pattern = model.vocabulary.framed
    assert pattern is not None and pattern == layout_of(model).pattern and len(pattern.slots) == 2
    assert model.decoder.config.vocab_size == model.vocabulary.size
    model.save(root / "again")
    assert same(model, Model.load(root / "again"))
    compare("modules/layout.json", json_keys(root / "again/modules/layout.json"))
    compare(
        "vocabulary.json", json_keys(root / "again/vocabulary.json"), missing=("mains.<kind>", "streams[].merged_from")
    )
    for row in rows:
        compare("metrics.jsonl", set(keys(row)), missing=("learning_rate",))
    assert same(model, model_at(list_checkpoints(out / "checkpoints")[-1]))
    assert not same(model, model_at(list_checkpoints(out / "checkpoints")[0]))


def test_a_run_that_stopped_ends_where_another_does(run: tuple[Path, list[dict[str, Any]]], root: Path) -> None:
    trained(root, root / "parts", recipe("steps=10"))
    assert same(trained(root, root / "parts", recipe()), Model.load(run[0] / "model"))


def test_held_out_codes_are_scored(run: tuple[Path, list[dict[str, Any]]], root: Path) -> None:
    model = Model.load(run[0] / "model")
    scored = Evaluation(model=model, shards=open_shards(root / "shards").folders[0].shards, split="train")
    documents = token_documents(scored, "tts.codes", scored.shards, 4)
    put_token_scores(scored, "tts.codes", documents)
    found = slot_means(model, documents)
    assert set(found) == {"codes.1", "codes.2"} and all(0 < nats < 4 for nats in found.values())
    alone = [slot_means(model, [one]) for one in documents]
    frames = [len(one.frames) for one in documents if one.frames is not None]
    assert len(frames) == len(documents) and all(set(one) == set(found) for one in alone)


def test_the_core_opens_in_stock_transformers_with_equal_hidden_states(
    run: tuple[Path, list[dict[str, Any]]], root: Path
) -> None:
    """`core/` knows nothing of slots: who adds their vectors to its rows has what ours has."""
    transformers = pytest.importorskip("transformers")
    model = Model.load(run[0] / "model")
    shards = open_shards(root / "shards").folders[0].shards
    document = token_documents(Evaluation(model=model, shards=shards, split="train"), "tts.codes", shards, 1)[0]
    assert document.frames is not None and len(document.frames)
    stock = transformers.AutoModelForCausalLM.from_pretrained(run[0] / "model/core").eval()
    packed = pack_documents([document.ids], torch.device("cpu"))
    index, slots = torch.from_numpy(document.frames.index), torch.from_numpy(document.frames.slots)
    with torch.no_grad():
        rows = model.decoder.embed(packed.ids)
        vectors = rows[index] + layout_of(model).vectors(slots)
        assert float((vectors - rows[index]).abs().max()) > 1e-3
        ours = model.decoder(
            packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, vectors=vectors, vector_index=index
        )
        embeds = stock.get_input_embeddings()(packed.ids).index_copy(0, index, vectors)
        theirs = stock.model(inputs_embeds=embeds[None]).last_hidden_state[0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    export_hf(run[0] / "model", root / "exported")
    import_hf(root / "exported", root / "back")
    assert same(model, Model.load(root / "back"))


def test_what_it_says_are_frames(run: tuple[Path, list[dict[str, Any]]]) -> None:
    """From the directory, drawn and greedy, at once and as a stream."""
    model = Model.load(run[0] / "model")
    sizes = model.vocabulary.streams["codes"].cardinalities
    for seed, sampling in enumerate((GREEDY, Sampling(), Sampling())):
        config = GenerationConfig(sampling=sampling, seed=seed if sampling.temperature else 0)
        request = Request(task="tts", source="en", text="the green house", output="codes", config=config)
        found = model.answer(request)
        codes = found.outputs[-1].content
        assert found.outputs[-1].kind == "codes" and codes.shape == (len(codes), len(sizes)) and len(codes)
        assert (codes >= 0).all() and (codes < sizes).all()
        chunks = [chunk.codes for chunk in model.stream(request) if len(chunk.codes)]
        assert np.array_equal(np.concatenate(chunks), codes)


def test_a_start_keeps_its_layout(run: tuple[Path, list[dict[str, Any]]], root: Path, tmp_path: Path) -> None:
    start = run[0] / "model"
    low_rank = PartTuning(full=False, lora_rank=2)
    made = replace(recipe("steps=1", model=()), tuning=DecoderTuning(decoder=low_rank))
    more = trained(root, tmp_path / "more", made, start=start)
    assert lora_config(more.decoder) is not None
    assert more.vocabulary == Model.load(start).vocabulary and apart(more, Model.load(start)) > 1e-6
    with pytest.raises(InputError, match="lays its codes otherwise"):
        trained(root, tmp_path / "other", recipe(model=("layout=delay",)), start=start)
    for change, said in {
        "depth_layers=3": "model.depth_layers is 3",
        "state_added=true": "model.state_added is True",
    }.items():
        with pytest.raises(InputError, match=f"{said}.*a start keeps its own"):
            trained(root, tmp_path / "other", recipe(model=("layout=depth", change)), start=start)
    slow = recipe("steps=1", "optim.learning_rate=1e-12")
    fresh = trained(root, tmp_path / "fresh", slow)
    begun = trained(root, tmp_path / "begun", slow, start=run[0] / "checkpoints", tokenizers=root / "tokenizers")
    assert apart(fresh, Model.load(start)) > 1e-3 > 1e-6 > apart(begun, Model.load(start))


def apart(one: Model, other: Model) -> float:
    """Largest difference of a layout's weight."""
    pairs = zip(layout_of(one).parameters(), layout_of(other).parameters())
    return max(float((value - theirs).detach().abs().max()) for value, theirs in pairs)


def test_two_passes_need_no_module(root: Path, tmp_path: Path) -> None:
    model = trained(root, tmp_path / "run", recipe("steps=2", model=("layout=coarse_fine", "coarse=2")))
    assert model.parts == {} and model.vocabulary.framed is None
    assert model.vocabulary.patterns["codes"].coarse == 2
    found = model.generate("tts", source="en", text="the green house", flags=("<out:codes>",)).outputs[-1]
    assert found.kind == "codes" and found.content.shape[1] == 3


def test_a_directory_whose_parts_are_of_two_models_is_refused(
    run: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    model = Model.load(run[0] / "model")
    model.parts = {}
    model.save(tmp_path / "bare")
    with pytest.raises(InputError, match=r"no layout in modules/, 'depth' in vocabulary\.json"):
        Model.load(tmp_path / "bare")


def test_options_are_of_their_layout(run: tuple[Path, list[dict[str, Any]]], root: Path) -> None:
    for changes, said in {
        ("layout=dept",): "choose from flat, coarse_fine, depth",
        ("depth_layers=2",): r"model\.depth_layers is of the layout depth, not of 'flat'",
        ("layout=coarse_fine", "coarse=3"): "not all",
        ("layout=group", "frames=1"): "2 or more",
        ("layout=group", "frames=2147483647"): "from 1 to 64",
        ("layout=depth", "depth_heads=0"): r"model\.depth_heads is 0",
        ("layout=depth", "depth_width=0"): r"model\.depth_width is 0",
    }.items():
        with pytest.raises(InputError, match=said):
            trained(root, root / "never", recipe(model=changes))
    assert ModelChoice() == load_recipe("tiny").model
    for mixture in ("mixture.tts.codes=0", "mixture={only: {asr: 1}}"):
        with pytest.raises(InputError, match=r"no task of the mixture has codes to learn it from \(.*asr.*\); add one"):
            trained(root, root / "never", load_recipe("tiny", [f"model.{DEPTH[0]}", mixture]))
    flat = recipe("steps=1", model=())
    idle = replace(flat, tuning=replace(flat.tuning, layout=PartTuning(learning_rate=1e-3)))
    with pytest.raises(InputError, match=r"tuning\.layout: this model has no codes beside its ids"):
        trained(root, root / "never", idle)
    taught = recipe("steps=1")
    taught = replace(taught, distill=DistillConfig(teacher=str(root / "run/model")))
    with pytest.raises(InputError, match=r"distill\.teacher: codes beside ids"):
        trained(root, root / "taught", taught)
