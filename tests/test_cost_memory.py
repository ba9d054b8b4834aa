"""The plan before a run: predicted memory against measured, alternatives that fit, refusals that name one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unitok.cli.main import main
from unitok.decoder.lora import TARGETS, LoraConfig, add_lora
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_tokenizers.compute import native_bfloat16, resolve
from unitok_tokenizers.errors import InputError
from unitok_training.cost.advice import check_fits, communication_bytes, options, step_seconds
from unitok_training.cost.devices import GPUS, Device, named_device
from unitok_training.cost.measure import prepared
from unitok_training.cost.memory import memory, peak_bytes
from unitok_training.cost.step import (
    Setup,
    block_parameters,
    frozen_parameters,
    lora_parameters,
    parameters,
    setup_of,
    step_flops,
    trained_parameters,
    tuned_otherwise,
)
from unitok_training.data.batch import collate
from unitok_training.data.documents import Document
from unitok_training.objectives.pack_losses import pack_losses, supervised_positions
from unitok_training.recipes.decoder import PRESETS
from unitok_training.train import check_memory
from unitok_training.trainer.config import FROZEN, DecoderTuning, PartTuning, TableTuning
from unitok_training.trainer.distributed import World
from unitok_training.trainer.overlap import BUCKET_BYTES, UNDER_WAY
from unitok_training.trainer.setup import decoder_part

NARROW = DecoderConfig(vocab_size=1000, width=64, layers=3, heads=4, kv_heads=2)
WIDE = DecoderConfig(vocab_size=4000, width=256, layers=2, heads=4, kv_heads=2, qk_norm=True)
WIDEST = DecoderConfig(vocab_size=1000, width=1024, layers=2, heads=8, kv_heads=8)
SETUP = Setup(config=NARROW, pack_size=1024, document=128)


def multiplied_here(setup: Setup) -> Setup:
    """In float32 where the machine would multiply wide matrices of bfloat16 eighty times more slowly.

    What is predicted differs by precision, and machines with such units measure all as they stand; the narrow ones
    hold for bfloat16 on either kind.
    """
    wide = max(setup.config.width, 0 if setup.teacher is None else setup.teacher.width) > NARROW.width
    slow = wide and setup.precision != "fp32" and not native_bfloat16(torch.device("cpu"))
    return replace(setup, precision="fp32") if slow else setup


def measured_peak(setup: Setup) -> int:
    """Bytes of tensors at the peak of a real update, the second one: weights, optimizer state and all in between."""
    step = prepared(setup)
    step.update()
    return step.held_bytes() + peak_bytes(step.update)


@pytest.mark.parametrize(
    "setup",
    [
        SETUP,
        replace(SETUP, precision="fp32"),
        replace(SETUP, precision="bf16-pure"),
        replace(SETUP, packs=2, loss_chunk=128),
        replace(SETUP, document=512),
        replace(SETUP, config=replace(NARROW, layers=6), recompute_blocks=6),
        replace(SETUP, config=replace(NARROW, layers=6), recompute_blocks=3, precision="fp32"),
        replace(SETUP, config=replace(NARROW, layers=6), recompute_blocks=6, keep_products=True),
        replace(SETUP, config=replace(NARROW, layers=6), recompute_blocks=4, keep_products=True, precision="fp32"),
        replace(SETUP, config=replace(WIDE, layers=4), recompute_blocks=4, keep_products=True, document=512),
        replace(SETUP, config=WIDE, pack_size=512),
        replace(SETUP, config=replace(NARROW, qk_norm=True), precision="fp32"),
        replace(SETUP, lora_rank=8, precision="fp32"),
        replace(SETUP, lora_rank=4, config=replace(WIDE, layers=4)),
        replace(SETUP, lora_rank=8, config=replace(NARROW, layers=6), recompute_blocks=6, precision="fp32"),
        replace(SETUP, lora_rank=8, lora_targets=("q", "v"), precision="fp32"),
        replace(SETUP, lora_rank=4, lora_targets=("q", "v"), config=replace(WIDE, layers=4)),
        replace(SETUP, lora_rank=4, lora_targets=("k", "out", "down"), precision="fp32"),
        replace(SETUP, lora_rank=8, frozen_embeddings=False, precision="fp32"),
        replace(SETUP, lora_rank=8, lora_targets=("q", "v"), frozen_embeddings=False, config=replace(WIDE, layers=4)),
        replace(SETUP, lora_rank=8, frozen_embeddings=False, precision="bf16-pure", packs=2),
        replace(SETUP, frozen_blocks=True, precision="fp32"),
        replace(SETUP, frozen_blocks=True, config=replace(WIDE, layers=4)),
        replace(SETUP, frozen_embeddings=True, precision="fp32"),
        replace(SETUP, frozen_embeddings=True, config=WIDE, packs=2),
        replace(SETUP, precision="fp32", teacher=replace(WIDE, vocab_size=1000)),
        replace(SETUP, config=WIDE, pack_size=512, teacher=replace(WIDE, width=512), packs=2),
        replace(SETUP, precision="bf16-pure", loss_chunk=64, teacher=WIDEST, config=replace(WIDE, vocab_size=1000)),
        replace(SETUP, precision="fp32", pack_size=4096, teacher=WIDEST),
    ],
    ids=[
        "bf16",
        "fp32",
        "bf16-pure",
        "two packs, small chunks",
        "long documents",
        "recomputed",
        "half recomputed",
        "products kept",
        "products of some kept, fp32",
        "products kept, wide, long documents",
        "wide, many ids",
        "qk_norm, fp32",
        "low-rank updates, fp32",
        "low-rank updates, wide",
        "low-rank updates, recomputed",
        "updates of attention, fp32",
        "updates of attention, wide",
        "updates of some matrices",
        "low-rank updates and embeddings, fp32",
        "updates of attention and embeddings, wide",
        "low-rank updates and embeddings, bf16-pure",
        "frozen blocks, fp32",
        "frozen blocks, wide",
        "frozen embeddings, fp32",
        "frozen embeddings, two packs",
        "a teacher, fp32",
        "a teacher, two packs",
        "a teacher, bf16-pure, small chunks",
        "a teacher that takes more than its student, fp32",
    ],
)
def test_the_predicted_peak_is_within_a_tenth_of_the_measured_one(setup: Setup) -> None:
    setup = multiplied_here(setup)
    assert memory(setup).peak == pytest.approx(measured_peak(setup), rel=0.10)


def test_peak_bytes_counts_what_is_alive_at_once() -> None:
    def work() -> None:
        for _ in range(3):
            first = torch.zeros(1 << 20)
            second = first + 1
            del first, second

    assert peak_bytes(work) == pytest.approx(2 * 4 * (1 << 20), rel=0.01)


@pytest.mark.parametrize(
    "config",
    [NARROW, WIDE, replace(NARROW, attention_bias=True, tied=False, head_size=8)],
    ids=["llama", "qwen3", "odd"],
)
def test_parameters_are_those_of_the_decoder(config: DecoderConfig) -> None:
    model = Decoder(config)
    assert parameters(config) == sum(value.numel() for value in model.parameters())
    assert block_parameters(config) == sum(value.numel() for value in model.blocks[0].parameters())
    setup = Setup(config=config, precision="fp32")
    tables = model.embedding.numel() + (0 if model.head is None else model.head.numel())
    assert trained_parameters(replace(setup, frozen_blocks=True)) == tables
    assert trained_parameters(replace(setup, frozen_embeddings=True)) == parameters(config) - tables
    for targets in (TARGETS, ("q", "v"), ("out", "up", "down")):
        updated = Decoder(config)
        add_lora(updated, LoraConfig(rank=3, targets=targets))
        moving = sum(value.numel() for value in updated.parameters() if value.requires_grad)
        low = replace(setup, lora_rank=3, lora_targets=targets)
        assert moving == lora_parameters(config, 3, targets) == trained_parameters(low)
        assert frozen_parameters(low) == parameters(config)
        both = replace(low, frozen_embeddings=False)
        assert trained_parameters(both) == moving + tables and frozen_parameters(both) == parameters(config) - tables


def test_flops_are_those_that_torch_counts_for_the_products() -> None:
    """One document, float32, all positions supervised: torch's counter sees the products of the same step."""
    from torch.utils.flop_counter import FlopCounterMode

    setup = Setup(config=NARROW, pack_size=64, document=64, precision="fp32", supervised_share=1.0)
    model = Decoder(NARROW)
    documents = [Document(ids=np.arange(64), loss_weight=np.ones(64, np.float32), task=0)]
    pack = collate(documents, capacity=64, pad=0)
    with FlopCounterMode(display=False) as counter:
        pack_losses(model, pack, supervised_positions(pack)).total.backward()
    assert step_flops(setup) == pytest.approx(counter.get_total_flops(), rel=0.12)


