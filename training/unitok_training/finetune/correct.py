"""What `unitok correct` does: teach a model to correct lists in one of five ways, and score what it then writes.

In full (HyPoradise), by low-rank updates (LoRA), with vectors of how the hypotheses differ before them (RobustGER),
with experts of which every language and target has one (NeKo), or while it looks at the recording (Whispering-LLaMA).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.lora import TARGETS, LoraConfig, lora_config
from unitok.decoder.moe import MixtureConfig, expand, mixtures
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.model import Model
from unitok.nbest.audio_context import ADAPTER, ENCODER, encoder_of, hearing_of
from unitok.nbest.correction import Beside, Corrector, VectorsOf
from unitok.nbest.lists import NBest
from unitok.nbest.prompting import PromptCorrector, own_language_model
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.nbest import correction_scores, oracle_scores, translation_scores
from unitok_training.finetune.corrector_training import (
    expert_use,
    new_updates,
    noise_vectors_of,
    train_corrector,
    train_expert_corrector,
    train_hearing_corrector,
    train_noise_corrector,
)
from unitok_training.finetune.supervised import FinetuneConfig

HEAD = 32
"""Width of an attention head that looks at frames."""


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """How a model learns to correct; one of `lora`, `noise_vectors`, `experts` and `hear` at most."""

    read: int = 5
    """Hypotheses of a list that are read."""
    lora: int = 0
    """Rank of low-rank updates of every matrix; 0 moves the weights themselves."""
    noise_vectors: int = 0
    """Vectors of the hypotheses' differences before them; 0 for none."""
    experts: int = 0
    """Experts in place of every feed-forward; 0 leaves it dense."""
    told: bool = True
    """While experts learn, every language and target is told its own; otherwise the router is alone."""
    hear: str = ""
    """Folder of the encoder whose frames the decoder looks at (`nbest.audio_context.encoder_of`); empty for none."""
    recordings: str = ""
    """Shards or manifest that the lists were made from, for `hear`."""
    size: int = 128
    """Width of the queries, keys and values that look at frames."""
    frozen: bool = False
    """With `hear`, only the adapter learns."""

    def __post_init__(self) -> None:
        ways = [name for name in ("lora", "noise_vectors", "experts", "hear") if getattr(self, name)]
        if len(ways) > 1:
            raise InputError(f"{ways[0]} and {ways[1]} are both given: choose one way to teach")
        if self.hear and not self.recordings:
            raise InputError("hear is given and recordings is not; name the shards or the manifest of the lists")
        if self.frozen and not self.hear:
            raise InputError("frozen is given without hear: it leaves nothing to learn")
        if self.size < HEAD or self.size % HEAD:
            raise InputError(f"size is {self.size}: it must be a multiple of {HEAD}")
        if self.read < 1 or min(self.lora, self.noise_vectors, self.experts) < 0:
            raise InputError(
                f"read is {self.read}, lora {self.lora}, noise_vectors {self.noise_vectors}, experts {self.experts}: "
                "read 1 hypothesis or more, and give no negative number"
            )


