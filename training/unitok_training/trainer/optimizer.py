"""AdamW (or Muon with AdamW), the learning rate over time, clipping, and float32 masters of bfloat16 weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unitok.layouts.slots import SlotTables
from unitok.second_passes.span_network import SpanNetwork
from unitok_tokenizers.errors import InputError

SCHEDULES = ("cosine", "linear", "wsd", "constant")
OPTIMIZERS = ("adamw", "muon")
FUSED = ("cpu", "cuda")
"""Devices whose fused AdamW torch has."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move."""

    name: str = "adamw"
    """"adamw", or "muon": orthogonalized momentum for the matrices of the blocks, AdamW for everything else."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    matrix_learning_rate: float = 0.02
    """Peak learning rate of Muon's matrices; unused with "adamw"."""
    min_ratio: float = 0.05
    """Learning rate at the end ÷ peak."""
    warmup_steps: int = 100
    """Steps of linear rise."""
    schedule: str = "cosine"
    """"cosine" or "linear" from the peak to the end, "wsd" (constant, then a linear decay), or "constant"."""
    decay_share: float = 0.25
    """Share of all steps that "wsd" decays over."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's moments."""
    epsilon: float = 1e-8
    """AdamW's ε."""
    momentum: float = 0.95
    """Muon's momentum."""
    weight_decay: float = 0.05
    """Decoupled decay of matrices; vectors, norms and the embedding never decay."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"optim.schedule is {self.schedule!r}: choose from {', '.join(SCHEDULES)}")
        if self.name not in OPTIMIZERS:
            raise InputError(f"optim.name is {self.name!r}: choose from {', '.join(OPTIMIZERS)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"optim.learning_rate is {self.learning_rate}: it must be above 0")
        if not 0 < self.matrix_learning_rate < math.inf:
            raise InputError(f"optim.matrix_learning_rate is {self.matrix_learning_rate}: it must be above 0")
        if not 0 <= self.clip < math.inf:
            raise InputError(f"optim.clip is {self.clip}: it must be above 0, or 0 for no limit")
        for name in ("warmup_steps", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"optim.{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("min_ratio", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"optim.{name} is {getattr(self, name)}: it lies between 0 and 1")
        if not all(0 <= value < 1 for value in (*self.betas, self.momentum)):
            raise InputError(f"optim.betas are {self.betas}, momentum {self.momentum}: each lies in [0, 1)")
        if not 0 < self.epsilon < 1:
            raise InputError(f"optim.epsilon is {self.epsilon}: it lies between 0 and 1")


def rate(step: int, *, steps: int, config: OptimConfig) -> float:
    """Factor of the peak learning rate for step 0 … steps − 1."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    span = max(steps - config.warmup_steps, 1)
    done = min((step - config.warmup_steps) / span, 1.0)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "wsd":
        decay = max(config.decay_share * steps, 1.0)
        done = max(0.0, (step - (steps - decay)) / decay)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1.0 - done
    return config.min_ratio + (1 - config.min_ratio) * max(shape, 0.0)


def clip_gradients(grads: list[Tensor], limit: float, norm: Tensor | None = None) -> Tensor:
    """Scale gradients in place to a norm of at most `limit` (0: no limit); returns the norm before, ().

    `norm` is given where these are slices of what all processes hold.
    """
    norm = torch.nn.utils.get_total_norm(grads) if norm is None else norm
    if limit:
        torch._foreach_mul_(grads, torch.clamp(limit / (norm + 1e-6), max=1.0))
    return norm


