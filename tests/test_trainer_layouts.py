"""Layouts of codebooks from shards to loss: documents, packs, slot losses, exact resume, figures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import toy_shards
from tests.support.launching import ranks
from tests.support.toy_shards import ToyShards
from tests.test_trainer_loop import CONFIG, MIXTURE, equal
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.layouts.base import CodebookLayout
from unitok.layouts.registry import layout_pattern, make_layout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.data.batch import Pack, collate
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import DataState, PackStream
from unitok_training.objectives.base import TOKENS
from unitok_training.objectives.pack_losses import supervised_positions
from unitok_training.objectives.slot_losses import framed_states, slot_counts, slot_losses
from unitok_training.objectives.tokens import TokenBatch, TokenObjective
from unitok_training.shard_set import ShardFolder, ShardSet
from unitok_training.trainer.config import DecoderTuning, PartTuning, TrainConfig
from unitok_training.trainer.decoder import train
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics

SMALL: dict[str, Any] = {"decoder": {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1}}
TWO_PASSES = FramePattern(layout="coarse_fine", stream="codes", cardinalities=(8, 8), inline=(0, 1), coarse=1)
SPOKEN = Mixture(tasks={"tts.codes": 1.0, "s2st": 1.0, "asr": 1.0})


def options(name: str) -> dict[str, Any]:
    return {"depth": SMALL, "group": {"refined": False}}.get(name, {})


def pattern_of(name: str) -> FramePattern:
    return TWO_PASSES if name == "coarse_fine" else layout_pattern(name, toy_shards.streams()["codes"], options(name))


def vocabulary_of(name: str) -> Vocabulary:
    text, *others = toy_shards.streams().values()
    return Vocabulary.build(text=text, streams=others, languages=("de", "en"), layouts={"codes": pattern_of(name)})


def source_of(vocabulary: Vocabulary, **changes: Any) -> ExampleSource:
    shards: Any = ToyShards(toy_shards.corpus())
    return ExampleSource(shards, vocabulary, SPOKEN, seed=5, options=ExampleOptions(**changes))


def module(name: str = "depth", seed: int = 0) -> CodebookLayout:
    generator = torch.Generator().manual_seed(seed)
    return make_layout(pattern_of(name), width=32, options=options(name), generator=generator)


def decoder(vocabulary: Vocabulary, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    return Decoder(DecoderConfig(vocab_size=vocabulary.size, width=32, layers=2, heads=2, kv_heads=1))


def run(out: Path, config: TrainConfig = CONFIG, seed: int = 0, **more: Any) -> tuple[Decoder, CodebookLayout]:
    vocabulary = vocabulary_of("depth")
    model, layout = decoder(vocabulary, seed), module(seed=seed)
    shards: Any = ToyShards([*toy_shards.corpus(), *toy_shards.corpus(2, split="dev")])
    train(config, model, shards, vocabulary, out, mixture=MIXTURE, layout=layout, **more)
    return model, layout


# -- documents and packs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coarse_fine", "depth", "delay", "group", "channels"])
def test_examples_say_the_same_in_every_layout(name: str) -> None:
    """As `render` makes them of what the flat ones say; ids of codes weigh what they weigh there."""
    flat, laid = source_of(toy_shards.vocabulary(), codes_weight=3.0), source_of(vocabulary_of(name), codes_weight=3.0)
    for index in range(40):
        found, plan = laid.document(index), flat.plan(index)
        wanted = render(plan, laid.vocabulary)
        assert np.array_equal(found.ids, wanted.ids) and laid.plan(index) == plan
        assert np.array_equal(found.loss_weight > 0, wanted.loss_weight > 0)
        assert (found.frames is None) == (wanted.frames is None) == (name == "coarse_fine")
        if found.frames is not None and wanted.frames is not None:
            assert np.array_equal(found.frames.index, wanted.frames.index)
            assert np.array_equal(found.frames.slots, wanted.frames.slots)
            learnt = found.loss_weight[found.frames.index]
            assert set(learnt.tolist()) <= {0.0, 3.0}
        assert found.prefix_length == wanted.prefix_length


def test_several_folders_of_shards_are_laid_in_the_order_of_their_ids() -> None:
    vocabulary = vocabulary_of("depth")
    halves = [ToyShards(toy_shards.corpus(4)), ToyShards(toy_shards.corpus(8)[16:])]
    folders = ShardSet.of([ShardFolder(shards=half) for half in halves])
    source = ExampleSource(folders, vocabulary, SPOKEN, seed=5)
    drawn = source.documents(np.arange(30))
    whole = drawn.frames(np.arange(30))
    alone, behind = [], 0
    for number in range(30):
        found = drawn.frames(np.array([number]))
        assert found is not None
        alone.append(found.shifted(behind))
        behind += int(drawn.lengths[number])
    assert whole is not None and np.array_equal(whole.index, np.concatenate([one.index for one in alone]))
    assert np.array_equal(whole.slots, np.concatenate([one.slots for one in alone]))


@pytest.mark.parametrize("name", ["depth", "delay"])
def test_packs_hold_slots_where_their_ids_are(name: str) -> None:
    vocabulary = vocabulary_of(name)
    source = source_of(vocabulary)
    stream = PackStream(source.documents, capacity=200, window=32, seed=3, pad=vocabulary.pad)
    packs, _ = next(stream.steps(DataState(), packs_per_step=4))
    seen = 0
    for pack in packs:
        assert pack.frame_index is not None and pack.slots is not None and pack.frame_weight is not None
        seen += len(pack.frame_index)
        starts = pack.cu_seqlens.tolist()
        for begin, end in list(zip(starts, starts[1:]))[: pack.num_documents]:
            own = (pack.frame_index >= begin) & (pack.frame_index < end)
            frames = Frames((pack.frame_index[own] - begin).numpy(), pack.slots[own].numpy())
            assert parse(pack.ids[begin:end].numpy(), vocabulary, frames).complete
        # What predicts a position weighs what predicts its id.
        assert torch.equal(pack.frame_weight, pack.loss_weight[pack.frame_index - 1])
    assert seen > 50


def test_flat_packs_have_none() -> None:
    vocabulary = toy_shards.vocabulary()
    stream = PackStream(source_of(vocabulary).documents, capacity=200, window=32, seed=3, pad=vocabulary.pad)
    (pack,), _ = next(stream.steps(DataState(), packs_per_step=1))
    assert pack.frame_index is None and pack.slots is None and pack.frame_weight is None


def test_longest_examples_are_counted_as_they_are_laid() -> None:
    flat, laid = source_of(toy_shards.vocabulary()), source_of(vocabulary_of("depth"))
    task = flat.keys.index("tts.codes")
    assert (laid.most_ids(task) < flat.most_ids(task)).all()
    longest = max(len(laid.document(index).ids) for index in range(200))
    assert longest <= max(int(laid.most_ids(number).max()) for number in range(len(laid.keys)))


# -- losses ---------------------------------------------------------------------------------------------------------


def pack_of(vocabulary: Vocabulary, count: int = 6) -> Pack:
    source = source_of(vocabulary)
    documents = [source.document(index) for index in range(count)]
    return collate(documents, capacity=600, pad=vocabulary.pad)


def batch_of(pack: Pack) -> TokenBatch:
    return TokenBatch(pack=pack, supervised=supervised_positions(pack))


@pytest.mark.parametrize("name", ["depth", "delay", "channels"])
def test_losses_are_those_of_documents_alone(name: str) -> None:
    """Packed = one by one: neither ids nor codes of a document know another."""
    vocabulary = vocabulary_of(name)
    objective = TokenObjective(decoder=decoder(vocabulary), layout=module(name))
    source = source_of(vocabulary)
    documents = [source.document(index) for index in range(6)]
    whole = batch_of(collate(documents, capacity=600, pad=vocabulary.pad))
    alone = [batch_of(collate([one], capacity=len(one.ids), pad=vocabulary.pad)) for one in documents]
    with torch.no_grad():
        together, parts = objective.losses(whole), [objective.losses(one) for one in alone]
    assert set(together.terms) == {TOKENS, "codes"}
    for term in together.terms:
        assert float(together.terms[term]) == pytest.approx(sum(float(one.terms[term]) for one in parts), rel=1e-4)
    counts = [objective.counts(one) for one in alone]
    assert objective.counts(whole) == {term: sum(one[term] for one in counts) for term in together.terms}
    assert together.slots is not None
    assert float(together.slots.weight.sum()) == objective.counts(whole)["codes"]


def test_codes_change_what_follows_and_nothing_before() -> None:
    vocabulary, layout = vocabulary_of("depth"), module()
    model, pack = decoder(vocabulary), pack_of(vocabulary, 1)
    assert pack.slots is not None and pack.frame_index is not None
    with torch.no_grad():
        before = framed_states(model, layout, pack).hidden
        other = pack.slots.clone()
        other[2] = (other[2] + 1) % 8
        after = framed_states(model, layout, replace(pack, slots=other)).hidden
    place = int(pack.frame_index[2])
    changed = (before - after).abs().amax(1) > 1e-7
    assert not changed[:place].any() and changed[place : pack.used].all()


def test_given_codes_cost_nothing_and_slots_weigh_as_they_say() -> None:
    vocabulary = vocabulary_of("depth")
    pack = pack_of(vocabulary)
    assert pack.frame_weight is not None and pack.slots is not None
    given = replace(pack, frame_weight=torch.zeros_like(pack.frame_weight))
    layout, model = module(), decoder(vocabulary)
    found = slot_losses(layout, framed_states(model, layout, given), given)
    assert not found.total.any() and slot_counts(layout.pattern, given) == {"codes": 0}
    slot = replace(layout.pattern.slots[0], weight=4.0, group="later")
    layout.pattern = heavy = replace(layout.pattern, slots=(slot,))
    objective = TokenObjective(decoder=model, layout=layout)
    with torch.no_grad():
        losses = objective.losses(batch_of(pack))
    assert losses.slots is not None and objective.weights == {TOKENS: 1.0, "later": 1.0}
    assert float(losses.terms["later"]) == pytest.approx(4 * float(losses.slots.total.sum()))
    assert slot_counts(heavy, pack)["later"] == 4 * int((pack.frame_weight > 0).sum())
    with pytest.raises(InputError, match="loss group 'tokens'"):
        layout.pattern = replace(heavy, slots=(replace(slot, group=TOKENS),))
        _ = objective.weights


# -- training -------------------------------------------------------------------------------------------------------


def test_a_run_learns_codes_and_says_how_well(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    config = replace(CONFIG, steps=20, log_every=5, eval_every=10, eval_batches=2)
    run(tmp_path, config, on_row=rows.append)
    assert rows[-1]["codes_loss"] < rows[0]["codes_loss"] and rows[-1]["loss"] < rows[0]["loss"]
    for row in rows:
        by_stream = row["loss_by_stream"]
        assert {"text", "units", "codes.0", "codes.1", "control"} == set(by_stream)
        assert by_stream["codes.1"] == pytest.approx(row["codes_loss"], rel=1e-5)
        bits = (by_stream["codes.0"] + by_stream["codes.1"]) * float(toy_shards.FRAME_RATE) / math.log(2)
        assert row["bits_per_second"] == {"codes": pytest.approx(bits)}
    validated = [row for row in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert len(validated) == 2 and "codes_loss" in validated[0] and "bits_per_second" in validated[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16-pure"])
def test_a_resumed_run_with_a_layout_equals_an_uninterrupted_one(tmp_path: Path, precision: str) -> None:
    tuning = DecoderTuning(layout=PartTuning(learning_rate=5e-3))
    config = replace(CONFIG, precision=precision, optim=replace(CONFIG.optim, name="muon"))
    rows: list[dict[str, Any]] = []
    whole = run(tmp_path / "whole", config, tuning=tuning, on_row=rows.append)
    assert set(rows[0]["learning_rate"]) == {"decoder", "layout"}
    run(tmp_path / "parts", config, tuning=tuning, stop_after=3)
    parts = run(tmp_path / "parts", config, seed=6, tuning=tuning)
    assert equal(whole[0], parts[0])
    ours, theirs = whole[1].state_dict(), parts[1].state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    found = read_checkpoint(tmp_path / "whole/checkpoints/step_00000008")
    assert {f"layout|{name}" for name, _ in whole[1].named_parameters()} < set(found.model)
    assert found.state["settings"]["layout"]["pattern"]["layout"] == "depth"


def test_packs_of_a_step_are_one_loss_over_all_their_codes(tmp_path: Path) -> None:
    """What the trainer divides by: the codes of both packs together, however many each has."""
    vocabulary = vocabulary_of("depth")
    objective = TokenObjective(decoder=decoder(vocabulary), layout=module())
    rows: list[dict[str, Any]] = []
    config = replace(CONFIG, steps=1, log_every=1, optim=replace(CONFIG.optim, learning_rate=1e-12))
    run(tmp_path, config, on_row=rows.append)
    shards: Any = ToyShards([*toy_shards.corpus(), *toy_shards.corpus(2, split="dev")])
    drawn = ExampleSource(shards, vocabulary, MIXTURE, seed=CONFIG.seed)
    stream = PackStream(drawn.documents, capacity=256, window=64, seed=CONFIG.seed, pad=vocabulary.pad)
    packs, _ = next(stream.steps(DataState(), packs_per_step=2))
    with torch.no_grad():
        found = [objective.losses(batch_of(one)).terms for one in packs]
    counts = [objective.counts(batch_of(one)) for one in packs]
    wanted = sum(sum(float(one[name]) for one in found) / sum(one[name] for one in counts) for name in found[0])
    assert rows[0]["objective"] == pytest.approx(wanted, rel=1e-5)
    assert counts[0]["codes"] != counts[1]["codes"]


def test_what_a_layout_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.shard"):
        run(tmp_path, replace(CONFIG, shard=True))
    with pytest.raises(InputError, match=r"tuning\.layout\.lora_rank"):
        DecoderTuning(layout=PartTuning(full=False, lora_rank=2))


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests.test_trainer_layouts import run
from tests.test_trainer_loop import CONFIG
from unitok_training.trainer.distributed import world_from_environment

torch.set_num_threads(1)
with world_from_environment("cpu") as world:
    run(Path(sys.argv[1]), replace(CONFIG, steps=3, packs_per_step=4, log_every=1), seed=world.rank, world=world)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Codes are counted over all processes, however many each has; the layout's weights are the first one's."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    for name, processes in (("one", 1), ("two", 2)):
        done = ranks([str(script), str(tmp_path / name)], processes)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("one", "two"))
    for alone, shared in zip(one, two, strict=True):
        for key in ("loss", "objective", "gradient_norm", "codes_loss", "loss_by_stream", "bits_per_second"):
            assert shared[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-5), key
    first, second = (read_checkpoint(tmp_path / name / "checkpoints/step_00000003") for name in ("one", "two"))
    for name, value in first.model.items():
        torch.testing.assert_close(second.model[name], value, rtol=1e-3, atol=1e-4)