def teach(
    model: Model,
    lists: Sequence[NBest],
    config: FinetuneConfig,
    teaching: SupervisedConfig,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Teach a model, in place. InputError where no list has a reference, or a part of this kind is there already."""
    read = teaching.read
    if part := next((name for name in ("noise_vector", ADAPTER) if name in model.parts), ""):
        raise InputError(f"this model corrects with its part {part!r} already: start from one that has none")
    torch.manual_seed(config.seed)  # new parts
    if (teaching.lora or teaching.experts) and (there := lora_config(model.decoder)) is not None:
        what = "--lora, to go on with them" if teaching.lora else "--experts"
        raise InputError(
            f"this model has low-rank updates already, of rank {there.rank}: leave out {what}, or start from one that "
            "has none"
        )
    if teaching.noise_vectors:
        sizes = NoiseVectorConfig(width=model.decoder.config.width, vectors=teaching.noise_vectors)
        adapter = NoiseVector(sizes).to(model.device)
        train_noise_corrector(model, adapter, lists, config, most=read, progress=progress)
        model.parts["noise_vector"] = adapter
    elif teaching.experts:
        if mixtures(model.decoder):
            raise InputError("this model has experts already; start from one that has none")
        mixture = MixtureConfig(experts=teaching.experts, chosen=min(2, teaching.experts))
        model.decoder = expand(model.decoder, mixture)
        train_expert_corrector(model, lists, config, most=read, told=teaching.told, progress=progress)
    elif teaching.hear:
        encoder = encoder_of(teaching.hear).requires_grad_(False).to(model.device)
        shape = CrossAttentionConfig(frames=encoder.width, size=teaching.size, heads=teaching.size // HEAD)
        model.parts[ENCODER] = encoder
        model.parts[ADAPTER] = CrossAttentionAdapter(shape, model.decoder.config).to(model.device)
        hearing = hearing_of(model, teaching.recordings)
        train_hearing_corrector(model, hearing, lists, config, most=read, frozen=teaching.frozen, progress=progress)
    else:
        targets = LoraConfig(rank=teaching.lora, alpha=2.0 * teaching.lora, targets=TARGETS) if teaching.lora else None
        moving = None if targets is None else new_updates(model, targets)
        train_corrector(model, lists, config, most=read, parameters=moving, progress=progress)


def corrected(
    model: Model, lists: Sequence[NBest], *, read: int, recordings: str = ""
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """(figures, texts of every list) of a model that was taught: free, held to the list, and what else it allows.

    Lists without a reference are corrected and not scored. A model with noise vectors also answers with those of other
    lists (`ger_shuffled`), one that hears `recordings` also with silence in their place (`ger_silenced`), and lists of
    translations are also read no further than their first (`ger_first`): what that loses is what they were worth.
    """
    scored = [index for index, one in enumerate(lists) if one.reference is not None]
    known = [lists[index] for index in scored]
    figures = oracle_scores(known) if known else {}
    translations = bool(known) and all(one.target is not None for one in known)
    if translations:
        for name, scores in translation_scores(known).items():
            figures.setdefault(name, {}).update(scores)
    texts: list[dict[str, str]] = [{"id": one.id, "heard": one.texts[0]} for one in lists]
    if mixtures(model.decoder) and known:
        figures["experts"] = {"information": expert_use(model, known, read)}
    correctors = _correctors(model, read, recordings)
    if translations:
        correctors["ger_first"] = replace(correctors["ger"], most=1)
    for name, corrector in correctors.items():
        answers = corrector.correct(lists)
        if known:
            figures[name] = correction_scores(known, [answers[index] for index in scored])
        for line, answer in zip(texts, answers):
            line[name] = answer
    return figures, texts


def few_shot_scores(
    model: Model, lists: Sequence[NBest], learnt: Sequence[NBest], *, read: int, shots: int, seed: int = 0
) -> dict[str, Any]:
    """Scores of a model that nobody taught, whose `<lm>` line is shown examples of `learnt` before every list."""
    answers = [""] * len(lists)
    for lang in sorted({one.lang for one in lists}):
        rows = [index for index, one in enumerate(lists) if one.lang == lang]
        frozen = PromptCorrector(own_language_model(model, lang), learnt, shots=shots, most=read, seed=seed)
        for row, text in zip(rows, frozen.correct([lists[row] for row in rows])):
            answers[row] = text
    return correction_scores(lists, answers)


def _correctors(model: Model, read: int, recordings: str) -> dict[str, Corrector]:
    if ADAPTER in model.parts:
        if not recordings:
            raise InputError(
                "this model hears recordings beside lists; name their shards or manifest with --recordings"
            )
        hearing = hearing_of(model, recordings)
        silence = replace(hearing, silenced=True)
        return _pair(model, read, beside=partial(hearing.beside, model)) | {
            "ger_silenced": Corrector(model, most=read, beside=partial(silence.beside, model))
        }
    adapter = model.parts.get("noise_vector")
    if not isinstance(adapter, NoiseVector):
        return _pair(model, read)
    others = noise_vectors_of(model, adapter, most=read, shuffle_seed=0)
    return _pair(model, read, vectors_of=noise_vectors_of(model, adapter, most=read)) | {
        "ger_shuffled": Corrector(model, most=read, vectors_of=others)
    }


def _pair(
    model: Model, read: int, *, vectors_of: VectorsOf | None = None, beside: Beside | None = None
) -> dict[str, Corrector]:
    """Free, and held to the list."""
    return {
        name: Corrector(model, constrained=held, most=read, vectors_of=vectors_of, beside=beside)
        for name, held in (("ger", False), ("ger_constrained", True))
    }
