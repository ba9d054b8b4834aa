"""Examples of latent training: rows of a manifest as plans with a hole for the vectors, and their recordings.

Which row an example is, is a pure function of (seed, index); so is how its log-mels are augmented. How many vectors a
recording gives is known only when it is encoded: a document is packed with the most, and rendered again afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitok.frontends.base import LatentFrontEnd
from unitok.frontends.frame_cache import name_of
from unitok_tokenizers.audio.backgrounds import Surroundings, noises, surrounded
from unitok_tokenizers.audio.io import audio_seconds
from unitok_tokenizers.audio.speech_activity import leveled
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.base import Inputs
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.base import TextTokenizer
from unitok_training.data.augmentation import Augmentation, augment
from unitok_training.data.documents import Document
from unitok_training.data.latent_tasks import LATENT_TASKS, Item, RowTexts, asked_items
from unitok_training.data.mixture import BLOCK, Curriculum, Mixture, Schedule

CACHE_BYTES = 1 << 30
"""Most memory that inputs of recordings are kept in; what does not fit is read again."""
ROWS = 0x1A7E
AUGMENT = 0x1A7F
TOLD = 0x1A80
AROUND = 0x1A81
VIEW = 0x1A82
"""Separate the random streams that order rows, that augment recordings, that draw what is told and what is around, and
that augment recordings once for several epochs."""
SURROUNDINGS = Surroundings(under_share=0.3)
"""Silence and noise around recordings, where they are augmented."""


@dataclass(frozen=True, kw_only=True)
class LatentDocument(Document):
    """An example whose vectors are not known yet; its ids have room for the most."""

    plan: SequenceSpec
    """What it says; a `lat` condition holds the most vectors."""
    heard: tuple[int, ...] = ()
    """Rows of the manifest whose recordings its `lat` conditions are; none for text alone."""
    index: int = 0
    """Number of the example, which seeds its augmentation."""
    epoch: int = 0
    """How often the task has gone through its rows before."""


def with_vectors(document: LatentDocument, counts: Sequence[int], vocabulary: Vocabulary) -> Document:
    """The document with holes for exactly so many vectors, one count for each recording."""
    return rendered(filled(document.plan, counts), document.task, document.name, vocabulary)


def filled(plan: SequenceSpec, counts: Sequence[int]) -> SequenceSpec:
    """A plan whose `lat` conditions hold so many vectors, in their order."""
    sizes = iter(counts)
    given = (Span("lat", np.zeros(next(sizes))) if span.kind == "lat" else span for span in plan.conditions)
    return replace(plan, conditions=tuple(given))


def rendered(plan: SequenceSpec, task: int, name: str, vocabulary: Vocabulary) -> Document:
    """A plan as a document."""
    found = render(plan, vocabulary)
    return Document(
        ids=found.ids, loss_weight=found.loss_weight, task=task, name=name, prefix_length=found.prefix_length
    )


class LatentSource:
    """Examples of a mixture over rows of a manifest.

    Args:
        rows: the training rows.
        mixture: keys of `latent_tasks.LATENT_TASKS`, each with the rows that fit it; s2tt and mt pair a row with a text
            of its group in another language.
        text: the text tokenizer.
        vocabulary: the model's.
        front_end: says how many vectors a recording gives at most.
        seed: of every draw.
        augmented: whether log-mels are augmented.
        phones: CTC labels of the encoder are phones (see `RowTexts.phones`) instead of text pieces; those of an adapter
            with a head of its own are its letters or subwords.

    Raises:
        InputError: a task without rows.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        mixture: Mixture,
        text: TextTokenizer,
        vocabulary: Vocabulary,
        front_end: LatentFrontEnd,
        *,
        seed: int,
        augmented: bool,
        phones: bool = False,
    ) -> None:
        self.rows, self.vocabulary, self.front_end, self.seed = list(rows), vocabulary, front_end, seed
        self.augmented, self.phones = augmented, phones
        self.table = RowTexts(self.rows, text)
        self.mixture, self.curriculum = mixture, Curriculum()
        self.schedule = Schedule(mixture, seed=seed)
        self.keys = self.schedule.keys
        self.lines = [LATENT_TASKS[key] for key in self.keys]
        self.items = [asked_items(line, self.rows) for line in self.lines]
        for key, items in zip(self.keys, self.items):
            if not items:
                raise InputError(f"mixture.{key}: no row of the manifest fits it; leave it out or add rows")
        self._order: dict[int, tuple[int, np.ndarray]] = {}
        self._inputs: dict[tuple[int, bool], Inputs] = {}
        self._held = 0

    def document(self, index: int) -> LatentDocument:
        """The example of an index."""
        task, number = self.schedule.draw(index)
        items = self.items[task]
        epoch, place = divmod(number, len(items))
        if self._order.get(task, (-1,))[0] != epoch:
            order = np.random.default_rng([self.seed, ROWS, task, epoch]).permutation(len(items))
            self._order[task] = (epoch, order)
        return self._document(index, task, items[int(self._order[task][1][place])], epoch)

    def _document(self, index: int, task: int, item: Item, epoch: int) -> LatentDocument:
        line = self.lines[task]
        told = line.tell(self.table, item.given, np.random.default_rng([self.seed, TOLD, index]))
        plan = line.plan(self.table, item.given, item.target, item.question, item.answer, told)
        plan = filled(plan, [self.most_vectors(row) for row in told.heard])
        found = rendered(plan, task, f"{self.keys[task]} {self.rows[item.given].id}", self.vocabulary)
        return LatentDocument(**found.__dict__, plan=plan, heard=told.heard, index=index, epoch=epoch)

    def follow(self, curriculum: Curriculum, positions: float) -> None:
        """Let tasks join in as a run of so many positions goes on."""
        found = [self.document(index) for index in range(BLOCK)]
        lengths = {key: [len(one.ids) for one in found if self.keys[one.task] == key] for key in self.keys}
        joins = curriculum.joins(self.mixture, {key: float(np.mean(one)) for key, one in lengths.items()}, positions)
        self.curriculum, self.schedule = curriculum, Schedule(self.mixture, seed=self.seed, joins=joins)

    def text_per_vector(self) -> float:
        """The largest share of answer pieces to vectors of one recording among the rows that are heard."""
        shares = [
            len(self.table.pieces(item.answer)) / self.usual_vectors(item.given)
            for line, items in zip(self.lines, self.items)
            if "audio" in line.needs
            for item in items[:2000]
            if self._counted(item.given)
        ]
        return max(shares, default=1.0)

    def usual_vectors(self, row: int) -> int:
        """Vectors of a row's recording: the most there may be, or one per label where what is said decides, and is
        known."""
        most = self.most_vectors(row)
        known = self.front_end.adapter.by_content and self._counted(row)
        return max(1, min(most, len(self._said(row)))) if known else most

    def _counted(self, row: int) -> bool:
        """Whether it is known how many vectors a row usually gives."""
        return not self.front_end.adapter.by_content or len(self._said(row)) > 0

    def most_vectors(self, row: int) -> int:
        """Vectors of a row's recording, slowed down as far as augmentation goes."""
        found = self.rows[row]
        assert found.audio is not None
        seconds = found.seconds if found.seconds is not None else audio_seconds(found.audio) - found.offset
        slower = 1 + Augmentation().tempo if self.augmented else 1.0
        seconds += 2 * SURROUNDINGS.longest if self.augmented else 0.0
        return self.front_end.max_length(int(seconds * slower * self.front_end.sample_rate) + 1)

    def inputs(self, document: LatentDocument, views: int = 0) -> list[Inputs]:
        """What the encoder takes of a document's recordings, augmented anew for every example.

        With `views` a recording that is heard alone has so many augmentations, one for each epoch in turn.
        """
        still = self._still(document)
        found = [self.read(row, still=still) for row in document.heard]
        if not self.augmented:
            return found
        seeds = [self.seed, AUGMENT, document.index]
        if views and len(document.heard) == 1:
            seeds = [self.seed, VIEW, document.heard[0], document.epoch % views]
        return [self._augmented(inputs, document, seeds) for inputs in found]

    def names(self, document: LatentDocument, views: int) -> list[str | None]:
        """What decides `inputs`, as a name for each recording; None where it is not worth one.

        Several recordings of an augmented document share a voice that is nobody else's; a file that cannot be seen may
        change unseen.
        """
        if not self.augmented:
            return [self._name(row) for row in document.heard]
        if len(document.heard) > 1:
            return [None] * len(document.heard)
        changed = [self.seed, document.epoch % views if self._warps else 0, asdict(self._augmentation(document))]
        around = None if self._still(document) else asdict(SURROUNDINGS)
        return [self._name(row, row, around, *changed) for row in document.heard]

    def plain_name(self, row: int) -> str | None:
        """What `names` calls a row's recording that is heard as it is; None where all are augmented."""
        return None if self.augmented else self._name(row)

    def _name(self, row: int, *changed: Any) -> str | None:
        found = self.rows[row]
        assert found.audio is not None
        stamp = found.stamp()
        path = os.path.abspath(found.audio)
        return name_of([path, *stamp, found.offset, found.seconds, *changed]) if stamp else None

    @cached_property
    def _warps(self) -> bool:
        """Whether the encoder takes log-mels, which are all that differs from view to view."""
        silence = np.zeros(self.front_end.sample_rate, np.float32)
        return any(part.ndim == 2 for part in self.front_end.encoder.inputs(silence))

    def _augmentation(self, document: LatentDocument) -> Augmentation:
        kept: dict[str, Any] = dict.fromkeys(self.lines[document.task].keeps, 0.0)
        return Augmentation(**kept)

    def _augmented(self, inputs: Inputs, document: LatentDocument, seeds: Sequence[int]) -> Inputs:
        """A recording as another voice says it, or faster: all of a document alike, whose examples share its voice,
        and what two encoders take of it alike too."""
        config = self._augmentation(document)
        # Log-mels are what has two axes and many bins; samples and windows of Whisper stay as they are.
        return tuple(augment(part, np.random.default_rng(seeds), config) if part.ndim == 2 else part for part in inputs)

    def _still(self, document: LatentDocument) -> bool:
        """Whether an answer says when something was said: what stands in front would make it late."""
        return "tempo" in self.lines[document.task].keeps

    def read(self, row: int, *, still: bool = False) -> Inputs:
        """What the encoder takes of a row's recording, kept where memory allows; `still` puts nothing around it."""
        key = (row, still and self.augmented)
        found = self._inputs.get(key)
        if found is None:
            found = self.front_end.encoder.inputs(self._samples(*key))
            self._held += sum(part.numel() * part.element_size() for part in found)
            if self._held < CACHE_BYTES:
                self._inputs[key] = found
        return found

    def _samples(self, row: int, still: bool = False) -> np.ndarray:
        """A row's recording as the model will be given it, and with augmentation something around it: the same every
        time, since what encoders take of it is kept."""
        rate = self.front_end.sample_rate
        samples = self.rows[row].load(rate)
        if self.augmented and not still:
            random = np.random.default_rng([self.seed, AROUND, row])
            samples = surrounded([samples], rate, noises(rate), random, SURROUNDINGS)
        return leveled(samples, rate)

    def labels(self, document: LatentDocument) -> list[Tensor]:
        """CTC labels of what is said in a document's recordings, behind the blank; empty where there is no text."""
        return [torch.from_numpy(self._said(row)) + 1 for row in document.heard]

    def _said(self, row: int) -> np.ndarray:
        if not self.rows[row].text:
            return np.zeros(0, dtype=np.int64)
        if self.front_end.adapter.alphabet:
            return np.asarray(self.front_end.adapter.spelled(self.rows[row].text or ""), dtype=np.int64)
        return self.table.phones(row) if self.phones else self.table.pieces(self.rows[row].text or "")