def test_a_teacher_costs_its_forward_pass_and_the_students_logits_once_more() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    shape = replace(WIDE, vocab_size=1000)
    setup = Setup(
        config=NARROW, pack_size=64, document=64, precision="fp32", supervised_share=1.0, teacher=shape
    )  # fmt: skip
    step = prepared(setup)
    with FlopCounterMode(display=False) as counter:
        step.update()
    assert step_flops(setup) == pytest.approx(counter.get_total_flops(), rel=0.12)
    assert memory(replace(setup, shards=2)).weights - memory(replace(setup, shards=2, teacher=None)).weights == (
        4 * parameters(shape)
    ), "whole in every process"


def test_what_does_not_fit_is_refused_with_the_nearest_that_does() -> None:
    setup = replace(SETUP, pack_size=8192, precision="bf16-pure")
    need = memory(setup).peak
    room = Device(name="small", memory_bytes=round(0.6 * need), flops=1e12, bandwidth=1e10, link=1e9)
    with pytest.raises(InputError, match=r"needs .* GB at its peak and small has .* it fits with .*--force"):
        check_fits(setup, room)
    assert "it may run out of memory; it fits with" in check_fits(setup, room, force=True)
    first, *rest = options(setup, room)
    assert not first.fits and rest and all(option.fits for option in rest)
    assert all(option.memory.peak <= 0.92 * room.memory_bytes for option in rest)
    assert any("train.recompute_blocks=3" in option.change for option in rest), "a key that a recipe takes"
    with pytest.raises(InputError, match="nothing tried fits"):
        check_fits(setup, replace(room, memory_bytes=1000))
    assert check_fits(setup, replace(room, memory_bytes=2 * need)) == ""


