"""Perplexity and token accuracy of task lines: what can be scored of outputs that nothing here can say or read.

Teacher-forced, among the ids that the grammar allows, where it allows more than one. N choices of an example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from unitok.generation.sampling import masked_log_softmax
from unitok.layouts.base import CodebookLayout
from unitok.model import Model
from unitok.model_parts import LAYOUT, SECOND_PASS
from unitok.second_passes.base import SecondPass
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.tasks.base import PROSODY_KINDS, SPEECH_KINDS
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_training.data.batch import Pack, collate
from unitok_training.data.documents import Document
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture, parse_key
from unitok_training.evaluation.run import Evaluation
from unitok_training.objectives.pack_losses import hidden_states, stream_table
from unitok_training.objectives.second_pass import refined_losses
from unitok_training.objectives.slot_losses import FramedStates, framed_states, slot_losses, slot_names
from unitok_training.shard_set import ShardSet

AT_ONCE = 16
"""Examples that are read together."""
SLACK = 64
"""Ids that an example could still have had: the end is a choice, no limit forces it."""


def evaluate_tokens(run: Evaluation) -> None:
    """`tokens.<task>` for every task of a model whose units or codes were made elsewhere, for those with prosody of any
    model that has it, and what is not scored."""
    for key in run.model.info.get("tasks") or list(TOKEN_VARIANTS):
        if not run.model.elsewhere and not says_prosody(run.model, key):
            continue
        if why := unspoken(run.model, key):
            run.metrics.setdefault("not_scored", {})[key] = why
        try:
            documents = token_documents(run, key, run.shards, run.limit)
        except InputError as error:
            run.metrics.setdefault("not_scored", {})[key] = str(error)
            continue
        put_token_scores(run, key, documents)


def says_prosody(model: Model, key: str) -> bool:
    """Whether a task line reads or writes prosody, and the model has all of it."""
    one = parse_key(key).of
    kinds = set(PROSODY_KINDS) & {*one.outputs, *(one.variant.given or ())}
    return bool(kinds) and kinds <= model.vocabulary.streams.keys()


def token_documents(run: Evaluation, key: str, shards: Shards | ShardSet, limit: int) -> list[Document]:
    """The first examples of a task line in the order of a mixture, at most `limit` of them; 0 takes all.

    Raises:
        InputError: no row can be used.
    """
    options = ExampleOptions(split=run.split, target_row="fixed")
    pieces, mixture = run.model.tokenizers.text.pieces(), Mixture(tasks={key: 1.0})
    source = ExampleSource(shards, run.model.vocabulary, mixture, seed=run.seed, options=options, pieces=pieces)
    count = source.usable()[key]
    return [source.document(index) for index in range(min(count, limit) if limit else count)]


def put_token_scores(run: Evaluation, key: str, documents: Sequence[Document]) -> None:
    """Put perplexity and token accuracy of a task line's examples."""
    ids, logprobs, right = (np.concatenate(one) for one in zip(*choices_of(run.model, documents)))
    run.put(f"tokens.{key}.ppl", float(np.exp(-logprobs.mean())))
    run.put(f"tokens.{key}.token_accuracy", float(right.mean()))
    run.put(f"tokens.{key}.count", len(documents))
    names, table = stream_table(run.model.vocabulary)
    sums = slot_sums(run.model, documents)
    for number, name in enumerate(names):
        of = table.numpy()[ids] == number
        if name != "control" and of.any():
            run.put(f"tokens.{key}.by_stream.{name}.token_accuracy", float(right[of].mean()))
            beside = sums.get(name, (0.0, 0.0))  # the same codebook of a group's other frames
            sums[name] = (beside[0] - float(logprobs[of].sum()), beside[1] + int(of.sum()))
    for name, (nats, count) in sums.items():
        if count:
            run.put(f"tokens.{key}.by_stream.{name}.ppl", math.exp(nats / count))