class MasterWeights:
    """The float32 weights that the optimizer moves.

    They are the module's own parameters, or, where the module is to compute in another dtype, copies of them made
    before its parameters are rounded.
    """

    def __init__(self, module: nn.Module, compute_dtype: torch.dtype = torch.float32) -> None:
        self.module = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.separate = compute_dtype != torch.float32
        self.named: dict[str, nn.Parameter] = self.module
        if self.separate:
            self.named = {name: nn.Parameter(value.detach().float()) for name, value in self.module.items()}
            for value in self.module.values():
                value.data = value.data.to(compute_dtype)

    def collect(self) -> None:
        """After a backward pass: add the module's gradients to the masters', in float32, and clear the former."""
        for name in self.module:
            self.collect_one(name)

    def collect_one(self, name: str) -> None:
        """The same for one weight."""
        parameter = self.module[name]
        if not self.separate or parameter.grad is None:
            return
        master = self.named[name]
        master.grad = parameter.grad.float() if master.grad is None else master.grad.add_(parameter.grad)
        parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Gradient of every master, zeros where a step did not reach it: all processes must have the same list."""
        for value in self.named.values():
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        return [value.grad for value in self.named.values() if value.grad is not None]

    @torch.no_grad()
    def publish(self) -> None:
        """After an update: write the masters, rounded, into the module."""
        if self.separate and self.named:  # a layout may have no weights, a part none that move
            torch._foreach_copy_(list(self.module.values()), list(self.named.values()))

    def part(self, name: str, tensors: Mapping[str, Tensor], key: str) -> Tensor:
        """What this process holds of the tensor `key`, which is a weight `name` or belongs to it: all."""
        return tensors[key]

    def restore(self) -> None:
        """Give the module its float32 weights back."""
        if self.separate:
            for name, value in self.module.items():
                value.data = self.named[name].detach().clone()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for value in self.named.values():
            value.grad = None


def embedding_names(module: nn.Module) -> set[str]:
    """Names of the weights of a module's embeddings, whatever they are called."""
    found = set[str]()
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | SlotTables):
            found.add(f"{name}.weight".removeprefix("."))
        elif isinstance(part, SpanNetwork):
            found |= {f"{name}.{own}".removeprefix(".") for own in part.row_names()}
    return found


def optimizer_of(module: nn.Module, config: OptimConfig, products: torch.dtype = torch.float32) -> Optimizer:
    """Over every parameter of a module; `products` as for `MuonParams`."""
    return Optimizer(dict(module.named_parameters()), config, MuonParams(products), embeddings=embedding_names(module))


class Optimizer:
    """One or two torch optimizers over named parameters, with a state that is saved by parameter name.

    Args:
        named: what moves.
        config: how.
        matrices: how Muon comes by whole matrices.
        embeddings: names of look-up tables beside those that are called so: their rows are no matrix of a linear map,
            and a step that orthogonalizes would move rows that nothing has read.
        plain: AdamW as torch makes it where nothing is said: not fused, all weights decay alike.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        config: OptimConfig,
        matrices: MuonParams | None = None,
        *,
        embeddings: Collection[str] = (),
        plain: bool = False,
    ) -> None:
        self.named = dict(named)
        self.config = config
        looked_up = {name for name in self.named if "embed" in name or name in embeddings}
        tables = {name for name, value in self.named.items() if value.ndim == 2 and name not in looked_up}
        by_muon = {name for name in tables if "head" not in name} if config.name == "muon" else set()
        decayed = [self.named[name] for name in self.named if name in tables and name not in by_muon]
        others = [self.named[name] for name in self.named if name not in tables]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": config.weight_decay if plain else 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        if groups:  # an adapter may be one matrix
            fused = not plain and all(value.device.type in FUSED for value in self.named.values())
            adamw = torch.optim.AdamW(
                groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=fused
            )
            self.parts.append((adamw, config.learning_rate))
        if by_muon:
            muon = Muon(
                [self.named[name] for name in self.named if name in by_muon],
                lr=config.matrix_learning_rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                matrices=matrices,
            )
            self.parts.append((muon, config.matrix_learning_rate))

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for value in self.named.values():
            value.grad = None

    def step(self, factor: float, *, skip: Tensor | None = None) -> None:
        """Update with the peak learning rates times `factor`; not at all where `skip` () float32 is 1 on the device."""
        for part, peak in self.parts:
            for group in part.param_groups:
                group["lr"] = peak * factor
            part.found_inf = skip  # type: ignore[attr-defined]
            part.step()

    def tensors(self) -> dict[str, Tensor]:
        """State as `parameter name|key` → tensor."""
        names = {id(value): name for name, value in self.named.items()}
        return {
            f"{names[id(parameter)]}|{key}": value
            for part, _ in self.parts
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`. InputError where the state belongs to other parameters."""
        owner = {id(p): part for part, _ in self.parts for group in part.param_groups for p in group["params"]}
        for full, value in tensors.items():
            name, _, key = full.rpartition("|")
            if name not in self.named or value.ndim and value.shape != self.named[name].shape:
                raise InputError(
                    f"optimizer state {full!r} of shape {tuple(value.shape)} fits no parameter of the model"
                )
            parameter = self.named[name]
            moved = value.to(parameter.device).clone()
            owner[id(parameter)].state.setdefault(parameter, {})[key] = moved


