"""Convolution over frames: the sums of the layer, and float32 for the depthwise ones of a processor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unitok_tokenizers.encoders.networks.convolution import ConvBlock, convolve


@pytest.mark.parametrize(("width", "kernel", "stride", "groups"), [(6, 9, 1, 6), (6, 5, 2, 1), (4, 7, 2, 1)])
def test_a_convolution_over_frames_is_the_layers_own(width: int, kernel: int, stride: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv1d(6, width, kernel, stride=stride, padding=kernel // 2, groups=groups)
    x = torch.randn(2, 13, 6, requires_grad=True)
    results = []
    for made in (convolve(layer, x), layer(x.transpose(1, 2)).transpose(1, 2)):
        gradients = torch.autograd.grad(made.square().sum(), [x, *layer.parameters()])
        results.append([made, *gradients])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_a_depthwise_convolution_stays_in_float32_where_products_are_rounded() -> None:
    torch.manual_seed(0)
    depthwise, dense = nn.Conv1d(8, 8, 5, padding=2, groups=8), nn.Conv1d(8, 8, 5, padding=2)
    x = torch.randn(2, 13, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, rounded = convolve(depthwise, x), convolve(dense, x)
        from_rounded = convolve(depthwise, rounded)
    assert mixed.dtype == from_rounded.dtype == torch.float32 and rounded.dtype == torch.bfloat16
    torch.testing.assert_close(mixed, convolve(depthwise, x), rtol=0, atol=0)
    mixed.sum().backward()
    assert x.grad is not None and depthwise.weight.grad is not None


def test_rounded_weights_are_used_as_they_are() -> None:
    layer = nn.Conv1d(8, 8, 5, padding=2, groups=8).to(torch.bfloat16)
    x = torch.randn(1, 9, 8).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = convolve(layer, x)
    assert convolve(layer, x).dtype == mixed.dtype == torch.bfloat16


def test_a_block_leaves_what_is_behind_the_end_alone() -> None:
    torch.manual_seed(0)
    block = ConvBlock(8, 5, 2, 0.0).eval()
    x, mask = torch.randn(1, 12, 8), torch.ones(1, 12, 1)
    mask[:, 9:] = 0
    changed = x.clone()
    changed[:, 9:] += 5.0
    torch.testing.assert_close(block(x, mask)[:, :9], block(changed, mask)[:, :9])
