"""Fine-tuning on n-best lists: the `<ger>` line (HyPoradise's H2T-ft) and the `<gtr>` line (GenTranslate).

Also what may stand beside the hypotheses while it learns: RobustGER's noise vectors, or a recording's frames through
gated cross-attention (Whispering-LLaMA).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from unitok.decoder.cross_attention import CrossAttentionAdapter
from unitok.decoder.lora import LoraConfig, add_lora, updates
from unitok.decoder.model import Decoder
from unitok.decoder.moe import mixtures
from unitok.decoder.noise_vector import NoiseVector, differences
from unitok.model import Model
from unitok.nbest.audio_context import AudioContext
from unitok.nbest.correction import VectorsOf, correction_plan
from unitok.nbest.lists import NBest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.batch import Pack
from unitok_training.data.documents import Document
from unitok_training.data.hash_rng import EpochOrder
from unitok_training.finetune.moe import balanced, expert_information, hidden_with_experts
from unitok_training.finetune.supervised import FinetuneConfig, HiddenOf, finetune, packs, plain_hidden


def teachable(lists: Sequence[NBest], most: int | None = None) -> list[NBest]:
    """Lists with a reference and, among their first `most` hypotheses, one that says something; InputError for none."""
    found = _complete(lists, most)
    if not found:
        raise InputError(f"none of {len(lists)} n-best lists has a reference and a hypothesis to learn from")
    return found


def _complete(lists: Sequence[NBest], most: int | None) -> list[NBest]:
    return [one for one in lists if (one.reference or "").strip() and any(text.strip() for text in one.texts[:most])]


@dataclass(frozen=True)
class CorrectionDocuments:
    """Example index → rendered list with its reference as the answer."""

    model: Model
    lists: Sequence[NBest]
    """Lists with references (see `teachable`)."""
    most: int = 5
    """Hypotheses of a list that are read."""
    vectors: int = 0
    """Places for vectors before the hypotheses."""
    seed: int = 0
    """Of the order."""
    task_of: Callable[[NBest], int] = lambda one: 0
    """Number of the task that a list belongs to, where experts are told."""

    @cached_property
    def _order(self) -> EpochOrder:
        return EpochOrder(len(self.lists), (self.seed,))

    def item(self, index: int) -> NBest:
        """The list behind an example."""
        return self.lists[self._order.item(index)]

    def plan(self, one: NBest) -> SequenceSpec:
        """A list with its answer."""
        encode = self.model.tokenizers.text.encode
        texts = [encode(text) for text in one.texts[: self.most]]
        plan = correction_plan(texts, lang=one.lang, target=one.target, vectors=self.vectors)
        return replace(plan, outputs=(Span("text", np.asarray(encode(one.reference or ""))),))

    def __call__(self, index: int) -> Document:
        one = self.item(index)
        rendered = render(self.plan(one), self.model.vocabulary)
        return Document(
            ids=rendered.ids,
            loss_weight=rendered.loss_weight,
            task=self.task_of(one),
            name=f"list {one.id}",
            prefix_length=rendered.prefix_length,
        )


def train_corrector(
    model: Model,
    lists: Sequence[NBest],
    config: FinetuneConfig,
    *,
    most: int = 5,
    parameters: Sequence[nn.Parameter] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Teach a model to correct lists, in place; returns the loss of every step.

    `parameters` are what moves: all of the decoder by default, those of LoRA where it was added.
    """
    documents = CorrectionDocuments(model, teachable(lists, most), most=most, seed=config.seed)
    losses = finetune(
        model.decoder, documents, config, pad=model.vocabulary.pad, parameters=parameters, progress=progress
    )
    _note_tasks(model, documents.lists)
    return losses


def _note_tasks(model: Model, lists: Sequence[NBest]) -> None:
    """Write down which lines a model has learnt."""
    known = [*model.info.get("tasks", []), *("ger" if one.target is None else "gtr" for one in lists)]
    model.info = {**model.info, "tasks": list(dict.fromkeys(known))}


def new_updates(model: Model, config: LoraConfig) -> list[nn.Parameter]:
    """Give a model's decoder low-rank updates; returns what of them moves, for `train_corrector(parameters=…)`."""
    add_lora(model.decoder, config)
    return [parameter for update in updates(model.decoder).values() for parameter in update.parameters()]


