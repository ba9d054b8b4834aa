"""The chunked loss equals torch's on whole logits, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from unitok_training.cost.memory import peak_bytes
from unitok_training.data.batch import NO_LABEL
from unitok_training.objectives import token_loss as loss_module
from unitok_training.objectives.token_loss import (
    GPU_LOGIT_BYTES,
    LOGIT_BYTES,
    LossTable,
    linear_cross_entropy,
    rows_at_once,
    supervised_losses,
)

N, C, V = 37, 16, 53


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, C, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(V, C, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(V, (N,), generator=generator)
    weights = torch.rand(N, generator=generator)
    return hidden, head, labels, weights


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 10, 4096, 0])
def test_value_and_gradient_equal_plain_cross_entropy(smoothing: float, chunk: int) -> None:
    hidden, head, labels, weights = inputs()
    plain = functional.cross_entropy(hidden @ head.t(), labels, reduction="none", label_smoothing=smoothing)
    wanted = torch.autograd.grad(3.0 * (plain * weights).sum(), (hidden, head))
    total, losses = linear_cross_entropy(hidden, head, labels, weights, smoothing=smoothing, chunk=chunk)
    torch.testing.assert_close(total, (plain * weights).sum(), rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(3.0 * total, (hidden, head))
    for ours, theirs in zip(got, wanted):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses, functional.cross_entropy(hidden @ head.t(), labels, reduction="none"))
    assert not losses.requires_grad


@pytest.mark.parametrize("vocabulary", [1, 7_576, 150_000, 10**9])
def test_rows_at_once_are_what_a_bound_in_bytes_allows(vocabulary: int) -> None:
    for on_gpu, most in ((False, LOGIT_BYTES), (True, GPU_LOGIT_BYTES)):
        rows = rows_at_once(vocabulary, on_gpu=on_gpu)
        assert rows >= 1 and (rows == 1 or 4 * rows * vocabulary <= most < 4 * (rows + 1) * vocabulary)


def test_the_default_bounds_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the head's gradient grows with N · V; the sums are those of one chunk up to rounding."""
    monkeypatch.setattr(loss_module, "LOGIT_BYTES", 1 << 16)
    rows, ids = 2048, 1000
    hidden, head = torch.randn(rows, C, requires_grad=True), torch.randn(ids, C, requires_grad=True)
    labels, weights = torch.randint(ids, (rows,)), torch.ones(rows)
    found = [linear_cross_entropy(hidden, head, labels, weights, chunk=chunk)[0] for chunk in (0, rows)]
    torch.testing.assert_close(found[0], found[1])
    grads = [torch.autograd.grad(one, (hidden, head)) for one in found]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)
    held = peak_bytes(lambda: linear_cross_entropy(hidden, head, labels, weights))
    whole = peak_bytes(lambda: linear_cross_entropy(hidden, head, labels, weights, chunk=rows))
    assert held < 1 << 20 < 4 * rows * ids < whole, (held, whole)


def test_gradient_passes_finite_differences() -> None:
    hidden, head, labels, weights = inputs(torch.float64)

    def total(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(h, w, labels, weights, smoothing=0.2, chunk=8)[0]

    step = 1e-3
    value = total(hidden, head)
    grad_hidden, grad_head = torch.autograd.grad(value, (hidden, head))
    for tensor, grad, place in ((hidden, grad_hidden, (3, 4)), (head, grad_head, (5, 6))):
        with torch.no_grad():
            tensor[place] += step
            up = total(hidden, head)
            tensor[place] -= 2 * step
            down = total(hidden, head)
            tensor[place] += step
        assert float(grad[place]) == pytest.approx(float(up - down) / (2 * step), rel=2e-2, abs=2e-2)


def test_bfloat16_inputs_keep_a_float32_softmax() -> None:
    hidden, head, labels, weights = inputs(torch.bfloat16)
    total, losses = linear_cross_entropy(hidden, head, labels, weights)
    assert total.dtype == losses.dtype == torch.float32
    plain = functional.cross_entropy((hidden @ head.t()).float(), labels, reduction="none")
    torch.testing.assert_close(losses, plain.detach())
    total.backward()
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16


def test_only_supervised_positions_count() -> None:
    hidden, head, labels, weights = inputs()
    weights = torch.ones_like(weights)
    labels[::3] = NO_LABEL
    weights[1] = 0.0
    tasks = torch.arange(N) % 2
    found = supervised_losses(hidden, head, labels=labels, loss_weight=weights, task_ids=tasks)
    keep = (labels != NO_LABEL) & (weights > 0)
    assert len(found.losses) == int(keep.sum())
    plain = functional.cross_entropy((hidden @ head.t())[keep], labels[keep], reduction="sum")
    torch.testing.assert_close(found.total, plain, rtol=1e-5, atol=1e-5)
    (grad,) = torch.autograd.grad(found.total, hidden)
    assert not grad[~keep].any() and grad[keep].any()


def test_a_batch_without_labels_has_loss_and_gradient_zero() -> None:
    hidden, head, labels, weights = inputs()
    found = supervised_losses(
        hidden, head, labels=torch.full_like(labels, NO_LABEL), loss_weight=weights, task_ids=torch.zeros(N).long()
    )
    found.total.backward()
    assert float(found.total.detach()) == 0 and head.grad is not None and not head.grad.any()


def test_the_table_breaks_losses_down_by_task_and_stream() -> None:
    hidden, head, labels, _ = inputs()
    tasks = torch.arange(N) % 2
    stream_of = (torch.arange(V) >= 20).long()
    table = LossTable(["asr", "mt", "unused"], ["text", "units"], stream_of, torch.device("cpu"))
    found = supervised_losses(hidden, head, labels=labels, loss_weight=torch.ones(N), task_ids=tasks)
    table.add(found)
    table.add(found)
    read = table.read()
    assert set(read["task"]) == {"asr", "mt"} and read["task_tokens"] == {"asr": 38, "mt": 36}
    assert read["task"]["mt"] == pytest.approx(float(found.losses[1::2].mean()), rel=1e-6)
    assert read["stream"]["units"] == pytest.approx(float(found.losses[labels >= 20].mean()), rel=1e-6)
    table.reset()
    assert table.read()["task"] == {}


def test_nothing_is_made_for_a_backward_pass_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, labels, weights = inputs()
    wanted, losses = linear_cross_entropy(hidden, head, labels, weights)

    def never(*_: object) -> None:
        raise AssertionError("a gradient of the head")

    monkeypatch.setattr("unitok_training.objectives.token_loss._head_gradient", never)
    with torch.no_grad():
        found, again = linear_cross_entropy(hidden, head, labels, weights)
    assert torch.equal(found, wanted) and torch.equal(again, losses)
