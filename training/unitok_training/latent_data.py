"""Examples of latent training: rows of a manifest as plans with a hole for the vectors, and their recordings.

Which row an example is, is a pure function of (seed, index); so is how its log-mels are augmented. How many vectors a
recording gives is known only when it is encoded: a document is packed with the most, and rendered again afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unitok.latent import LatentFrontEnd
from unitok_tokenizers.audio import audio_seconds
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.frame_encoders.base import Inputs
from unitok_tokenizers.grammar import Plan, Span, render
from unitok_tokenizers.manifest import Row
from unitok_tokenizers.text import TextTokenizer
from unitok_tokenizers.vocabulary import Vocabulary
from unitok_training.batch import Document
from unitok_training.ctc import CtcConfig, augment
from unitok_training.mixture import Mixture, Schedule

CACHE_BYTES = 1 << 30
"""Most memory that inputs of recordings are kept in; what does not fit is read again."""
ROWS = 0x1A7E
AUGMENT = 0x1A7F
"""Separate the random streams that order rows and that augment recordings from the others made of the same seed."""


@dataclass(frozen=True, kw_only=True)
class LatentDocument(Document):
    """An example whose vectors are not known yet; its ids have room for the most."""

    plan: Plan
    """What it says; a `lat` condition holds the most vectors."""
    row: int = -1
    """Row of the manifest that is heard; -1 for text alone."""
    index: int = 0
    """Number of the example, which seeds its augmentation."""


def with_vectors(document: LatentDocument, count: int, vocabulary: Vocabulary) -> Document:
    """The document with a hole for exactly `count` vectors."""
    given = document.plan.conditions
    filled = tuple(Span("lat", np.zeros(count)) if span.kind == "lat" else span for span in given)
    plan = replace(document.plan, conditions=filled)
    return rendered(plan, document.task, document.name, vocabulary)


def rendered(plan: Plan, task: int, name: str, vocabulary: Vocabulary) -> Document:
    """A plan as a document."""
    found = render(plan, vocabulary)
    return Document(
        ids=found.ids, loss_weight=found.loss_weight, task=task, name=name, prefix_length=found.prefix_length
    )


class LatentSource:
    """Examples of a mixture over rows of a manifest.

    Args:
        rows: the training rows.
        mixture: asr and s2tt (rows with audio and, for s2tt, a text of the same group in another language), mt, lm.
        text: the text tokenizer.
        vocabulary: the model's.
        front_end: says how many vectors a recording gives at most.
        seed: of every draw.

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
    ) -> None:
        self.rows, self.vocabulary, self.front_end, self.seed = list(rows), vocabulary, front_end, seed
        self.augmented = augmented
        self.texts = [np.asarray(text.encode(row.text)) if row.text else np.zeros(0, np.int64) for row in self.rows]
        self.schedule = Schedule(mixture, seed=seed)
        self.keys = self.schedule.keys
        groups: dict[str, list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault(row.group, []).append(index)
        self.items = [self._items(key, groups) for key in self.keys]
        for key, items in zip(self.keys, self.items):
            if not items:
                raise InputError(f"mixture.{key}: no row of the manifest fits it; leave it out or add rows")
        self._order: dict[int, tuple[int, np.ndarray]] = {}
        self._inputs: dict[int, Inputs] = {}
        self._held = 0

    def _items(self, key: str, groups: dict[str, list[int]]) -> list[tuple[int, int]]:
        """(row that is given, row whose text is the answer) of a task."""
        if key in ("asr", "lm"):
            spoken = key == "asr"
            return [
                (index, index)
                for index, row in enumerate(self.rows)
                if len(self.texts[index]) and (row.audio is not None or not spoken)
            ]
        found = []
        for members in groups.values():
            for given in members:
                row, seen = self.rows[given], set[tuple[str, str]]()
                if row.audio is None if key == "s2tt" else not len(self.texts[given]):
                    continue
                for other in members:
                    pair = (self.rows[other].lang, self.rows[other].text or "")
                    if pair[0] != row.lang and len(self.texts[other]) and pair not in seen:
                        seen.add(pair)  # the same text in several voices is one answer
                        found.append((given, other))
        return found

    def document(self, index: int) -> LatentDocument:
        """The example of an index."""
        task, number = self.schedule.draw(index)
        items = self.items[task]
        epoch, place = divmod(number, len(items))
        if self._order.get(task, (-1,))[0] != epoch:
            order = np.random.default_rng([self.seed, ROWS, task, epoch]).permutation(len(items))
            self._order[task] = (epoch, order)
        given, answer = items[int(self._order[task][1][place])]
        return self._document(index, task, given, answer)

    def _document(self, index: int, task: int, given: int, answer: int) -> LatentDocument:
        key, row = self.keys[task], self.rows[given]
        heard = key in ("asr", "s2tt")
        conditions: tuple[Span, ...] = ()
        if heard:
            conditions = (Span("lat", np.zeros(self.most_vectors(given))),)
        elif key == "mt":
            conditions = (Span("text", self.texts[given]),)
        target = self.rows[answer].lang if key in ("s2tt", "mt") else None
        plan = Plan(key, row.lang, target, conditions=conditions, outputs=(Span("text", self.texts[answer]),))
        found = rendered(plan, task, f"{key} {row.id}", self.vocabulary)
        return LatentDocument(**found.__dict__, plan=plan, row=given if heard else -1, index=index)

    def most_vectors(self, row: int) -> int:
        """Vectors of a row's recording, slowed down as far as augmentation goes."""
        found = self.rows[row]
        assert found.audio is not None
        seconds = found.seconds if found.seconds is not None else audio_seconds(found.audio) - found.offset
        slower = 1 + CtcConfig().tempo if self.augmented else 1.0
        return self.front_end.max_length(int(seconds * slower * self.front_end.sample_rate) + 1)

    def inputs(self, document: LatentDocument) -> Inputs:
        """What the encoder takes of a document's recording, augmented anew for every example."""
        found = self._inputs.get(document.row)
        if found is None:
            samples = self.rows[document.row].load(self.front_end.sample_rate)
            found = self.front_end.encoder.inputs(samples)
            self._held += sum(part.numel() * part.element_size() for part in found)
            if self._held < CACHE_BYTES:
                self._inputs[document.row] = found
        if not self.augmented:
            return found
        random = np.random.default_rng([self.seed, AUGMENT, document.index])
        # Log-mels are what has two axes and many bins; samples and windows of Whisper stay as they are.
        return tuple(augment(part, random, CtcConfig()) if part.ndim == 2 else part for part in found)

    def labels(self, document: LatentDocument) -> Tensor:
        """CTC labels of what is said in a document's recording: its text pieces behind the blank; may be empty."""
        return torch.from_numpy(self.texts[document.row].astype(np.int64)) + 1