def descend(optimizer: Optimizer, loss: Tensor, *, step: int, steps: int) -> None:
    """Step 0 … steps − 1 down the gradient of a loss (), for small networks on one process."""
    optimizer.zero_grad()
    loss.backward()
    clip_gradients([value.grad for value in optimizer.named.values() if value.grad is not None], optimizer.config.clip)
    optimizer.step(rate(step, steps=steps, config=optimizer.config))


class MuonParams:
    """How Muon comes by whole matrices: here this process holds them.

    Args:
        products: type of the iteration's matrix products.
    """

    def __init__(self, products: torch.dtype = torch.float32) -> None:
        self.products = products

    def shape(self, parameter: Tensor) -> torch.Size:
        """Shape of the whole matrix."""
        return parameter.shape

    def orthogonalize(self, directions: Sequence[Tensor], shape: torch.Size) -> Sequence[Tensor]:
        """What this process holds of the orthogonalized matrices, given that of the matrices, all of one shape."""
        return orthogonalize(torch.stack(list(directions)), self.products).unbind()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized by a Newton-Schulz iteration (Jordan 2024), for matrices only."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        matrices: MuonParams | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None
        self.matrices = matrices or MuonParams()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; matrices of one shape are orthogonalized together."""
        keep = None if self.found_inf is None else 1.0 - self.found_inf
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(self.matrices.shape(parameter), []).append(parameter)
            for shape, parameters in by_shape.items():
                self._update(group, shape, parameters, keep)

    def _update(
        self, group: dict[str, Any], shape: torch.Size, parameters: list[nn.Parameter], keep: Tensor | None
    ) -> None:
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = parameter.grad if keep is None else torch.nan_to_num(parameter.grad) * keep
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            directions.append(gradient.lerp(state["momentum"], group["momentum"]))  # Nesterov
        updates = self.matrices.orthogonalize(directions, shape)
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        for parameter, update in zip(parameters, updates):
            move = group["lr"] * (scale * update + group["weight_decay"] * parameter)
            parameter.sub_(move if keep is None else move * keep)


CUBIC, QUINTIC, LINEAR = -4.7750, 2.0315, 3.4445
"""Coefficients of the iteration x ← LINEAR x + CUBIC (x xᵀ) x + QUINTIC (x xᵀ)² x (Jordan 2024)."""
LONG = 2
"""Columns a row from which on the iteration is cheaper by products of rows: 23 R³ in place of 35 where it is three."""


def orthogonalize(matrices: Tensor, products: torch.dtype = torch.float32, steps: int = 5) -> Tensor:
    """(B, R, C) → nearly orthogonal matrices with the same singular vectors, of the input's type.

    `products` is the type of what is multiplied: bfloat16 is as good as float32 here, where a device is quick with it.
    """
    x = matrices.to(products)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT.contiguous()  # the short side first: the products with it are the small ones
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if products == torch.float32 and x.shape[2] >= LONG * x.shape[1]:
        x = torch.bmm(_whole_iteration(torch.bmm(x, x.mT), steps), x)
    else:
        for _ in range(steps):
            x = torch.baddbmm(x, _polynomial(torch.bmm(x, x.mT)), x, beta=LINEAR)
    return (x.mT if tall else x).to(matrices.dtype)


def _polynomial(gram: Tensor) -> Tensor:
    """(B, R, R) CUBIC g + QUINTIC g²."""
    return torch.baddbmm(gram, gram, gram, beta=CUBIC, alpha=QUINTIC)


def _whole_iteration(gram: Tensor, steps: int) -> Tensor:
    """(B, R, R) what a matrix with these products of rows is multiplied by in all steps together.

    Every step multiplies by a polynomial of the products of rows, and these follow from those of the step before: only
    small matrices are multiplied. Their rounding counts twice as much, which bfloat16 does not bear.
    """
    whole = None
    for step in range(steps):
        factor = _polynomial(gram)
        factor.diagonal(dim1=1, dim2=2).add_(LINEAR)
        whole = factor if whole is None else torch.bmm(factor, whole)
        if step < steps - 1:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    assert whole is not None
    return whole
