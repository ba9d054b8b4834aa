"""Where a step's micro-batches come from: packs of token shards, or packs of documents with their recordings."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from unitok.frontends.base import Encoded
from unitok.frontends.frame_cache import FrameCache
from unitok_tokenizers.encoders.base import Inputs
from unitok_tokenizers.files import fingerprint
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.batch import Pack
from unitok_training.data.documents import Documents, ListedDocuments, listed
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.latent_examples import LatentDocument, LatentSource
from unitok_training.data.mixture import Curriculum, Mixture, Schedule
from unitok_training.data.packing import DataState, PackStream
from unitok_training.objectives.latent import LatentBatch, Unencoded
from unitok_training.objectives.pack_losses import OutputSlices, supervised_positions
from unitok_training.objectives.second_pass import PassBatches, TrainedPass
from unitok_training.objectives.teacher import Teacher, taught_positions
from unitok_training.objectives.tokens import TokenBatch
from unitok_training.trainer.config import LatentTrainConfig, TrainConfig

Made = TypeVar("Made")


class Examples(Protocol):
    """What examples are drawn from: `ExampleSource`, `LatentSource`."""

    keys: tuple[str, ...]
    vocabulary: Vocabulary
    mixture: Mixture
    curriculum: Curriculum
    schedule: Schedule


Drawn = TypeVar("Drawn", bound=Examples)


class BatchSource(ABC, Generic[Drawn, Made]):
    """An endless stream of micro-batches, a pure function of its settings, for any number of processes the same.

    Args:
        source: examples by their index.
        documents: the same, many at a time, as they are packed.
        config: sizes of packs and windows, and the seed of their order.
    """

    def __init__(self, source: Drawn, documents: Callable[[np.ndarray], Documents], config: TrainConfig) -> None:
        self.source = source
        self.packs_per_step = config.packs_per_step
        self.seed = config.seed
        self.stream = PackStream(
            documents, capacity=config.pack_size, window=config.window, seed=config.seed, pad=source.vocabulary.pad
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the mixture, by which losses are reported."""
        return self.source.keys

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the ids."""
        return self.source.vocabulary

    @property
    def dropped_share(self) -> float:
        """Examples drawn so far that are in no batch ÷ all drawn."""
        return self.stream.dropped_share

    @abstractmethod
    def steps(
        self, state: DataState, *, rank: int, world_size: int, pin: bool
    ) -> Iterator[tuple[list[Made], DataState]]:
        """For each step the micro-batches of one process, pinned where asked, and the state after the step."""

    def settings(self) -> dict[str, Any]:
        """What a continued run must have in common with the one that stopped."""
        schedule, curriculum = self.source.schedule, self.source.curriculum
        found: dict[str, Any] = {
            "mixture": {key: float(count) for key, count in zip(self.keys, schedule.counts)},
            "vocabulary": self.vocabulary.fingerprint,
        }
        if curriculum.tasks:
            joins = {key: int(block) for key, block in zip(schedule.keys, schedule.joins)}
            found |= {"curriculum": dict(curriculum.tasks), "joins": joins}
        return found

    def defaults(self) -> dict[str, Any]:
        """What settings were before a version could say them."""
        return {}

    def follow_joins(self, joins: Mapping[str, int]) -> None:
        """Let tasks join in where they did in the run that is continued."""
        if self.source.curriculum.tasks:
            self.source.schedule = Schedule(self.source.mixture, seed=self.seed, joins=joins)

    def report(self) -> list[str]:
        """What to tell before training."""
        return []

    def news(self) -> list[str]:
        """What to tell meanwhile, each once."""
        return []

    def finish(self) -> None:
        """Write what is to be kept, where a run ends or stops."""


class TokenBatches(BatchSource[ExampleSource, TokenBatch]):
    """Packs of rendered examples with their supervised positions, and where a teacher has something to say.

    Args:
        source, config: as of `BatchSource`.
        teacher: whose word on these positions is learned.
        finished: the second pass that learns from their spans of codes.
    """

    def __init__(
        self, source: ExampleSource, config: TrainConfig, teacher: Teacher | None = None,
        finished: TrainedPass | None = None,
    ) -> None:  # fmt: skip
        super().__init__(source, source.documents, config)
        self.finished: PassBatches | None = None
        if finished is not None:
            self.finished = PassBatches(finished, source.vocabulary, source.keys, seed=config.seed)
        self.teacher = None if teacher is None else teacher.decoder.config
        self.known = None if teacher is None else teacher.known_ids(source.vocabulary)
        self.slices = OutputSlices.of(source.vocabulary) if config.output_slices else None

    def steps(
        self, state: DataState, *, rank: int, world_size: int, pin: bool
    ) -> Iterator[tuple[list[TokenBatch], DataState]]:
        """See `BatchSource`."""
        steps = self.stream.steps(state, packs_per_step=self.packs_per_step, rank=rank, world_size=world_size)
        for packs, after in steps:
            made = [self.batch(pack) for pack in packs]
            yield [one.pin() for one in made] if pin else made, after

    def batch(self, pack: Pack) -> TokenBatch:
        """A pack with its positions."""
        supervised, taught = supervised_positions(pack, self.slices), None
        if self.teacher is not None and self.known is not None and not self.known.all():
            size, both_ways = self.teacher.vocab_size, self.teacher.prefix_lm
            taught = taught_positions(pack, supervised, self.known, size, both_ways=both_ways)
        finished = None if self.finished is None else self.finished.batch(pack)
        return TokenBatch(pack=pack, supervised=supervised, taught=taught, finished=finished)

    def settings(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return {"plans": asdict(self.source.options), **super().settings()}

    def defaults(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return {"plans": asdict(ExampleOptions())}

    def report(self) -> list[str]:
        """See `BatchSource`."""
        return self.source.report()


class LatentBatches(BatchSource[LatentSource, LatentBatch]):
    """Packs of documents that hear recordings, read by several threads.

    With `kept` frames, recordings whose frames are known are not read, and augmented in so many `views`.
    """

    def __init__(
        self, source: LatentSource, config: LatentTrainConfig, kept: FrameCache | None = None, views: int = 1
    ) -> None:
        super().__init__(source, listed(source.document), config)
        self.workers, self.kept, self.views = config.workers, kept, views

    def steps(
        self, state: DataState, *, rank: int, world_size: int, pin: bool
    ) -> Iterator[tuple[list[LatentBatch], DataState]]:
        """See `BatchSource`."""
        steps = self.stream.chosen(state, packs_per_step=self.packs_per_step, rank=rank, world_size=world_size)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="recordings") as readers:
            for packs, after in steps:
                yield [self.batch(_documents(of, chosen), readers) for of, chosen in packs], after

    def batch(self, documents: list[LatentDocument], readers: ThreadPoolExecutor | None = None) -> LatentBatch:
        """Read the recordings of a pack's documents; each alone, so that any thread may."""
        read = map if readers is None else readers.map
        inputs = [one for found in read(self._heard, documents) for one in found]
        labels = [one for document in documents for one in self.source.labels(document)]
        return LatentBatch(documents=documents, inputs=inputs, labels=labels)

    def _heard(self, document: LatentDocument) -> Sequence[Inputs | Encoded | Unencoded]:
        """A document's recordings: their frames where all are known, else read."""
        if self.kept is None:
            return self.source.inputs(document)
        names = self.source.names(document, self.views)
        known = [found for name in names if name is not None and (found := self.kept.get(name)) is not None]
        if len(known) == len(names):
            return known
        return [Unencoded(one, name) for one, name in zip(self.source.inputs(document, self.views), names)]

    def settings(self) -> dict[str, Any]:
        """See `BatchSource`."""
        front_end = self.source.front_end
        views = {"frames": {"views": self.views}} if self.kept is not None and self.source.augmented else {}
        given = {"encoder": front_end.encoder.to_json(), "adapter": front_end.adapter.to_json(), "rows": self.rows}
        return {**given, **views, **super().settings()}

    def defaults(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return {**super().defaults(), "rows": self.rows}

    @cached_property
    def rows(self) -> str:
        """Identifies what is learned from, and its order: other rows are other examples at every place."""
        said = [
            [row.id, row.group, row.lang, row.speaker, row.text, row.offset, row.seconds, *row.stamp()[:1],
             list(map(list, row.words)), json.dumps(row.extras, sort_keys=True, default=str),
             [[name, np.asarray(ids).tolist()] for name, ids in sorted(row.tokens.items())]]
            for row in self.source.rows
        ]  # fmt: skip
        return fingerprint(said)

    def report(self) -> list[str]:
        """See `BatchSource`."""
        return [] if self.kept is None else [str(self.kept)]

    def news(self) -> list[str]:
        """See `BatchSource`."""
        return [] if self.kept is None else self.kept.told()

    def finish(self) -> None:
        """See `BatchSource`."""
        if self.kept is not None:
            self.kept.flush()


def _documents(documents: Any, chosen: np.ndarray) -> list[LatentDocument]:
    assert isinstance(documents, ListedDocuments)
    found = [documents.documents[one] for one in chosen]
    return [one for one in found if isinstance(one, LatentDocument)]
