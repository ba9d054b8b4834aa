"""Scores of held-out examples while a model trains: what `unitok evaluate` gives of a checkpoint on the same rows.

What answers a text is asked for it, greedily, and scored by its words; of everything else the grammar's choices are
predicted one by one, behind what is right. Nothing is drawn anew: the rows are the same every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from unitok.decoder.model import Decoder
from unitok.frontends.adapters.base import Adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.model import Model
from unitok.model_parts import LAYOUT, SECOND_PASS
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.registry import VARIANTS, TaskVariant
from unitok_training.data.documents import Document
from unitok_training.data.latent_tasks import LATENT_TASKS, asked_items
from unitok_training.data.mixture import TaskKey, parse_key
from unitok_training.evaluation.evaluate import TextQuestion, answers_text, put_answers, text_items, text_questions
from unitok_training.evaluation.latent import score_lines
from unitok_training.evaluation.run import Evaluation
from unitok_training.evaluation.tokens import put_token_scores, token_documents
from unitok_training.shard_set import ShardFolder, ShardSet
from unitok_training.trainer.setup import HeldOutScorer, Score

LOWER = ("wer", "cer", "formatted_wer", "ppl")
"""Scores of which the lower one is better."""


def scores_of(place: str, names: Iterable[str]) -> list[Score]:
    """The scores under a dotted place; the first one is shown."""
    return [
        Score(name=f"{place}.{name}", higher=name not in LOWER, shown=not number) for number, name in enumerate(names)
    ]


class TokenScores(HeldOutScorer):
    """Of a model that learns from token shards.

    Args:
        model: what answers, but for its decoder.
        data: the shards; each task is asked about in the folders that are for it, about as many rows of each.
        keys: of the mixture.
        split: the held-out rows.
        examples: rows of each task variant; of fewer, all.

    Raises:
        InputError: no row of the split can be scored.
    """

    def __init__(self, model: Model, data: ShardSet, keys: Sequence[str], *, split: str, examples: int) -> None:
        self._run = Evaluation(model=model, shards=data.folders[0].shards, split=split)
        self._texts: list[tuple[TaskVariant, list[TextQuestion]]] = []
        self._documents: dict[str, list[Document]] = {}
        parsed = {key: parse_key(key) for key in keys}
        for variant in dict.fromkeys(one.of.key for one in parsed.values()):
            own = {key: one for key, one in parsed.items() if one.of.key == variant}
            if answers_text(VARIANTS[variant]):
                if asked := self._questions(VARIANTS[variant], own, data, examples):
                    self._texts.append((VARIANTS[variant], asked))
                continue
            for key in own:
                try:
                    self._documents[key] = token_documents(self._run, key, data.for_keys([key]), examples)
                except InputError:  # no rows of that split: the task is not scored, as it is not validated
                    continue
        if not self._texts and not self._documents:
            raise InputError(
                f"train.eval_examples is set, but no row of split {split!r} serves a task of the mixture; prepare "
                "shards with such rows, or leave train.eval_examples out"
            )

    def _questions(
        self, one: TaskVariant, keys: Mapping[str, TaskKey], data: ShardSet, examples: int
    ) -> list[TextQuestion]:
        """What a variant is asked, in the languages of its keys of the mixture."""
        found = []
        for folder in data.folders:
            run = replace(self._run, shards=folder.shards)
            items = text_items(run, one, run.split)
            if items := [item for item in items if any(_wanted(run, folder, key, keys[key], item) for key in keys)]:
                found.append((run, items))
        asked = []
        for place, (run, items) in enumerate(found):
            run.limit = examples // len(found) + (place < examples % len(found))
            if run.limit:
                asked += text_questions(run, one, run.limited(items))
        return asked

    @property
    def scores(self) -> list[Score]:
        """See `HeldOutScorer`."""
        found = []
        for one, _ in self._texts:
            found += scores_of(one.metric, ("bleu", "chrf") if "bleu" in one.variant.metrics else ("wer", "cer"))
        for key in self._documents:
            found += scores_of(f"tokens.{key}", ("token_accuracy", "ppl"))
        return found

    def measure(self, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
        """See `HeldOutScorer`."""
        decoder = modules["decoder"]
        assert isinstance(decoder, Decoder)
        parts = dict(self._run.model.parts)
        parts |= {name: modules[name] for name in (LAYOUT, SECOND_PASS) if name in modules}
        run = replace(self._run, model=replace(self._run.model, decoder=decoder, parts=parts), metrics={})
        for one, asked in self._texts:
            put_answers(run, one, one.metric, asked)
        for key, documents in self._documents.items():
            put_token_scores(run, key, documents)
        return run.metrics


def _wanted(run: Evaluation, folder: ShardFolder, key: str, parsed: TaskKey, item: tuple[int, int]) -> bool:
    """Whether a key of the mixture is of an item's languages, and its folder is for that key."""
    source, target = (run.lang(row) for row in item)
    return folder.serves(key) and parsed.source in (None, source) and parsed.target in (None, target)


class LatentScores(HeldOutScorer):
    """Of a model that hears recordings as vectors, in place.

    Args:
        model: what answers, with the front end that is trained; of its decoder another one takes the place.
        rows: held-out rows.
        keys: of the mixture.
        examples: most questions of each.

    Raises:
        InputError: no row can be scored.
    """

    def __init__(self, model: Model, rows: Sequence[Row], keys: Sequence[str], *, examples: int) -> None:
        self._model, self._rows, self._examples = model, list(rows), examples
        self._keys = [key for key in keys if LATENT_TASKS[key].needs and asked_items(LATENT_TASKS[key], self._rows)]
        if not self._keys:
            raise InputError(
                "train.eval_examples is set, but no held-out row serves a task of the mixture that has an answer to "
                "be compared with; give the manifest such rows, or leave train.eval_examples out"
            )

    @property
    def scores(self) -> list[Score]:
        """See `HeldOutScorer`."""
        return [score for key in self._keys for score in scores_of(key, VARIANTS[key].variant.metrics)]

    def measure(self, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
        """See `HeldOutScorer`."""
        decoder = modules["decoder"]
        assert isinstance(decoder, Decoder)
        front_end = self._model.latent
        if front_end is not None:  # what is trained may be rounded, and is not here
            encoder, adapter = (modules.get(name, getattr(front_end, name)) for name in ("encoder", "adapter"))
            assert isinstance(encoder, FrameEncoder) and isinstance(adapter, Adapter)
            front_end = LatentFrontEnd(encoder, adapter)
        answering = replace(self._model, decoder=decoder, latent=front_end)
        return score_lines(answering, self._rows, self._keys, self._examples)
