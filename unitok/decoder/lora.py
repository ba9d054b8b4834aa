"""Low-rank updates of weights (Hu et al. 2022): W + (α / r) · B A, with B = 0 at the start.

Unusual: an update is a parametrization of the weight, so that whoever reads the attribute gets W + (α / r) · B A
without knowing of it: the stepper and its kernels, which read it once, exports, and transformers' fused attention. The
decoder's blocks and linear layers do not read it: they take W and the factors apart (`updated`) and compute the branch
(`unitok.decoder.products`), in training as in answering. Updates can be switched off, which gives the first weights
bit for bit, and merged, which can be undone bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unitok.decoder.products import Matrix, Updated, linear, product_type
from unitok_tokenizers.errors import InputError

TARGETS = ("q", "k", "v", "out", "gate", "up", "down")
PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.(?:original$|0(?=\.))")
"""What registering an update makes of a matrix's name, and of its factors'."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which weights get updates, of which rank."""

    rank: int = 8
    """r, inner size of an update."""
    alpha: float = 32.0
    """An update counts α ÷ r."""
    targets: tuple[str, ...] = ("q", "v")
    """Matrices that get one: q, k, v, out (attention), gate, up, down (the decoder's feed-forward)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank is {self.rank}: it must be 1 or more")
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets:
            raise InputError(f"lora.targets are {', '.join(self.targets)}: choose from {', '.join(TARGETS)}")


class LowRank(nn.Module):
    """The updates of one matrix (R, I): of some of its bands of rows, each with factors of its own."""

    def __init__(self, bands: Sequence[tuple[str, int]], width: int, config: LoraConfig) -> None:
        super().__init__()
        self.bands, self.scale, self.on = list(bands), config.alpha / config.rank, True
        chosen = [(name, rows) for name, rows in bands if name in config.targets]
        self.a = nn.ParameterDict({name: torch.empty(config.rank, width) for name, _ in chosen})
        self.b = nn.ParameterDict({name: torch.zeros(rows, config.rank) for name, rows in chosen})
        for value in self.a.values():
            nn.init.kaiming_uniform_(value, a=5**0.5)  # what peft does

    def forward(self, weight: Tensor) -> Tensor:
        """(R, I) → (R, I)."""
        if not self.on:
            return weight
        deltas = [
            (self.b[name] @ self.a[name]).to(weight.dtype) * self.scale
            if name in self.a
            else weight.new_zeros(rows, weight.shape[1])
            for name, rows in self.bands
        ]
        return weight + (deltas[0] if len(deltas) == 1 else torch.cat(deltas))

    def beside(self, weight: Tensor) -> Updated:
        """The matrix with its factors, for a product that computes the branch."""
        ends = list(accumulate(rows for _, rows in self.bands))
        found = [(name, end - rows) for (name, rows), end in zip(self.bands, ends) if name in self.a]
        a, b = tuple(self.a[name] for name, _ in found), tuple(self.b[name] for name, _ in found)
        return Updated(weight, a, b, tuple(start for _, start in found), self.scale)


def updated(module: nn.Module, name: str) -> Matrix:
    """A module's matrix with its updates apart where it has some that are switched on, else as it is."""
    if not parametrize.is_parametrized(module, name):
        weight: Tensor = getattr(module, name)
        return weight
    chain: Any = module.get_submodule(f"parametrizations.{name}")
    assert len(chain) == 1 and isinstance(chain[0], LowRank), f"{name} has low-rank updates alone"
    original: Tensor = chain.original
    return chain[0].beside(original) if chain[0].on else original


class UpdatedLinear(nn.Linear):
    """A linear layer whose forward pass takes the updates of its weight apart."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) → (…, R)."""
        rows = x.reshape(-1, self.in_features).to(product_type(x))
        return linear(rows, updated(self, "weight"), self.bias).view(*x.shape[:-1], self.out_features)


@runtime_checkable
class Banded(Protocol):
    """A module with matrices that may get updates."""

    def bands(self) -> dict[str, list[tuple[str, int]]]:
        """Matrix → names and rows of what it joins."""


def _sites(module: nn.Module) -> Iterator[tuple[nn.Module, str, list[tuple[str, int]]]]:
    """(module, parameter's name, bands of its rows) of every matrix that could get updates."""
    for name, part in module.named_modules():
        short = name.rpartition(".")[2].removesuffix("_proj")
        if isinstance(part, Banded):
            joined, owner = part.bands(), module.get_submodule(name)
            yield from ((owner, matrix, bands) for matrix, bands in joined.items())
        if isinstance(part, nn.Linear) and short in TARGETS:
            yield part, "weight", [(short, part.out_features)]


