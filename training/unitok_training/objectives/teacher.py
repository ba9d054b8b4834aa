"""A trained decoder that another one learns from: whether it speaks of the same ids, and where it has something to say.

T positions of a pack, N supervised positions, V ids of the model that is trained, of which the first V' are the
teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.weights import from_hf_config
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, intact, read_json
from unitok_tokenizers.grammar.streams import ELSEWHERE
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.batch import Pack
from unitok_training.objectives.pack_losses import Supervised
from unitok_training.objectives.token_loss import HeadSlice


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A decoder with the vocabulary that it was trained with."""

    path: str
    """Where it comes from, for messages and records."""
    decoder: Decoder
    """Its weights, float32."""
    vocabulary: Vocabulary
    """Its ids."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of its weights, wherever they stand; asked for before they are rounded or moved."""
        held = sorted(self.decoder.state_dict().items())
        return fingerprint([[name, array_fingerprint(value.cpu().numpy())] for name, value in held])

    def known_ids(self, student: Vocabulary) -> Tensor:
        """(V,) bool: which ids of a model that learns from it are its own too; on the processor.

        Raises:
            InputError: an id means something else to it, or is missing there.
        """
        if found := difference(self.vocabulary, student):
            raise InputError(
                f"distill.teacher {self.path}: {found}. Its ids must be those of the model that is trained, or the "
                "first of them: train on shards of the teacher's tokenizers, streams and languages, or take a teacher "
                "of these"
            )
        known = torch.arange(student.size, device="cpu") < self.vocabulary.size
        for code in student.languages[len(self.vocabulary.languages) :]:
            known[student.language(code)] = False  # there is a row, which nothing has trained
        return known


def difference(teacher: Vocabulary, student: Vocabulary) -> str:
    """What keeps the ids of a teacher from being the first ones of a student; empty where they are."""
    for name, theirs in teacher.streams.items():
        own = student.streams.get(name)
        if own is None:
            return f"it has stream {name!r}, and the model that is trained has {', '.join(student.streams)}"
        for item in fields(theirs):
            if getattr(own, item.name) != getattr(theirs, item.name):
                there, here = (_said(getattr(one, item.name)) for one in (theirs, own))
                return f"{item.name.replace('_', ' ')} of stream {name!r} is {there} there and {here} here"
    if student.languages[: len(teacher.languages)] != teacher.languages:
        there, here = (", ".join(one.languages) or "none" for one in (teacher, student))
        return f"its languages are {there}, and those of the model that is trained {here}"
    for role, value in teacher.roles.items():
        if student.roles.get(role) != value:
            return f"<{role}> is id {value} there and {student.roles.get(role)} here"
    for kind in ELSEWHERE:
        main = teacher.main(kind)
        if main is not None and main != student.main(kind):
            return f"{kind} are stream {main.name!r} there and {getattr(student.main(kind), 'name', None)!r} here"
    for theirs_of, own_of in zip(teacher.extents, student.extents):
        if theirs_of != own_of:
            name = theirs_of.tokenizer or theirs_of.block
            return (
                f"ids of {name!r} begin at {theirs_of.start} there, where {own_of.tokenizer or own_of.block!r} is here"
            )
    return "" if len(teacher.extents) <= len(student.extents) else "it has ids behind the last one here"


def _said(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def config_at(path: Path | str) -> DecoderConfig:
    """Shape of the decoder of a model directory, without its weights. InputError where that is none."""
    file = Path(path) / "core" / "config.json"
    if not file.is_file():
        raise InputError(f"distill.teacher is {str(path)!r}: no model directory (no core/config.json); name one")
    with intact(path, "copy the folder again"):
        return from_hf_config(read_json(file), file)


def taught_positions(
    pack: Pack, supervised: Supervised, known: Tensor, size: int, *, both_ways: bool = False
) -> Supervised:
    """The supervised positions of which a teacher has something to say: label and all that it sees are known to it.

    Args:
        pack: on the host.
        supervised: its N positions with a label, with their slices of the vocabulary.
        known: (V,) bool ids that the teacher knows.
        size: V', the ids that its distribution is over.
        both_ways: whether what is given sees all that is given (a prefix decoder).
    """
    starts = pack.sequences[:-1].long()
    strange = ~known[pack.ids]
    seen = strange.long().cumsum(0)
    before = seen[starts] - strange[starts].long()
    document = torch.repeat_interleave(torch.arange(len(starts), device="cpu"), pack.sequences.diff().long())
    seen = seen - before[document]  # (T,) ids of each document up to here that it does not know
    if both_ways:
        lengths = pack.prefix_lengths[: pack.num_sequences].long()
        last = (starts + lengths - 1).clamp(min=0)
        inside = pack.positions < lengths[document]
        seen = torch.where(inside, seen[last][document], seen)
    keep = (seen[supervised.index] == 0) & known[pack.labels[supervised.index]]
    slices, first = list[HeadSlice](), 0
    for one in supervised.slices or (HeadSlice(len(supervised), 0, len(known)),):
        rows = int(keep[first : first + one.rows].sum())
        slices.append(HeadSlice(rows, one.start, min(one.stop, size)))
        first += one.rows
    return Supervised(supervised.index[keep], tuple(slices))
