"""Logits over one modality: the loss of each label is that of plain cross-entropy among the ids of its own slice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.support import toy_shards
from tests.support.toy_shards import ToyShards
from tests.test_trainer_loop import CONFIG, decoder, run
from unitok_training.data.batch import Pack
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import DataState, PackStream
from unitok_training.objectives.pack_losses import OutputSlices, pack_losses, supervised_positions
from unitok_training.objectives.token_loss import HeadSlice, linear_cross_entropy
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics

KEYS = "asr asr.codes tts.units tts.codes s2tt s2st s2st.codes s2st.chain mt lm slm ilm"
EVERYTHING = Mixture(tasks=dict.fromkeys(KEYS.split(), 1.0))


def packs(count: int = 4) -> list[Pack]:
    vocabulary = toy_shards.vocabulary()
    shards: Any = ToyShards(toy_shards.corpus())
    source = ExampleSource(shards, vocabulary, EVERYTHING, seed=0)
    stream = PackStream(source.documents, capacity=256, window=256, seed=0, pad=vocabulary.pad)
    return next(stream.steps(DataState(), packs_per_step=count))[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_value_and_gradient_equal_plain_cross_entropy_of_each_slice(smoothing: float, chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator, requires_grad=True)
    head = torch.randn(53, 16, generator=generator, requires_grad=True)
    slices = (HeadSlice(15, 0, 30), HeadSlice(0, 5, 9), HeadSlice(25, 20, 53))
    labels = torch.cat([torch.randint(0, 30, (15,), generator=generator), torch.randint(20, 53, (25,))])
    weights = torch.rand(40, generator=generator)
    plain = torch.cat(
        [
            functional.cross_entropy(
                hidden[rows] @ head[first:stop].t(), labels[rows] - first, reduction="none", label_smoothing=smoothing
            )
            for rows, first, stop in ((slice(0, 15), 0, 30), (slice(15, 40), 20, 53))
        ]
    )
    wanted = torch.autograd.grad((plain * weights).sum(), (hidden, head))
    total, _ = linear_cross_entropy(hidden, head, labels, weights, smoothing=smoothing, chunk=chunk, slices=slices)
    torch.testing.assert_close(total, (plain * weights).sum(), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(total, (hidden, head)), wanted):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_every_label_of_every_task_is_in_its_slice() -> None:
    vocabulary = toy_shards.vocabulary()
    slices = OutputSlices.of(vocabulary)
    blocks = {"text": 0, "units": 0, "codes": 0, "control": 0}
    for pack in packs():
        whole, found = supervised_positions(pack), supervised_positions(pack, slices)
        assert sorted(found.index.tolist()) == whole.index.tolist()
        assert sum(one.rows for one in found.slices) == len(found.index)
        labels, begin = pack.labels[found.index], 0
        for one, speech in zip(found.slices, (False, True), strict=True):
            for label in labels[begin : begin + one.rows].tolist():
                assert one.start <= label < one.stop
                block = vocabulary.describe(label).block
                assert block == "control" or (block in ("units", "codes")) == speech, (block, speech)
                blocks[block] += 1
            begin += one.rows
    assert all(blocks.values())
    assert slices.text_stop < vocabulary.size and slices.speech_start > 0, "both slices are smaller than the whole"


def test_losses_are_those_among_the_ids_of_the_slice() -> None:
    model, pack = decoder(), packs()[0]
    supervised = supervised_positions(pack, OutputSlices.of(toy_shards.vocabulary()))
    found = pack_losses(model, pack, supervised)
    hidden = model(pack.ids, pack.positions, pack.sequences, pack.max_seqlen)
    logits = model.logits(hidden[supervised.index]).detach()
    begin = 0
    for one in supervised.slices:
        rows = slice(begin, begin + one.rows)
        plain = functional.cross_entropy(
            logits[rows, one.start : one.stop], found.labels[rows] - one.start, reduction="none"
        )
        torch.testing.assert_close(found.losses[rows], plain, rtol=1e-4, atol=1e-5)
        begin += one.rows
    assert found.losses.mean() < pack_losses(model, pack, supervised_positions(pack)).losses.mean()


def test_text_behind_speech_stretches_the_slice_of_text() -> None:
    grown = toy_shards.vocabulary().append_text(3, "grown")
    assert OutputSlices.of(grown).text_stop == grown.size


def test_a_run_learns_with_slices_and_continues_exactly(tmp_path: Path) -> None:
    config = replace(CONFIG, output_slices=True, steps=30, log_every=10)
    whole = run(tmp_path / "whole", config)
    rows = read_metrics(tmp_path / "whole" / METRICS_FILE)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    run(tmp_path / "parts", config, stop_after=7)
    parts = run(tmp_path / "parts", config, decoder(seed=3))
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), parts.parameters(), strict=True))
