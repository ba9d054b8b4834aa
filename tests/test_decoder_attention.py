"""The attention kernels against the oracle: forward, gradients, no look into the future, packed = unpacked."""

from __future__ import annotations

import pytest
import torch

from unitok.decoder.attention import (
    VarlenAttention,
    reference_varlen_attention,
    resolve,
    split_attention,
    torch_varlen_attention,
    varlen_attention,
)

LENGTHS = [5, 1, 9, 3]


def inputs(
    heads: int = 4, groups: int = 2, size: int = 8
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    total = sum(LENGTHS)
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    q, k, v = (torch.randn(total, count, size, requires_grad=True) for count in (heads, groups, groups))
    return q, k, v, bounds


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_split_attention_equals_the_oracle_forward_and_backward(groups: int, causal: bool) -> None:
    q, k, v, bounds = inputs(groups=groups)
    longest = max(LENGTHS)
    out = split_attention(q, k, v, bounds, bounds, longest, longest, causal=causal)
    wanted = reference_varlen_attention(q, k, v, bounds, bounds, longest, longest, causal=causal)
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(out)
    found = torch.autograd.grad((out * weight).sum(), (q, k, v))
    expected = torch.autograd.grad((wanted * weight).sum(), (q, k, v))
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_fewer_queries_than_keys_align_at_the_end() -> None:
    q, k, v, bounds = inputs()
    rows = torch.cat([torch.arange(end - 1, end) for end in bounds[1:].tolist()])
    last = torch.arange(len(LENGTHS) + 1, dtype=torch.int32)
    out = varlen_attention(q[rows], k, v, last, bounds, 1, max(LENGTHS), causal=True)
    full = reference_varlen_attention(q, k, v, bounds, bounds, max(LENGTHS), max(LENGTHS), causal=True)
    torch.testing.assert_close(out, full[rows], atol=1e-5, rtol=1e-5)


def test_a_later_position_changes_nothing_before_it_nor_in_other_documents() -> None:
    q, k, v, bounds = inputs()
    longest = max(LENGTHS)
    before = varlen_attention(q, k, v, bounds, bounds, longest, longest, causal=True)
    changed_k, changed_v = k.clone(), v.clone()
    changed_k[10], changed_v[10] = 9.0, 9.0  # inside the third document, which starts at 6
    after = varlen_attention(q, changed_k, changed_v, bounds, bounds, longest, longest, causal=True)
    same = torch.isclose(before, after).all(-1).all(-1)
    assert same[:10].all() and same[15:].all() and not same[10:15].any()


def test_packed_equals_each_document_alone() -> None:
    q, k, v, bounds = inputs()
    packed = varlen_attention(q, k, v, bounds, bounds, max(LENGTHS), max(LENGTHS), causal=True)
    for start, end in zip(bounds.tolist(), bounds.tolist()[1:]):
        alone = torch.tensor([0, end - start], dtype=torch.int32)
        parts = q[start:end], k[start:end], v[start:end]
        out = varlen_attention(*parts, alone, alone, end - start, end - start, causal=True)
        torch.testing.assert_close(packed[start:end], out, atol=1e-6, rtol=1e-6)


def test_the_oracle_asserts_the_contract() -> None:
    q, k, v, bounds = inputs()
    with pytest.raises(AssertionError):
        reference_varlen_attention(q, k, v, bounds.long(), bounds.long(), 9, 9, causal=True)
    with pytest.raises(AssertionError):
        reference_varlen_attention(q, k, v, bounds, bounds, 4, 9, causal=True)


@pytest.mark.parametrize(
    ("dtype", "size", "kernel", "message"),
    [
        (torch.float32, 64, split_attention, "half precision, not torch.float32; one call per document is used"),
        (torch.bfloat16, 12, split_attention, "no variable-length kernel has heads of 12; one call per document"),
        (torch.bfloat16, 512, split_attention, "no variable-length kernel has heads of 512"),
        (torch.bfloat16, 64, torch_varlen_attention, "flash-attn is not installed; torch's own variable-length kernel"),
    ],
)
def test_what_cannot_be_used_is_named_once_with_what_is_used_instead(
    dtype: torch.dtype, size: int, kernel: VarlenAttention, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    resolve.cache_clear()
    with pytest.warns(UserWarning, match=message) as caught:
        assert resolve("cuda", dtype, size) is kernel is resolve("cuda", dtype, size)
    assert len(caught) == 1 and resolve("cpu", dtype, size) is split_attention
    resolve.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_cuda_kernel_equals_the_cpu_oracle() -> None:
    q, k, v, bounds = inputs(size=64)
    half = [x.detach().cuda().bfloat16() for x in (q, k, v)]
    on_device = bounds.cuda()
    out = torch_varlen_attention(*half, on_device, on_device, 9, 9, causal=True).float().cpu()
    wanted = reference_varlen_attention(*(x.float().cpu() for x in half), bounds, bounds, 9, 9, causal=True)
    torch.testing.assert_close(out, wanted, atol=2e-2, rtol=2e-2)
