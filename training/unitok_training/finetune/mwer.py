"""Fewer word errors instead of likelier references: the last stage of Seed-ASR's kind, on a latent model's own n-best.

Every step searches for the best hypotheses of some recordings, counts their errors, and moves the decoder so that the
expected errors of each list fall (Prabhavalkar et al. 2018); the reference's own likelihood is held beside it.

H hypotheses of a list, N vectors, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.model import pack_documents
from unitok.frontends.prompt_vectors import joined, placed
from unitok.model import Model
from unitok.nbest.correction import edits
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.compute import check_precision, resolve
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.progress import advance
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.text.scripts import TOKEN
from unitok_training.data.hash_rng import EpochOrder
from unitok_training.data.latent_examples import filled
from unitok_training.data.latent_tasks import LATENT_TASKS, RowTexts, asked_items
from unitok_training.evaluation.latent import Question, hear, question
from unitok_training.finetune.rescorer_training import mwer_loss
from unitok_training.finetune.supervised import trainable_only
from unitok_training.fitting.network import fit_network
from unitok_training.fitting.share import Share
from unitok_training.trainer.distributed import World
from unitok_training.trainer.optimizer import OptimConfig


@dataclass(frozen=True, kw_only=True)
class MwerConfig:
    """How long, how fast, over how many hypotheses."""

    steps: int = 50
    """Updates."""
    lists: int = 4
    """Recordings of an update."""
    beams: int = 4
    """H at most; equal texts of a list count once."""
    reference_weight: float = 0.1
    """Weight of the reference's negative log-likelihood, in nats per id."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(learning_rate=1e-4, warmup_steps=5, weight_decay=0.0)
    )
    """Learning rate, its course and clipping; AdamW."""
    precision: str = "fp32"
    """"fp32", "bf16" (float32 weights, autocast) or "auto", of the pass that is differentiated."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_precision(self.precision)
        if self.steps < 1 or self.lists < 1 or self.beams < 2:
            raise InputError(
                f"steps {self.steps}, lists {self.lists}, beams {self.beams}: at least 1, 1 and 2 are needed"
            )


def train_mwer(
    model: Model,
    rows: Sequence[Row],
    config: MwerConfig,
    *,
    key: str = "asr",
    progress: Callable[[int, float], None] | None = None,
    world: World | None = None,
) -> list[float]:
    """Move a model's decoder, in place; returns the expected errors of a list at every step.

    Args:
        model: encoder and adapter stay as they are.
        rows: with audio and text.
        config: how long and how fast.
        key: line of `LATENT_TASKS` that asks for a transcript.
        progress: called with (step, expected errors).
        world: processes that share the lists of an update; each has what one would have, and writes nothing.

    Raises:
        InputError: rows that the line does not fit, or a loss that is not finite.
    """
    table, line = RowTexts(rows, model.tokenizers.text), LATENT_TASKS[key]
    items = asked_items(line, rows)
    if not items:
        raise InputError(f"{key}: no row has what it needs")
    order = EpochOrder(len(items), (config.seed,))
    moving = list(model.decoder.parameters())
    compute, expected = resolve(model.decoder.head_weight.device, config.precision), list[float]()
    share = Share(world)

    def loss(step: int) -> Tensor:
        random = np.random.default_rng([config.seed, step])
        chosen = order.items(np.arange(step * config.lists, (step + 1) * config.lists)).tolist()
        asked = [question(line, table, items[one], random) for one in chosen][share.of(len(chosen))]
        model.decoder.eval()
        lists = hypotheses(model, asked, config.beams)
        objective, errors = torch.zeros((), device=model.device), 0.0
        for one, (texts, vectors) in zip(asked, lists):
            with compute.mixed():
                logs, sizes = log_probabilities(model, one, [*texts, one.answer], vectors)
            each = [float(edits(TOKEN.findall(one.answer), TOKEN.findall(text))) for text in texts]
            counts = torch.tensor(each, device=model.device)
            objective = objective + mwer_loss(logs[:-1], counts)
            objective = objective - config.reference_weight * logs[-1] / sizes[-1]
            errors += float((logs[:-1].detach().softmax(-1) * counts).sum())
        total = torch.tensor(errors if share.own else 0.0, dtype=torch.float64, device=model.device)
        share.world.sum_([total])
        expected.append(float(total) / config.lists)
        return share.mean(objective / len(asked))

    def tell(step: int, total: float) -> None:
        advance("step", step, config.steps, expected[-1])
        if progress is not None:
            progress(step, expected[-1])

    with trainable_only(model.decoder, moving):
        fit_network(
            model.decoder,
            loss,
            steps=config.steps,
            optim=config.optim,
            compute=compute,
            moving=moving,
            plain=True,
            progress=tell,
            share=share,
        )
    return expected


def hypotheses(model: Model, asked: Sequence[Question], beams: int) -> list[tuple[list[str], Tensor]]:
    """(distinct texts of the best hypotheses, vectors (N, C) of the recordings) of each question."""
    heard = iter(hear(model, [row for one in asked for row in one.heard]))
    found = []
    for one in asked:
        vectors = [next(heard) for _ in one.heard]
        plan = filled(one.plan, [len(given) for given in vectors])
        result = model.run([PromptRequest(plan=plan, vectors=torch.cat(vectors))], beams=beams)[0]
        found.append((list(dict.fromkeys(text for text, _ in result.nbest)), torch.cat(vectors).clone()))
    return found


def log_probabilities(model: Model, one: Question, texts: Sequence[str], vectors: Tensor) -> tuple[Tensor, list[int]]:
    """(log-probabilities (H,) of answers to a question, with gradient; ids of each)."""
    encode, hole = model.tokenizers.text.encode, model.vocabulary.control("<lat>")
    counts, holes = [len(vectors)], sum(span.kind == "lat" for span in one.plan.conditions)
    if holes != 1:
        raise InputError(f"{holes} recordings in one prompt: lists are made of one")
    plan = filled(one.plan, counts)
    prompt = render_prompt(plan, model.vocabulary)
    ids = [
        render(replace(plan, outputs=(Span("text", np.asarray(encode(text), dtype=np.int64)),)), model.vocabulary).ids
        for text in texts
    ]
    device = model.device
    packed = pack_documents(ids, device)
    starts = np.cumsum([0, *packed.lengths[:-1]]).tolist()
    given, index = joined([placed(prompt, hole, vectors)] * len(ids), starts, device)
    lengths = torch.full((len(ids),), len(prompt), dtype=torch.int64, device=device)
    hidden = model.decoder(
        packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen,
        prefix_lengths=lengths, vectors=given, vector_index=index,
    )  # fmt: skip
    found = []
    for start, answer in zip(starts, ids):
        logits = model.decoder.logits(hidden[start + len(prompt) - 1 : start + len(answer) - 1]).float()
        wanted = torch.from_numpy(answer[len(prompt) :]).to(device)[:, None]
        found.append(logits.log_softmax(-1).gather(1, wanted).sum())
    return torch.stack(found), [len(answer) - len(prompt) for answer in ids]