def unspoken(model: Model, key: str) -> str:
    """Why nobody hears what a task line says; empty where it says nothing, or can be heard."""
    kind = next((kind for kind in reversed(parse_key(key).of.outputs) if kind in SPEECH_KINDS), None)
    stream = None if kind is None else model.made_elsewhere(kind)
    if stream is None:
        return ""
    return (
        f"{kind} were made elsewhere ({stream.fingerprint}) and no vocoder here speaks them: "
        f"no word errors and no BLEU of the speech; tokens.{key} says how well they are predicted"
    )


@torch.inference_mode()
def choices_of(model: Model, documents: Sequence[Document]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(id (N,), log-probability (N,) float32, whether it is the most probable (N,)) of each choice of each example."""
    for start in range(0, len(documents), AT_ONCE):
        part = documents[start : start + AT_ONCE]
        hidden, begin = states_of(model, _pack(model, part)).hidden, 0
        for one in part:
            first = int(np.flatnonzero(one.loss_weight)[0])
            logits = model.decoder.logits(hidden[begin + first - 1 : begin + len(one.ids) - 1])
            allowed, free = allowed_ids(model, one.ids, first)
            logprobs = masked_log_softmax(logits, torch.from_numpy(allowed).to(logits.device)).cpu()
            target = torch.from_numpy(one.ids[first:].astype(np.int64))
            found = logprobs.gather(1, target[:, None])[:, 0].numpy()
            yield target.numpy()[free], found[free], (logprobs.argmax(1) == target).numpy()[free]
            begin += len(one.ids)


def states_of(model: Model, given: Pack) -> FramedStates:
    """What a model's decoder makes of a pack, and of the codes beside its ids."""
    pack, layout = given.to(model.decoder.embedding.device), model.parts.get(LAYOUT)
    if isinstance(layout, CodebookLayout):
        return framed_states(model.decoder, layout, pack)
    hidden = hidden_states(model.decoder, pack)
    return FramedStates(hidden=hidden, rows=hidden[:0])


def _pack(model: Model, documents: Sequence[Document]) -> Pack:
    """Documents one after another, without padding, on the host."""
    return collate(documents, capacity=sum(len(one.ids) for one in documents), pad=model.vocabulary.pad)


@torch.inference_mode()
def slot_sums(model: Model, documents: Sequence[Document]) -> dict[str, tuple[float, float]]:
    """Codebook beside the ids → (negative log-likelihood of its codes in nats, how many they are); {} without a layout.

    Of those that a second pass finds it is what this gives them, each knowing the codebooks before it.
    """
    layout, second, sums = model.parts.get(LAYOUT), model.parts.get(SECOND_PASS), dict[str, tuple[float, float]]()
    if not isinstance(layout, CodebookLayout):
        return {}
    for start in range(0, len(documents), AT_ONCE):
        part = documents[start : start + AT_ONCE]
        pack = _pack(model, part)
        found = [slot_losses(layout, states_of(model, pack), pack.to(model.decoder.embedding.device))]
        if isinstance(second, SecondPass) and (of_spans := refined_losses(second, pack, model.vocabulary)):
            found.append(of_spans)
        for one in found:
            pairs = torch.stack([one.total, one.weight], 1).double().tolist()
            for name, (total, weight) in zip(slot_names(layout.pattern), pairs):
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + total, before[1] + weight)
    return sums


def slot_means(model: Model, documents: Sequence[Document]) -> dict[str, float]:
    """Codebook beside the ids → mean negative log-likelihood of its codes (nats); {} without a layout."""
    return {name: total / weight for name, (total, weight) in slot_sums(model, documents).items() if weight}


def allowed_ids(model: Model, ids: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids that the grammar allows at each place from `first` on (N, V), whether they are several (N,))."""
    automaton = Automaton(model.vocabulary, ids[:first], max_new_tokens=len(ids) - first + SLACK)
    masks = []
    for token in ids[first:].tolist():
        masks.append(automaton.mask(model.vocabulary.size))
        automaton.advance(token)
    allowed = np.stack(masks)
    return allowed, allowed.sum(1) > 1