def test_what_may_just_fit_is_tried_with_a_warning() -> None:
    setup = replace(SETUP, pack_size=8192, precision="bf16-pure")
    need = memory(setup).peak
    room = Device(name="small", memory_bytes=need, flops=1e12, bandwidth=1e10, link=1e9)
    assert not options(setup, room)[0].fits
    assert "it may run out of memory" in check_fits(setup, room)
    assert "it may run out of memory" in check_fits(setup, replace(room, memory_bytes=round(need / 1.14)))
    with pytest.raises(InputError, match="--force"):
        check_fits(setup, replace(room, memory_bytes=round(need / 1.16)))


def test_a_run_far_beyond_the_memory_here_is_refused_or_forced() -> None:
    recipe = PRESETS["demo"]
    huge = replace(recipe, decoder=replace(recipe.decoder, width=65536, layers=200, heads=64, kv_heads=8))
    with pytest.raises(InputError, match=r"the recipe needs .* GB .*--force"):
        check_memory(huge, 3000, World())
    with pytest.warns(UserWarning, match="it may run out of memory"):
        check_memory(huge, 3000, World(), force=True)
    check_memory(recipe, 3000, World())


def test_each_change_saves_memory() -> None:
    setup = replace(SETUP, config=replace(WIDE, layers=12), pack_size=4096)
    whole = memory(setup).peak
    for change in ({"recompute_blocks": 12}, {"loss_chunk": 256}, {"shards": 8}, {"lora_rank": 8}, {"pack_size": 2048}):
        assert memory(replace(setup, **change)).peak < whole, change
    assert step_flops(replace(setup, recompute_blocks=12)) > step_flops(setup)


