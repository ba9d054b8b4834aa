"""Predicted memory against what the system gives a process for a real step, private memory and not tensors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.launching import ranks
from unitok.decoder.model import DecoderConfig
from unitok_training.cost.advice import PREDICTION_ERROR
from unitok_training.cost.measure import measure
from unitok_training.cost.memory import memory
from unitok_training.cost.step import Setup

SHAPE = DecoderConfig(vocab_size=4096, width=256, layers=8, heads=8, kv_heads=4)
SETUP = Setup(config=SHAPE, pack_size=2048, document=128, precision="fp32")
LIBRARIES = 24e6
"""Bytes of buffers that the matrix libraries keep for themselves: nothing beside a real model, much beside this one."""
SPLIT = replace(SETUP, config=replace(SHAPE, width=512, kv_heads=8), pack_size=512, shards=2)


def forked(command: Sequence[str], **given: object) -> object:
    """The processes that `measure` starts, from one that has imported torch: imports take longer than two updates."""
    shares = [part.partition("=")[2] for part in command if part.startswith("--nproc-per-node=")]
    return ranks(command[-3:], int(shares[0]) if shares else 1)  # -m, the module, the setup


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc, which this system lacks")
@pytest.mark.skipif(torch.cuda.is_available(), reason="measures a processor's memory")
@pytest.mark.parametrize(
    "setup",
    [
        SETUP,
        replace(SETUP, lora_rank=8),
        replace(SETUP, recompute_blocks=8),
        replace(SETUP, teacher=replace(SHAPE, layers=4, width=512)),
        SPLIT,
        replace(SPLIT, lora_rank=8),
    ],
    ids=["full", "lora", "recomputed", "teacher", "sharded", "sharded lora"],
)
def test_the_predicted_peak_is_what_a_process_takes(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    if setup not in (SETUP, SPLIT):  # these two as users measure
        monkeypatch.setattr("unitok_training.cost.measure.subprocess", SimpleNamespace(run=forked))
    found = measure(setup, updates=2)
    assert memory(setup).peak + LIBRARIES == pytest.approx(found.peak_bytes, rel=PREDICTION_ERROR)
    assert len(found.seconds) == 1 and found.seconds[0] > 0
