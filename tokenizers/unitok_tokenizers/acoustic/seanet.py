"""SEANet encoders and decoders of the packages encodec and speechtokenizer and of transformers, as chains of layers.

Modules are known by the names of their classes: each package has its own copy of them. One that is not known is an
error, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from unitok_tokenizers.acoustic.layers import Chain, Convolution, Layer, Pointwise, Recurrent, Residual, Transposed

POINTWISE = ("ELU", "Identity", "Snake1d", "Tanh", "ReLU", "LeakyReLU", "GELU", "SiLU")


def chain_of(modules: Iterable[Any]) -> Chain:
    """Modules that follow one another."""
    return Chain([layer_of(module) for module in modules])


def layer_of(module: Any) -> Layer:
    """One module of any of the packages."""
    kind = type(module).__name__
    if kind in ("SConv1d", "EncodecConv1d", "MimiConv1d"):
        return _convolution(module)
    if kind in ("SConvTranspose1d", "EncodecConvTranspose1d", "MimiConvTranspose1d"):
        return _transposed(module)
    if kind == "SLSTM":
        lstm = module.lstm
        width = lstm.hidden_size * (2 if lstm.bidirectional else 1)
        return Recurrent(lstm=lstm, channels=width, skip=module.skip)
    if kind in ("SEANetResnetBlock", "MimiResnetBlock"):
        return Residual(chain_of(module.block), layer_of(module.shortcut))
    assert kind in POINTWISE, f"{kind} is no known layer of a codec"
    return Pointwise(module)


def _convolution(module: Any) -> Convolution:
    outer = module.conv  # of the packages, a convolution with its normalization
    inner: nn.Conv1d = outer.conv if hasattr(outer, "conv") else outer
    kernel = (inner.kernel_size[0] - 1) * inner.dilation[0] + 1
    total = kernel - inner.stride[0]
    right = 0 if module.causal else total // 2
    return Convolution(
        apply=outer,
        channels=inner.out_channels,
        kernel=kernel,
        stride=inner.stride[0],
        left=total - right,
        right=right,
        mode=module.pad_mode,
        fill=True,
    )


def _transposed(module: Any) -> Transposed:
    outer = module.convtr if hasattr(module, "convtr") else module.conv
    inner: nn.ConvTranspose1d = outer.convtr if hasattr(outer, "convtr") else outer
    kernel, stride = inner.kernel_size[0], inner.stride[0]
    total = kernel - stride
    right = -int(-total * module.trim_right_ratio // 1) if module.causal else total // 2
    return Transposed(
        apply=outer, channels=inner.out_channels, kernel=kernel, stride=stride, left=total - right, right=right
    )