def test_processes_that_share_packs_send_every_gradient_and_hold_it_while_it_is_sent() -> None:
    recipe = replace(PRESETS["demo"], train=replace(PRESETS["demo"].train, packs_per_step=4))
    alone, shared = setup_of(recipe, 3000), setup_of(recipe, 3000, processes=4)
    assert (alone.packs, shared.packs) == (4, 1)
    assert communication_bytes(alone) == 0 and communication_bytes(shared) == 6 * trained_parameters(shared)
    sent = min(4 * trained_parameters(shared), UNDER_WAY * BUCKET_BYTES)
    assert (memory(alone).gathered, memory(shared).gathered) == (0, sent)
    slow = Device(name="slow", memory_bytes=1 << 40, flops=1e18, bandwidth=1e10, link=1e6, network=1e5)
    assert step_seconds(shared, slow) == pytest.approx(communication_bytes(shared) / 1e6)
    far = setup_of(replace(recipe, train=replace(recipe.train, packs_per_step=16)), 3000, processes=16)
    assert step_seconds(far, slow) == pytest.approx(communication_bytes(far) / 1e5), "beyond a node"
    with pytest.raises(InputError, match="packs_per_step is 4 with 3 processes: make it a multiple"):
        setup_of(recipe, 3000, processes=3)


def test_recipes_become_setups() -> None:
    setup = setup_of(PRESETS["demo"], 3000)
    assert setup.pack_size == 4096 and setup.packs == 1 and setup.compiled
    assert setup.precision == resolve("cpu", "auto").precision, "what the machine at hand multiplies by itself"
    assert check_fits(setup, GPUS["h200"]) == "" and memory(setup).peak < 10e9


UPDATES = PartTuning(full=False, lora_rank=4)
STILL, MOVING = TableTuning(full=False), TableTuning()


@pytest.mark.parametrize(
    "tuning",
    [
        DecoderTuning(),
        DecoderTuning(decoder=UPDATES),
        DecoderTuning(decoder=UPDATES, embeddings=MOVING),
        DecoderTuning(decoder=UPDATES, embeddings=STILL, new_embeddings=MOVING),
        DecoderTuning(decoder=FROZEN, new_embeddings=MOVING),
        DecoderTuning(embeddings=STILL),
        DecoderTuning(new_embeddings=STILL),
        DecoderTuning(embeddings=STILL, new_embeddings=STILL),
    ],
)
def test_what_is_costed_is_what_a_run_moves(tuning: DecoderTuning) -> None:
    """Gradients are those that the trainer's own part makes: of a table whole, whichever of its rows move."""
    recipe = replace(PRESETS["tiny"], tuning=tuning)
    setup = setup_of(recipe, 500)
    part = decoder_part("", Decoder(setup.config), recipe.train, tuning, 400, resolve(precision="fp32"), World())
    assert trained_parameters(setup) == sum(value.numel() for value in part.masters.named.values())
    assert setup.frozen_blocks == tuning.decoder.frozen and setup.lora_rank == tuning.decoder.lora_rank


def test_other_choices_than_a_recipe_s() -> None:
    own = DecoderTuning(decoder=UPDATES, new_embeddings=MOVING)
    assert tuned_otherwise(own, lora_rank=0, frozen=[]) == own
    assert tuned_otherwise(own, lora_rank=8, frozen=[]).decoder.lora_rank == 8
    assert tuned_otherwise(own, lora_rank=8, frozen=[]).new_embeddings == MOVING
    still = tuned_otherwise(own, lora_rank=0, frozen=["embeddings"])
    assert still.embeddings == STILL and still.new_embeddings is None
    blocks = tuned_otherwise(DecoderTuning(), lora_rank=0, frozen=["decoder"])
    assert blocks.decoder.frozen and blocks.embeddings is not None and blocks.embeddings.full


