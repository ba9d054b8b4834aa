"""What a generator of waveforms learns from: discriminators, their features, and a balance between losses.

B batch, S samples, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_vocoder.discriminators import Judged

EPSILON = 1e-12
"""Added to a norm before it divides."""


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """How scores become losses."""

    real: Callable[[Tensor], Tensor]
    """Of the discriminator, for scores of recordings."""
    made: Callable[[Tensor], Tensor]
    """Of the discriminator, for scores of what was made."""
    fooled: Callable[[Tensor], Tensor]
    """Of the generator, for scores of what it made."""


ADVERSARIES = {
    "hinge": Adversary(
        real=lambda score: functional.relu(1 - score).mean(),
        made=lambda score: functional.relu(1 + score).mean(),
        fooled=lambda score: functional.relu(1 - score).mean(),
    ),
    "least_squares": Adversary(
        real=lambda score: (1 - score).square().mean(),
        made=lambda score: score.square().mean(),
        fooled=lambda score: (1 - score).square().mean(),
    ),
}
"""Défossez et al. 2022; Mao et al. 2017, as in HiFi-GAN."""


def discriminator_loss(real: Sequence[Judged], made: Sequence[Judged], adversary: Adversary) -> Tensor:
    """Mean over the discriminators, ()."""
    parts = [adversary.real(one.score.float()) + adversary.made(other.score.float()) for one, other in zip(real, made)]
    return torch.stack(parts).mean()


def adversarial_loss(made: Sequence[Judged], adversary: Adversary) -> Tensor:
    """Mean over the discriminators, ()."""
    return torch.stack([adversary.fooled(one.score.float()) for one in made]).mean()


def feature_loss(real: Sequence[Judged], made: Sequence[Judged]) -> Tensor:
    """L1 of features, each over the mean size of the recording's, mean over layers and discriminators, ()."""
    parts = []
    for one, other in zip(real, made):
        for true, false in zip(one.features, other.features):
            true = true.detach().float()
            parts.append((true - false.float()).abs().mean() / true.abs().mean().clamp(min=1e-5))
    return torch.stack(parts).mean()


class Balancer(nn.Module):
    """Gives each loss a fixed share of the gradient at the samples, whatever its size (Défossez et al. 2022).

    A loss's gradient is divided by a moving average of its norm, and multiplied by weight ÷ sum of weights.

    Args:
        weights: loss → weight; one that is not above 0 is left out.
        decay: of the moving averages.
    """

    def __init__(self, weights: Mapping[str, float], decay: float = 0.999) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.decay = decay
        for name in self.weights:
            self.register_buffer(f"norm_{name}", torch.zeros((), dtype=torch.float64))
            self.register_buffer(f"seen_{name}", torch.zeros((), dtype=torch.float64))

    def gradient(self, losses: Mapping[str, Tensor], samples: Tensor) -> Tensor:
        """What is to be sent back through the samples (B, S) that the losses () were computed from."""
        present = {name: losses[name] for name in self.weights if name in losses}
        total = sum(self.weights[name] for name in present)
        made = torch.zeros_like(samples)
        for name, loss in present.items():
            (found,) = torch.autograd.grad(loss, samples, retain_graph=True)
            # Per recording, so that a batch of twice the size does not halve it.
            norm = found.detach().double().flatten(1).norm(dim=1).mean()
            kept, seen = self.get_buffer(f"norm_{name}"), self.get_buffer(f"seen_{name}")
            kept.mul_(self.decay).add_(norm.to(kept.dtype))
            seen.mul_(self.decay).add_(1.0)
            mean = (kept / seen).to(found.dtype)
            made = made + found * (self.weights[name] / total / (mean + EPSILON))
        return made


def plain_gradient(losses: Mapping[str, Tensor], weights: Mapping[str, float], samples: Tensor) -> Tensor:
    """The gradient at the samples (B, S) of the weighted sum of losses ()."""
    parts = [weights[name] * loss for name, loss in losses.items() if weights[name] > 0]
    (found,) = torch.autograd.grad(torch.stack(parts).sum(), samples)
    return found
