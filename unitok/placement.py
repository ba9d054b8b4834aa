"""Where a model computes and in which type: its networks moved together, whatever it is made of."""

from __future__ import annotations

import torch

from unitok.requests.runner import RequestRunner
from unitok_tokenizers.compute import PRECISIONS, check_precision, resolve
from unitok_tokenizers.errors import InputError

Device = str | torch.device | None
"""As `unitok_tokenizers.compute.resolve_device` takes it: "auto" and None are the first GPU, or the processor."""
DType = torch.dtype | str | None
"""A floating type, or a precision by name: "fp32", "bf16", or "auto" for what the device multiplies natively."""
FLOATS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Types that a decoder's weights may have."""
TRAINED = torch.float32
"""Of weights as they were trained: answers are the same on every machine up to rounding."""


def resolve_dtype(asked: DType, device: torch.device) -> torch.dtype:
    """The type of a decoder's weights that answers on a device; that of the trained weights where None.

    Raises:
        InputError: neither a floating type nor a precision that weights are held in.
    """
    if asked is None:
        return TRAINED
    if isinstance(asked, torch.dtype):
        if asked not in FLOATS:
            raise InputError(f"dtype is {asked}: weights are {', '.join(str(one) for one in FLOATS)}")
        return asked
    named = {str(one).removeprefix("torch."): one for one in FLOATS}
    if asked in named:
        return named[asked]
    if check_precision(asked) == "bf16-pure":
        raise InputError(f"precision is {asked!r}, which is for training; choose from {', '.join(PRECISIONS[:3])}")
    return resolve(device, asked).products


def place(model: RequestRunner, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Move every network of a model to a device; the decoder, and what goes with it, to a type where one is given.

    Front ends, vocoders and speech tokenizers stay in their own float32. Steps are made again of the weights where they
    are now; captured ones are forgotten.

    Raises:
        InputError: a model whose steps have int8 weights, to anything but a processor.
    """
    from unitok.model_parts import PARTS

    if model.engine.int8 and device.type != "cpu":
        raise InputError(f"int8 weights speed up decoding on processors only; load the model without them for {device}")
    model.decoder.to(device, dtype)
    for name, part in model.parts.items():
        part.to(device, None if PARTS[name].own_dtype else dtype)
    if model.latent is not None:
        model.latent.to(device)
    if model.vocoder is not None:
        model.vocoder.to(device)
    model.tokenizers.to(device)
    model.engine.moved()
