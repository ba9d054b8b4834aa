"""Checkpoints: what is written comes back, damage is seen, nothing is never mistaken for something."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.state import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_module,
    module_tensors,
    open_checkpoint,
    random_states,
    read_checkpoint,
    save_checkpoint,
    set_random_states,
)
from unitok_training.trainer.optimizer import MasterWeights, OptimConfig, Optimizer, rate


class Tied(nn.Module):
    """A module with a tied parameter, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.inner = nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mean", torch.arange(3.0))
        self.register_buffer("table", torch.arange(9.0), persistent=False)


def save(folder: Path, step: int, module: nn.Module | None = None, keep: int = 10) -> Path:
    checkpoint = Checkpoint(
        model=module_tensors(module or Tied()),
        optimizer={"inner.weight|exp_avg": torch.full((4, 4), float(step))},
        rng=random_states(),
        state={"data": {"window": step, "pack": 1}},
    )
    return save_checkpoint(folder, checkpoint, step=step, keep=keep)


def test_everything_comes_back(tmp_path: Path) -> None:
    module, other = Tied(), Tied()
    path = save(tmp_path, 3, module)
    drawn = torch.rand(2)
    found = read_checkpoint(path)
    assert found.state["step"] == 3 and found.state["data"] == {"window": 3, "pack": 1}
    assert set(found.model) == {"embed.weight", "inner.weight", "inner.bias", "mean"}
    load_module(other, found.model)
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    set_random_states(found.rng)
    assert torch.equal(torch.rand(2), drawn)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}


def test_the_newest_whole_one_wins_and_damage_is_reported(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    with open(tmp_path / "step_00000003/model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    (tmp_path / "step_00000002/optimizer.safetensors").unlink()
    messages: list[str] = []
    found = latest_checkpoint(tmp_path, report=messages.append)
    assert found is not None and found.state["step"] == 1
    assert "is damaged" in messages[0] and "is incomplete" in messages[1]


@pytest.mark.parametrize("damage", ["{", '{"format": 99}', ""])
def test_a_broken_state_file_is_skipped(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").write_text(damage, encoding="utf-8")
    found = latest_checkpoint(tmp_path, report=lambda message: None)
    assert found is not None and found.state["step"] == 1


def test_nothing_to_load_is_an_error_where_a_path_was_given(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "new") is None
    with pytest.raises(InputError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)
    path = save(tmp_path / "checkpoints", 1)
    assert open_checkpoint(tmp_path).path == path == open_checkpoint(path).path
    (path / "rng.safetensors").unlink()
    with pytest.raises(InputError, match="none is whole"):
        latest_checkpoint(tmp_path / "checkpoints", report=lambda message: None)


def test_old_ones_are_removed(tmp_path: Path) -> None:
    for step in range(5):
        save(tmp_path, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000003", "step_00000004"]


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    tensors = dict(read_checkpoint(save(tmp_path, 1)).model)
    tensors["inner.weight"] = torch.zeros(5, 4)
    with pytest.raises(InputError, match=r"inner.weight is \(5, 4\) in the file and \(4, 4\)"):
        load_module(Tied(), tensors)
    del tensors["inner.weight"]
    with pytest.raises(InputError, match="lacks .'inner.weight'."):
        load_module(Tied(), tensors)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_optimizer_continues_bit_for_bit(name: str) -> None:
    def steps(optimizer: Optimizer, module: nn.Module, first: int, last: int) -> None:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            for parameter in module.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step(0.5)

    config = OptimConfig(name=name)
    torch.manual_seed(0)
    whole, half = Tied(), Tied()
    half.load_state_dict(whole.state_dict())
    reference = Optimizer(MasterWeights(whole).named, config)
    steps(reference, whole, 0, 6)
    first = Optimizer(MasterWeights(half).named, config)
    steps(first, half, 0, 3)
    saved = {key: value.clone() for key, value in first.tensors().items()}
    second = Optimizer(MasterWeights(half).named, config)
    second.load(saved)
    steps(second, half, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters()))
    with pytest.raises(InputError, match="fits no parameter"):
        second.load({"other|exp_avg": torch.zeros(2)})


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_skipped_update_leaves_the_weights(name: str) -> None:
    module = Tied()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = Optimizer(MasterWeights(module).named, OptimConfig(name=name))
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.step(1.0, skip=torch.ones(()))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters()))


def test_masters_keep_what_bfloat16_loses() -> None:
    module = nn.Linear(4, 4, bias=False)
    wanted = module.weight.detach().clone()
    masters = MasterWeights(module, torch.bfloat16)
    assert module.weight.dtype == torch.bfloat16 and torch.equal(masters.named["weight"].detach(), wanted)
    for _ in range(2):
        module.weight.grad = torch.full((4, 4), 2.0, dtype=torch.bfloat16)
        masters.collect()
    assert module.weight.grad is None
    (gradient,) = masters.gradients()
    assert gradient.dtype == torch.float32 and bool((gradient == 4.0).all())
    masters.restore()
    assert torch.equal(module.weight.detach(), wanted)


def test_learning_rates() -> None:
    def rates(steps: int = 100, **options: object) -> list[float]:
        config = OptimConfig(warmup_steps=10, min_ratio=0.1, **options)  # type: ignore[arg-type]
        return [rate(step, steps=steps, config=config) for step in range(steps + 1)]

    for schedule in ("cosine", "linear", "wsd"):
        values = rates(schedule=schedule)
        assert values[0] == pytest.approx(0.1) and values[9] == 1.0 and values[10] == pytest.approx(1.0)
        assert values[100] == pytest.approx(0.1) and min(values) >= 0.1 - 1e-9
        assert all(a >= b for a, b in zip(values[10:], values[11:]))
    assert set(rates(schedule="constant")[10:]) == {1.0}
    assert rates(schedule="wsd", decay_share=0.2)[79] == 1.0
    with pytest.raises(InputError, match="optim.schedule is 'step'"):
        OptimConfig(schedule="step")