def add_lora(module: nn.Module, config: LoraConfig) -> None:
    """Give a decoder's blocks, or an encoder's attention (linear layers called `q_proj` …), updates; freeze the rest.

    The factors of a matrix on the meta device are in memory, unless everything is being made there.

    InputError where there is nothing of that name.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    found = 0
    for part, matrix, bands in list(_sites(module)):
        if any(name in config.targets for name, _ in bands):
            weight = getattr(part, matrix)
            update = LowRank(bands, weight.shape[1], config)
            if not weight.is_meta:  # one whose values come later has its factors already: they are drawn here
                update.to(weight.device)
            if type(part) is nn.Linear:  # what derives from it may compute something else: it reads the attribute
                part.__class__ = UpdatedLinear
            parametrize.register_parametrization(part, matrix, update, unsafe=True)
            found += 1
    if not found:
        raise InputError(f"lora.targets are {', '.join(config.targets)}: this part has no such matrices")


def updates(module: nn.Module) -> dict[str, LowRank]:
    """Every update by the name of its matrix; empty without any."""
    found = {}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part):
            for parameter, chain in part.parametrizations.items():
                found.update({f"{name}.{parameter}": one for one in chain if isinstance(one, LowRank)})
    return found


def plain_name(name: str) -> str:
    """A parameter's name as files have it: a matrix as without updates, factors as `lora_tensors` calls them."""
    return PARAMETRIZED.sub(r"\1", name)


def lora_tensors(module: nn.Module) -> dict[str, Tensor]:
    """All factors by name."""
    parts = ((name, one.state_dict()) for name, one in updates(module).items())
    return {f"{name}.{key}": value.detach() for name, state in parts for key, value in state.items()}


def load_lora(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `lora_tensors`. InputError where they do not fit."""
    check_lora(module, {name: value.shape for name, value in tensors.items()})
    for name, value in lora_tensors(module).items():
        value.copy_(tensors[name])


def check_lora(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """InputError where factors of these names and shapes are not a module's."""
    own = {name: tuple(value.shape) for name, value in lora_tensors(module).items()}
    if own != {name: tuple(shape) for name, shape in shapes.items()}:
        raise InputError("these low-rank updates are of another model or rank; take the files of one model")


@contextmanager
def without_lora(module: nn.Module) -> Iterator[None]:
    """Switch all updates off meanwhile: the weights are then the first ones, bit for bit."""
    found = updates(module).values()
    for one in found:
        one.on = False
    try:
        yield
    finally:
        for one in found:
            one.on = True


class Merged:
    """Updates that were added into the weights for good, and what takes to undo that."""

    def __init__(self, config: LoraConfig, tensors: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        self.config, self.tensors, self.weights = config, tensors, weights

    @torch.no_grad()
    def undo(self, module: nn.Module) -> None:
        """Put the first weights and the updates back, both bit for bit."""
        parameters = dict(module.named_parameters())
        for name, value in self.weights.items():
            parameters[name].copy_(value)
        add_lora(module, self.config)
        load_lora(module, self.tensors)


@torch.no_grad()
def merge_lora(module: nn.Module, config: LoraConfig) -> Merged:
    """Add the updates into the weights; the module is then as it was before `add_lora`, with other values."""
    tensors = {name: value.clone() for name, value in lora_tensors(module).items()}
    weights = {}
    for path in updates(module):
        owner, _, parameter = path.rpartition(".")
        part = module.get_submodule(owner)
        merged = getattr(part, parameter).detach().clone()
        parametrize.remove_parametrizations(part, parameter, leave_parametrized=False)
        if type(part) is UpdatedLinear:
            part.__class__ = nn.Linear  # type: ignore[assignment]
        weight = getattr(part, parameter)
        weights[path] = weight.detach().clone()
        weight.copy_(merged)
    return Merged(config, tensors, weights)


def lora_config(module: nn.Module) -> LoraConfig | None:
    """Rank, α and targets of the updates that a module has; None without any."""
    found = list(updates(module).values())
    if not found:
        return None
    rank = next(iter(found[0].a.values())).shape[0]
    names = {name for one in found for name in one.a}
    return LoraConfig(rank=rank, alpha=found[0].scale * rank, targets=tuple(n for n in TARGETS if n in names))


def lora_json(config: LoraConfig) -> dict[str, Any]:
    """A configuration as JSON; `LoraConfig(**…)` with the targets as a tuple reads it."""
    return {**asdict(config), "targets": list(config.targets)}
