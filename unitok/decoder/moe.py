"""A mixture of experts in place of the feed-forward: top-k routing (Shazeer et al. 2017), tasks tied to experts (NeKo).

Every position's k most probable experts answer, weighted by their probabilities among the k. While training, a position
may be told its task's expert: then that one answers beside the router's best (NeKo, Lin et al. 2024); at inference the
router is alone. With one expert this is the dense feed-forward.

T positions, E experts, K chosen ones, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.model import Block, Decoder, DecoderConfig, FeedForward
from unitok.decoder.products import rms_norm
from unitok_tokenizers.errors import InputError

EXPERT_WEIGHTS = ("norm", "gate_up", "down")


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Shape of the mixture."""

    experts: int = 4
    """E."""
    chosen: int = 2
    """K: experts that answer a position."""

    def __post_init__(self) -> None:
        if not 1 <= self.chosen <= self.experts:
            raise InputError(f"chosen is {self.chosen} of {self.experts} experts: choose 1 to all of them")


class MixtureFeedForward(nn.Module):
    """E feed-forwards and a router."""

    def __init__(self, config: DecoderConfig, mixture: MixtureConfig) -> None:
        super().__init__()
        self.mixture, self.eps = mixture, config.norm_eps
        self.router = nn.Parameter(torch.empty(mixture.experts, config.width))
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(mixture.experts))
        self.forced: Tensor | None = None
        """(T,) expert of each position's task, -1 for none."""
        self.probabilities: Tensor | None = None
        """(T, E) of the router in the last call, for the load-balancing loss."""
        self.picked: Tensor | None = None
        """(T, K) experts that answered in the last call."""

    def forward(self, x: Tensor) -> Tensor:
        """(T, C) → (T, C), residual included."""
        probabilities = self.route(x)
        rank = probabilities
        if self.forced is not None:
            told = functional.one_hot(self.forced.clamp_min(0).long(), self.mixture.experts).bool()
            rank = probabilities.masked_fill(told & (self.forced >= 0)[:, None], 2.0)  # above every probability
        index = rank.topk(self.mixture.chosen, -1).indices  # (T, K)
        weights = probabilities.gather(1, index)
        weights = weights / weights.sum(-1, keepdim=True)
        self.probabilities, self.picked = probabilities, index
        mixed = torch.zeros(x.shape, dtype=torch.float32, device=x.device)  # one rounding, not one for every expert
        for number, expert in enumerate(self.experts):
            rows, place = (index == number).nonzero(as_tuple=True)
            if len(rows):
                assert isinstance(expert, FeedForward)
                mixed = mixed.index_add(0, rows, expert.update(x[rows]).float() * weights[rows, place, None])
        return x + mixed.to(x.dtype)

    def route(self, x: Tensor) -> Tensor:
        """(T, C) → (T, E) probabilities, in float32 also under autocast: a rounded tie would choose another expert."""
        norm = self.experts[0].norm
        assert isinstance(norm, Tensor)
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(rms_norm(x.float(), norm, self.eps), self.router.float()).softmax(-1)


def mixture_factory(mixture: MixtureConfig) -> Callable[[DecoderConfig], nn.Module]:
    """What `Decoder(feed_forward=…)` takes."""
    return lambda config: MixtureFeedForward(config, mixture)


def mixtures(decoder: Decoder) -> list[MixtureFeedForward]:
    """The mixtures of a decoder's blocks."""
    feeds = [block.feed_forward for block in decoder.blocks if isinstance(block, Block)]
    return [feed for feed in feeds if isinstance(feed, MixtureFeedForward)]


def expand(dense: Decoder, mixture: MixtureConfig, *, generator: torch.Generator | None = None) -> Decoder:
    """A decoder whose experts are all copies of a dense one's feed-forward (sparse upcycling): it answers the same."""
    made = Decoder(dense.config, generator=generator, feed_forward=mixture_factory(mixture))
    own, state = dense.state_dict(), made.state_dict()
    for name in state:
        block, experts, rest = name.partition(".experts.")
        if not name.endswith(".router"):
            state[name] = own[f"{block}.{rest.partition('.')[2]}" if experts else name].clone()
    made.load_state_dict(state)
    _copy_output_biases(dense, made)
    return made.to(dense.embedding.device, dense.embedding.dtype).train(dense.training)


def _copy_output_biases(source: Decoder, made: Decoder) -> None:
    """Biases of the attention's output, which imported decoders may have: no configuration tells of them."""
    for old, new in zip(source.blocks, made.blocks, strict=True):
        assert isinstance(old, Block) and isinstance(new, Block)
        new.out_bias = None if old.out_bias is None else nn.Parameter(old.out_bias.detach().clone())


def first_experts(decoder: Decoder) -> Decoder:
    """A dense decoder with the first expert of every block: the inverse of `expand` where all are still copies."""
    dense = Decoder(decoder.config)
    for name, value in dense.named_parameters():
        owner, _, leaf = name.replace(".feed_forward.", ".feed_forward.experts.0.").rpartition(".")
        with torch.no_grad():
            value.copy_(getattr(decoder.get_submodule(owner), leaf))  # an attribute: it may have low-rank updates
    _copy_output_biases(decoder, dense)
    return dense.to(decoder.embedding.device, decoder.embedding.dtype).train(decoder.training)


def expert_tensors(decoder: Decoder) -> dict[str, Tensor]:
    """Routers and experts of every block, as `<block>.router` and `<block>.experts.<expert>.<weight>`."""
    found = {}
    for layer, feed in enumerate(mixtures(decoder)):
        found[f"{layer}.router"] = feed.router.detach()
        for number, expert in enumerate(feed.experts):
            for leaf in EXPERT_WEIGHTS:
                found[f"{layer}.experts.{number}.{leaf}"] = getattr(expert, leaf).detach()
    return found


@contextmanager
def told_experts(decoder: Decoder, experts: Tensor) -> Iterator[None]:
    """While this lasts, positions (T,) are told an expert each, -1 for none."""
    for feed in mixtures(decoder):
        feed.forced = experts
    try:
        yield
    finally:
        for feed in mixtures(decoder):
            feed.forced = None


def balance_loss(decoder: Decoder) -> Tensor:
    """E · Σ_e (share of positions whose first choice is e) · (mean probability of e), over the blocks' mean.

    1 where the load is even, E where one expert takes all (Fedus et al. 2021, eq. 4). Of the last forward.
    """
    losses = []
    for feed in mixtures(decoder):
        assert feed.probabilities is not None, "the decoder has not run yet"
        count = feed.mixture.experts
        first = functional.one_hot(feed.probabilities.argmax(-1), count).float().mean(0)
        losses.append(count * (first * feed.probabilities.mean(0)).sum())
    return torch.stack(losses).mean()
