"""The CPU training kernel equals the per-document one, forward and backward."""

from __future__ import annotations

import pytest
import torch

from unitok.decoder.attention import reference_varlen_attention, split_attention
from unitok.decoder.dense_attention import group_documents, padded_attention


def case(lengths: list[int], heads: int, kv_heads: int, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths)
    tensors = [torch.randn(total, n, 16, generator=generator).to(dtype) for n in (heads, kv_heads, kv_heads)]
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return [tensor.requires_grad_() for tensor in tensors], bounds


LENGTHS = [5, 1, 40, 7, 130, 41, 2, 1, 39, 90, 88]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_to_the_other_kernels(heads: int, kv_heads: int, dtype: torch.dtype) -> None:
    (q, k, v), bounds = case(LENGTHS, heads, kv_heads, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    longest = max(LENGTHS)
    found = padded_attention(q, k, v, bounds, bounds, longest, longest, causal=True)
    oracle = reference_varlen_attention(q, k, v, bounds, bounds, longest, longest, causal=True)
    torch.testing.assert_close(found, oracle, rtol=tolerance, atol=tolerance)
    other = split_attention(q, k, v, bounds, bounds, longest, longest, causal=True)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for ours, theirs in zip(
        torch.autograd.grad(found, (q, k, v), upstream), torch.autograd.grad(other, (q, k, v), upstream)
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=2 * tolerance)


def test_a_scale_of_ones_own() -> None:
    (q, k, v), bounds = case([9, 30], 2, 1, torch.float32)
    found = padded_attention(q, k, v, bounds, bounds, 30, 30, softmax_scale=0.5, causal=True)
    oracle = reference_varlen_attention(q, k, v, bounds, bounds, 30, 30, softmax_scale=0.5, causal=True)
    torch.testing.assert_close(found, oracle, rtol=1e-5, atol=1e-5)


def test_groups_hold_every_position_once() -> None:
    bounds = torch.tensor([0, *LENGTHS, 0, 0]).cumsum(0).to(torch.int32)  # empty documents hold none
    groups = group_documents(bounds, 4)
    assert sorted(torch.cat([group.packed for group in groups]).tolist()) == list(range(sum(LENGTHS)))
    assert 1 < len(groups) < len(LENGTHS)
