"""Gradients that are summed while the backward pass computes: what sums afterward give, in one order everywhere.

Run alone with `pytest tests/test_trainer_overlap.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.launching import ranks
from tests.test_trainer_distributed import SCRIPT, launch
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics

AFTER = """
import unitok_training.trainer.loop as loop
from unitok_training.trainer.overlap import GradientSums, _Plan


class After(GradientSums):
    def _planned(self, step):
        return _Plan()


loop.GradientSums = After
"""
"""Put before SCRIPT: everything is summed when the backward pass has ended."""

PARTS = """
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from unitok_tokenizers.compute import resolve
from unitok_training.trainer.config import PartTuning
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.optimizer import OptimConfig
from unitok_training.trainer.overlap import GradientSums, _Plan
from unitok_training.trainer.parts import Part

out, precision = Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
begun, plain = [], dist.all_reduce


class After(GradientSums):
    def _planned(self, step):
        return _Plan()


def noted(tensor, *given, **named):
    begun.append(tensor.numel())
    return plain(tensor, *given, **named)


def parts_of(world):
    draw, found, compute = torch.Generator().manual_seed(7), [], resolve(world.device, precision)
    for name, begins in (("encoder", 0), ("late", 1), ("decoder", 0)):
        module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
        with torch.no_grad():
            for value in module.parameters():
                value.normal_(0.0, 0.3, generator=draw)
        found.append(Part(name, module, PartTuning(start_step=begins), OptimConfig(), compute, world))
    return found, compute


def steps(world, kind):
    parts, compute = parts_of(world)
    sums, told, found = kind(parts, world, limit=4 * 150), [], {}
    encoder, late, decoder = (part.module for part in parts)
    data = torch.Generator().manual_seed(100 + world.rank)
    for step in range(2):
        for part in parts:
            part.set_mode(step)
        near_end = []
        for number in range(2):
            x = torch.randn(5, 8, generator=data).to(compute.weights)
            first = decoder[0](x if (world.rank + step) % 2 else encoder(x))  # some processes have no recordings
            first.register_hook(lambda grad: near_end.append(len(begun)))
            loss = decoder[1:](first).square().sum() + (late(x).square().sum() if step else 0)
            begun.clear()
            if number:
                with sums.beside(step):
                    loss.backward()
            else:
                loss.backward()
                assert not begun, "of several passes the last one alone"
            for part in parts:
                part.masters.collect()
        extra = torch.ones(())
        sums.finish(step, [extra])
        told.append({"order": list(begun), "early": sums.early, "near_end": near_end[-1], "extra": float(extra)})
        for part in parts:
            if part.moves(step):
                found |= {f"{step}.{part.name}.{name}": value.grad for name, value in part.masters.named.items()}
            part.masters.zero_grad()
    return told, found


dist.all_reduce = noted
with world_from_environment("cpu") as world:
    told, found = steps(world, GradientSums)
    _, wanted = steps(world, After)
    torch.save([found, wanted], out / f"gradients_{world.rank}.pt")
    (out / f"told_{world.rank}.json").write_text(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "precision"), [(2, "fp32"), (2, "bf16-pure"), (4, "fp32")])
def test_sums_begin_before_the_pass_ends_in_one_order_and_give_what_sums_afterward_do(
    tmp_path: Path, processes: int, precision: str
) -> None:
    """Where some processes do not reach a part, and one begins later."""
    script = tmp_path / "script.py"
    script.write_text(PARTS, encoding="utf-8")
    done = ranks([str(script), str(tmp_path), precision], processes)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in range(processes)]
    for step in range(2):
        rows = [one[step] for one in told]
        assert all(row["order"] == rows[0]["order"] for row in rows), "the same sums in turn"
        moving = (2 + step) * 4 * (64 + 8)
        assert sum(rows[0]["order"]) == moving + 1 and max(rows[0]["order"]) <= 150, "each weight once, and the loss"
        assert all(row["extra"] == processes for row in rows)
        for rank, row in enumerate(rows):
            assert 0 < row["near_end"] <= row["early"], "sums begin while there is still something to compute"
            whole = (rank + step) % 2 == 0  # all that moves is reached
            assert (row["early"] == len(row["order"]) - 1) == whole
    for rank in range(processes):
        found, wanted = torch.load(tmp_path / f"gradients_{rank}.pt")
        assert found.keys() == wanted.keys() and len(found) == 5 * 8
        for name, value in found.items():
            if processes == 2:
                assert torch.equal(value, wanted[name]), name
            torch.testing.assert_close(value, wanted[name])
        assert all(float(value.abs().sum()) > 0 for value in found.values())


@pytest.mark.slow
def test_a_run_of_two_is_the_same_bit_for_bit_as_with_sums_afterward(tmp_path: Path) -> None:
    for name, text in (("beside", SCRIPT), ("after", AFTER + SCRIPT)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        launch(tmp_path / f"{name}.py", tmp_path / name, 2)
    one, other = (read_checkpoint(tmp_path / name / "checkpoints/step_00000006") for name in ("beside", "after"))
    assert all(torch.equal(value, other.model[name]) for name, value in one.model.items())
    assert all(torch.equal(value, other.optimizer[name]) for name, value in one.optimizer.items())


@pytest.mark.slow
def test_four_processes_learn_what_one_learns(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    for processes in (1, 4):
        launch(tmp_path / "script.py", tmp_path / str(processes), processes)
    one, four = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("1", "4"))
    for alone, shared in zip(one, four, strict=True):
        for key in ("loss", "objective", "gradient_norm"):
            assert shared[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-5)
