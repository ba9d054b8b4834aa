"""A device that is not there: tensors that say they lie elsewhere, with their numbers on the processor.

What an accelerator refuses is refused: an operation of tensors of two devices, `numpy` of one that lies elsewhere, an
index of the processor. Values are those of the processor, so that a model placed elsewhere must answer as before.
What waits for an accelerator (reading a value on the host) is counted in `Elsewhere.waits`.

torch knows the device type "lazy" and ships nothing for it but a guard: its tensors can be told of, differentiated, and
need no library. torch.autocast does not know it, so that everything elsewhere is in the weights' own type.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

from unitok_tokenizers import compute

DEVICE = torch.device("lazy", 0)
aten = torch.ops.aten
FROM_VALUES = (torch.tensor, torch.as_tensor, torch.asarray)
"""Factories that torch gives to the device's own library."""
MOVES = (aten.to, aten._to_copy)
READS = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default, aten.equal.default)
"""Operations whose result is a number on the host."""
COUNTS = (aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor)
"""Operations whose result is as long as the numbers say, so that the host must read them."""


class Elsewhere(Tensor):
    """A tensor on `DEVICE`."""

    waits: list[str] = []
    """What a program waited for, in order."""
    here: Tensor
    """Its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        with torch.inference_mode(False):  # torch makes views of wrappers as if there were no inference mode
            made = Tensor._make_wrapper_subclass(
                cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
                device=DEVICE,
            )  # fmt: skip
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})

    def tolist(self) -> Any:
        Elsewhere.waits.append("tolist")
        return self.here.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert a tensor that lies elsewhere to numpy; use cpu() first")

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def __repr__(self, **kwargs: Any) -> str:
        return f"Elsewhere({self.here})"


def _elsewhere(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _here(value: Any) -> Any:
    """An argument as the processor's operation takes it."""
    if isinstance(value, Elsewhere):
        return value.here
    return torch.device("cpu") if isinstance(value, torch.device) and _elsewhere(value) else value


def _moved(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The one kind of operation between devices: `to` and its relatives."""
    first, flat = args[0], tree_flatten((args[1:], kwargs))[0]
    asked = [one.device if isinstance(one, Tensor) else one for one in flat if isinstance(one, torch.device | Tensor)]
    there = _elsewhere(asked[0]) if asked else isinstance(first, Elsewhere)
    found = function(*tree_map(_here, args), **tree_map(_here, kwargs))
    if isinstance(first, Elsewhere) and not there:
        Elsewhere.waits.append("to")
    if there == isinstance(first, Elsewhere) and found is _here(first):
        return first
    return Elsewhere(found) if there else found


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if function.overloadpacket in MOVES:
        return _moved(function, args, kwargs)
    flat = tree_flatten((args, kwargs))[0]
    given = [one for one in flat if isinstance(one, Tensor)]
    away = [one for one in given if isinstance(one, Elsewhere)]
    plain_args, plain_kwargs = tree_map(_here, args), tree_map(_here, kwargs)
    if function in READS:
        if away:
            Elsewhere.waits.append(str(function))
        return function(*plain_args, **plain_kwargs)
    found = function(*plain_args, **plain_kwargs)
    if function is aten.copy_.default:
        return args[0]
    if away and any(not isinstance(one, Elsewhere) and one.ndim for one in given):
        shapes = [(tuple(one.shape), str(one.device)) for one in given]
        raise RuntimeError(f"{function}: tensors of two devices, {shapes}")
    if function in COUNTS and away:
        Elsewhere.waits.append(str(function))
    if not (away or any(isinstance(one, torch.device) and _elsewhere(one) for one in flat)):
        return found
    same = {id(one.here): one for one in away}
    return tree_map_only(Tensor, lambda one: same[id(one)] if id(one) in same else Elsewhere(one), found)


class _Factories(TorchDispatchMode):
    """Operations whose device is told by an argument alone."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Values(TorchFunctionMode):
    """Tensors of Python's numbers, which torch asks the device's own library for."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in FROM_VALUES and _elsewhere(kwargs.get("device")):
            return function(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return function(*args, **kwargs)


def _autocast(device: str, *args: Any, _real: Any = torch.autocast, **kwargs: Any) -> AbstractContextManager[Any]:
    """`torch.autocast`, of which nothing is left elsewhere."""
    return nullcontext() if device == DEVICE.type else _real(device, *args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """While this lasts there is a second device; factories that do not name one make tensors without numbers."""
    Elsewhere.waits.clear()
    # What compiles knows functions by what they are when it is first imported: not while they are others.
    importlib.import_module("torch._dynamo")
    asked, autocast = torch.is_autocast_enabled, torch.autocast
    torch.is_autocast_enabled = lambda kind=None: asked(kind) if kind not in (None, DEVICE.type) else False
    torch.autocast = _autocast  # type: ignore[misc,assignment]
    known = compute.resolve_device
    compute.resolve_device = lambda asked=None: DEVICE if asked == DEVICE else known(asked)  # `resolve` knows it too
    try:
        with torch.device("meta"), _Values(), _Factories():
            yield DEVICE
    finally:
        torch.is_autocast_enabled, torch.autocast = asked, autocast  # type: ignore[misc]
        compute.resolve_device = known