def train_expert_corrector(
    model: Model,
    lists: Sequence[NBest],
    config: FinetuneConfig,
    *,
    most: int = 5,
    told: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Teach a model with experts (`unitok.decoder.moe.expand`), in place; every task has an expert (NeKo).

    A task is a language and a target; where there are more of them than experts, some share one. With `told=False` none
    has its own: the router is alone.
    """
    chosen = teachable(lists, most)
    tasks, documents = _by_task(model, chosen, most, config.seed)
    experts = mixtures(model.decoder)[0].mixture.experts if told else 0
    losses = finetune(
        model.decoder,
        documents,
        config,
        pad=model.vocabulary.pad,
        hidden_of=hidden_with_experts(model.decoder, [number % experts if experts else -1 for number in range(tasks)]),
        extra=balanced(model.decoder),
        progress=progress,
    )
    _note_tasks(model, chosen)
    return losses


def _by_task(model: Model, lists: Sequence[NBest], most: int, seed: int) -> tuple[int, CorrectionDocuments]:
    """(number of tasks, documents that say theirs)."""
    tasks = sorted({(one.lang, one.target or "") for one in lists})
    number = {task: place for place, task in enumerate(tasks)}
    documents = CorrectionDocuments(
        model, lists, most=most, seed=seed, task_of=lambda one: number[one.lang, one.target or ""]
    )
    return len(tasks), documents


@torch.inference_mode()
def expert_use(model: Model, lists: Sequence[NBest], most: int) -> float:
    """`expert_information` of the routers alone, over the positions of lists with references; the blocks' mean."""
    chosen = _complete(lists, most)
    if not chosen:
        return 0.0
    _, documents = _by_task(model, chosen, most, 0)
    run, feeds = plain_hidden(model.decoder), mixtures(model.decoder)
    tasks: list[np.ndarray] = []
    firsts: list[np.ndarray] = []
    for pack, indices in packs(documents, FinetuneConfig(), pad=model.vocabulary.pad):
        run(pack.to(model.device), indices)
        tasks.append(pack.task_ids.numpy())
        chosen_first = [feed.probabilities.argmax(-1) for feed in feeds if feed.probabilities is not None]
        firsts.append(torch.stack(chosen_first).cpu().numpy())
        if indices[-1] + 1 >= len(chosen):
            break
    told, used = np.concatenate(tasks), np.concatenate(firsts, axis=1)
    return float(np.mean([expert_information(told[told >= 0], one[told >= 0]) for one in used]))


# -- noise vectors ------------------------------------------------------------------------------------------------


def list_differences(model: Model, one: NBest, most: int) -> Tensor:
    """(2 C,) how a list's hypotheses differ."""
    encode, to_ids = model.tokenizers.text.encode, model.vocabulary.to_ids
    return differences(model.decoder, [to_ids("text", np.asarray(encode(text))) for text in one.texts[:most]])


def noise_vectors_of(
    model: Model, adapter: NoiseVector, *, most: int = 5, shuffle_seed: int | None = None
) -> VectorsOf:
    """What a `Corrector` takes as `vectors_of`; with a `shuffle_seed` every list gets another one's vectors: of those
    that are asked with it, or, where it is asked alone, of the last one before it."""
    before = list[Tensor]()

    @torch.inference_mode()
    def vectors(lists: Sequence[NBest]) -> list[Tensor]:
        found = torch.stack([list_differences(model, one, most) for one in lists])
        if shuffle_seed is not None:
            own = found
            if len(found) > 1:
                found = found.roll(1 + int(np.random.default_rng(shuffle_seed).integers(len(found) - 1)), 0)
            elif before:
                found = before[0][None]
            before[:] = [own[-1]]
        return list(adapter(found))

    return vectors


def train_noise_corrector(
    model: Model,
    adapter: NoiseVector,
    lists: Sequence[NBest],
    config: FinetuneConfig,
    *,
    most: int = 5,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Teach a model and its noise adapter to correct lists together, in place."""
    chosen = teachable(lists, most)
    documents = CorrectionDocuments(model, chosen, most=most, vectors=adapter.config.vectors, seed=config.seed)
    hole = model.vocabulary.control("<lat>")

    def hidden(pack: Pack, indices: Sequence[int]) -> Tensor:
        found = [list_differences(model, documents.item(index), most) for index in indices]  # of the rows as they are
        vectors = adapter(torch.stack(found))  # (D, N, C)
        places = (pack.ids == hole).nonzero().squeeze(-1)
        return model.decoder(
            pack.ids,
            pack.positions,
            pack.sequences,
            pack.max_seqlen,
            vectors=vectors.flatten(0, 1),
            vector_index=places,
            prefix_lengths=pack.prefix_lengths[: pack.num_sequences],
        )

    moving = [*model.decoder.parameters(), *adapter.parameters()]
    losses = finetune(
        model.decoder,
        documents,
        config,
        pad=model.vocabulary.pad,
        parameters=moving,
        hidden_of=hidden,
        progress=progress,
    )
    _note_tasks(model, chosen)
    return losses


# -- recordings beside the list -----------------------------------------------------------------------------------


def hidden_with_frames(
    decoder: Decoder, adapter: CrossAttentionAdapter, frames_of: Callable[[Sequence[int]], Sequence[Tensor]]
) -> HiddenOf:
    """The decoder while every document looks at its recording; `frames_of` gives (F, E) of each example's index."""

    def run(pack: Pack, indices: Sequence[int]) -> Tensor:
        lengths = pack.sequences.diff().tolist()
        with adapter.attend(decoder, frames_of(indices), lengths):
            given = pack.prefix_lengths[: pack.num_sequences]
            return decoder(pack.ids, pack.positions, pack.sequences, pack.max_seqlen, prefix_lengths=given)

    return run


def train_hearing_corrector(
    model: Model,
    hearing: AudioContext,
    lists: Sequence[NBest],
    config: FinetuneConfig,
    *,
    most: int = 5,
    frozen: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Teach a model to correct lists while it looks at their recordings, in place, with the adapter.

    `frozen` leaves the decoder as it is and teaches the adapter alone, as Whispering-LLaMA does.
    """
    chosen = teachable(lists, most)
    documents = CorrectionDocuments(model, chosen, most=most, seed=config.seed)

    def frames(indices: Sequence[int]) -> list[Tensor]:
        return hearing.frames([documents.item(index) for index in indices])

    losses = finetune(
        model.decoder,
        documents,
        config,
        pad=model.vocabulary.pad,
        parameters=() if frozen else None,
        added=hearing.adapter.parameters(),
        hidden_of=hidden_with_frames(model.decoder, hearing.adapter, frames),
        progress=progress,
    )
    _note_tasks(model, chosen)
    return losses