def test_devices_by_name() -> None:
    assert named_device("H200").memory_bytes > named_device("a10g").memory_bytes
    with pytest.raises(InputError, match="did you mean 'h100'"):
        named_device("h1000")


def test_the_command_prints_a_plan_and_refuses_what_cannot_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "demo", "--device", "h200"]) == 0
    assert "demo: fits, peak" in capsys.readouterr().out
    large = ["--set", "decoder.width=8192", "--set", "decoder.layers=40", "--set", "decoder.heads=64"]
    large += ["--set", "decoder.kv_heads=8"]
    assert main(["cost", "demo", "--device", "rtx4090", *large]) == 2
    captured = capsys.readouterr()
    assert "does not fit" in captured.out and captured.err.count("\n") == 1 and "rtx4090 has" in captured.err
    assert main(["cost", "demo", "--device", "h1000"]) == 2
    peaks = []
    for more in ([], ["--freeze", "embeddings"], ["--freeze", "decoder"], ["--lora", "8"]):
        assert main(["cost", "demo", "--device", "h200", *more]) == 0
        peaks.append(float(capsys.readouterr().out.partition("peak ")[2].split()[0]))
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > peaks[-1]
    low = ["--set", "tuning.decoder.full=false", "--set", "tuning.decoder.lora_rank=8"]
    for more, wanted in ((low, peaks[-1]), (["--set", "tuning.embeddings.full=false"], peaks[1])):
        assert main(["cost", "demo", "--device", "h200", *more]) == 0
        assert float(capsys.readouterr().out.partition("peak ")[2].split()[0]) == wanted, "the recipe's own choices"
    assert main(["cost", "demo", "--device", "h200", "--lora", "-1"]) == 2
    assert main(["cost", "demo", "--document", "0"]) == 2


@pytest.mark.parametrize(("processes", "packs"), [(1, 1), (1, 8), (2, 8), (8, 8)])
def test_what_is_advised_is_what_training_takes_and_learns_as_much(processes: int, packs: int) -> None:
    """Every change is applied to the recipe: its packs can be shared out, and an update has as many positions."""
    whole = PRESETS["demo"].train
    recipe = replace(PRESETS["demo"], train=replace(whole, packs_per_step=packs, pack_size=8192))
    setup = setup_of(recipe, 3000, processes=processes)
    small = Device(name="small", memory_bytes=memory(setup).peak // 2, flops=1e12, bandwidth=1e10, link=1e9)
    _, *found = options(setup, small)
    assert found or packs == 1
    for one in found:
        words = dict(word.split("=") for word in one.change.split() if word.startswith("train.pack"))
        sizes = {name.removeprefix("train."): int(value) for name, value in words.items()}
        taken = replace(recipe, train=replace(recipe.train, **sizes))
        count = next((int(word) for word in one.change.split() if word.isdigit() and "over" in one.change), processes)
        setup_of(taken, 3000, processes=count)
        positions = taken.train.packs_per_step * taken.train.pack_size
        more = positions > packs * 8192 and taken.train.packs_per_step == count  # no shorter packs to share out
        assert positions == packs * 8192 or more, one.change
        assert one.setup.packs * max(one.setup.processes, one.setup.shards) == taken.train.packs_per_step, one.change


def test_what_fits_no_device_is_split_though_an_update_has_one_pack(capsys: pytest.CaptureFixture[str]) -> None:
    large = Setup(config=DecoderConfig(vocab_size=32000, width=5120, layers=40, heads=40, kv_heads=40))
    first, *_ = [one for one in options(large, named_device("h200")) if "train.shard=true" in one.change]
    assert first.fits and first.change == "train.shard=true train.pack_size=2048 train.packs_per_step=2 over 2 devices"
    assert first.setup.packs == 1 and first.setup.shards == 2
    command = ["cost", "demo", "--device", "h200", "--processes", "8", "--set", "train.packs_per_step=8"]
    assert main(command) == 0 and capsys.readouterr().out
