"""Training over rendered documents, for parts that learn from lists and not from shards.

`trainer.loop` draws from shards and writes checkpoints; here an example is a function of its index, a step lays
documents into one pack, and whoever calls says how hidden states come about: with vectors, with hooks, with experts.
T positions, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unitok.decoder.model import Decoder
from unitok_tokenizers.compute import check_precision, resolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.data.batch import Pack, collate
from unitok_training.data.documents import Document
from unitok_training.fitting.network import fit_network
from unitok_training.objectives.token_loss import supervised_losses
from unitok_training.trainer.optimizer import OptimConfig

HiddenOf = Callable[[Pack, Sequence[int]], Tensor]
"""(pack, indices of the examples in it) → hidden states (T, C)."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How long and how fast."""

    steps: int = 200
    """Updates."""
    positions: int = 2048
    """Most positions of a step's pack; a single longer document is a step of its own."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=5e-4, warmup_steps=20))
    """Learning rate, its course and clipping; AdamW."""
    added_rate: float = 3.0
    """New parts beside the decoder learn so many times as fast as it does."""
    precision: str = "fp32"
    """"fp32", "bf16" (float32 weights, autocast) or "auto": bf16 where the device multiplies it natively."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if check_precision(self.precision) == "bf16-pure":
            raise InputError("precision is 'bf16-pure': fine-tuning takes auto, fp32 or bf16")
        if self.steps < 1 or self.positions < 1:
            raise InputError(f"steps is {self.steps} and positions {self.positions}: each must be 1 or more")


def packs(document: Callable[[int], Document], config: FinetuneConfig, *, pad: int) -> Iterator[tuple[Pack, list[int]]]:
    """(pack, indices of its examples) without end; the examples come in the order of their indices."""
    index = 0
    waiting: Document | None = None
    while True:
        taken: list[Document] = []
        indices: list[int] = []
        used = 0
        while True:
            one = waiting or document(index)
            if taken and used + len(one.ids) > config.positions:
                waiting = one
                break
            waiting = None
            taken.append(one)
            indices.append(index)
            used += len(one.ids)
            index += 1
        yield collate(taken, capacity=used, pad=pad), indices


def plain_hidden(decoder: Decoder) -> HiddenOf:
    """The decoder as it is."""

    def run(pack: Pack, indices: Sequence[int]) -> Tensor:
        lengths = pack.prefix_lengths[: pack.num_sequences]
        return decoder(pack.ids, pack.positions, pack.sequences, pack.max_seqlen, prefix_lengths=lengths)

    return run


def finetune(
    decoder: Decoder,
    document: Callable[[int], Document],
    config: FinetuneConfig,
    *,
    pad: int,
    parameters: Iterable[nn.Parameter] | None = None,
    added: Iterable[nn.Parameter] = (),
    hidden_of: HiddenOf | None = None,
    extra: Callable[[], Tensor] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train in place; returns the mean loss of every step, in nats per supervised id.

    Args:
        decoder: whose head gives the logits.
        document: example of an index.
        config: how long and how fast.
        pad: padding id (no pack holds any).
        parameters: what moves; the whole decoder where None. Everything else is frozen while this runs.
        added: what moves as well, `config.added_rate` times as fast.
        hidden_of: the forward; the plain decoder where None.
        extra: one more loss of the forward just done, such as load balancing.
        progress: called with (step, loss).

    Raises:
        InputError: a loss that is not finite; the weights were not updated with it.
    """
    chosen, more = list(decoder.parameters() if parameters is None else parameters), list(added)
    run, means = hidden_of or plain_hidden(decoder), list[Tensor]()
    compute = resolve(decoder.head_weight.device, config.precision)
    made = packs(document, config, pad=pad)

    def loss(step: int) -> Tensor:
        pack, indices = next(made)
        pack = pack.to(decoder.embedding.device)
        with compute.mixed():
            found = supervised_losses(
                run(pack, indices),
                decoder.head_weight,
                labels=pack.labels,
                loss_weight=pack.loss_weight,
                task_ids=pack.task_ids,
            )
        mean = found.total / max(pack.supervised, 1)
        means.append(mean.detach())
        return mean + extra() if extra is not None else mean

    def tell(step: int, total: float) -> None:
        if progress is not None:
            progress(step, float(means[-1]))

    with trainable_only(decoder, [*chosen, *more]):
        fit_network(
            decoder, loss, steps=config.steps, optim=config.optim, compute=compute, moving=chosen, quicker=more,
            times=config.added_rate, plain=True, shown="step", progress=tell,
        )  # fmt: skip
    return torch.stack(means).tolist()


class trainable_only:
    """While this lasts, gradients are computed for these parameters alone, among them and a decoder's."""

    def __init__(self, decoder: nn.Module, moving: Sequence[nn.Parameter]) -> None:
        chosen = {id(one) for one in moving}
        self.before = [(one, one.requires_grad) for one in [*decoder.parameters(), *moving]]
        self.chosen = chosen

    def __enter__(self) -> None:
        for parameter, _ in self.before:
            parameter.requires_grad_(id(parameter) in self.chosen)

    def __exit__(self, *error: object) -> None:
        for parameter, wanted in self.before:
            parameter.requires_grad_(wanted)
            parameter.grad = None
