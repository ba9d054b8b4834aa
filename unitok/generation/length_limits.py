"""How long an answer may become, estimated from the length of what was given."""

from __future__ import annotations

from dataclasses import dataclass

from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.tasks.registry import output_kinds, task_spec

LEAST_ROOM = 8
"""Positions that an answer must find behind its prompt."""


class TooLong(InputError):
    """What is given leaves too few positions for an answer."""


def within_positions(limit: int, taken: int, config: DecoderConfig) -> int:
    """The limit of an answer behind a prompt that takes so many positions; TooLong where too few are left."""
    if config.window is not None:  # positions grow without end
        return limit
    if (room := config.max_positions - taken) < LEAST_ROOM:
        raise TooLong(f"the input takes {taken} of {config.max_positions} positions; shorten it")
    return min(limit, room)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long outputs may become, learned from the training data: content items per item of input."""

    text_per_unit: float = 1.0
    """Text ids per deduplicated unit."""
    units_per_text: float = 8.0
    """Deduplicated units per text id."""
    units_per_unit: float = 2.5
    """Target units per source unit."""
    text_per_vector: float = 1.5
    """Text ids per vector of a latent front end."""
    text_per_text: float = 3.0
    """Target text ids per source text id."""
    frames_per_unit: float = 3.0
    """Code frames per deduplicated unit."""
    longest_seconds: float = 12.0
    """Longest utterance of the training: longer recordings are cut to such pieces, at pauses."""
    whole_seconds: float = 0.0
    """The longest row of the training, of several utterances: what pauses and margins make no longer is not cut."""
    longest_text: int = 32
    """Text ids of the longest text that is read at once; longer ones are cut at sentences."""
    sentences_together: int = 1
    """Sentences that are read at once where they are short."""
    floor: int = 12
    """Items that are always allowed."""

    def of(self, plan: SequenceSpec) -> list[int]:
        """Most content items of each output of a plan; a given beginning comes on top."""
        units = text = vectors = paired = frames = 0
        for span in plan.conditions:
            if span.kind in ("units", "codes"):
                units = len(span)
                frames += len(span) if span.kind == "codes" else 0
            elif span.kind == "lat":
                vectors += len(span)
            elif span.kind in ("text", "hyp"):
                text += len(span)
        if any(span.kind == "hyp" for span in plan.conditions):
            vectors = 0  # they say how noisy the list is, not how long the answer
        limits, spec = [], task_spec(plan.task)
        for kind in output_kinds(plan.task, plan.flags):
            if kind == "text":
                size = units * self.text_per_unit or vectors * self.text_per_vector or text * self.text_per_text or 48
            elif kind == "tool":
                size = text or 12  # a name and what it is called with, which may repeat the request
            elif kind == "units":
                size = units * self.units_per_unit or text * self.units_per_text or 120
                units = max(units, round(size / 2))
                paired = round(size)
            elif kind == "durations":
                size = paired
            elif kind in ("style", "pitch"):  # slower than units, whatever these are
                size = units * self.units_per_unit or text * self.units_per_text or 120
            elif spec.infills:  # what a text of the whole may last, without what is there of it
                size = max(text * self.units_per_text / 2 * self.frames_per_unit - frames, 0) or self.floor
            elif spec.reads_codes:
                size = frames
            else:
                spoken = units or text * self.units_per_text / 2  # as where units stand between text and codes
                size = spoken * self.frames_per_unit or 200
            limits.append(1 if kind == "state" else round(size) + self.floor)
        if plan.outputs and limits:
            limits[0] += len(plan.outputs[0])
        return limits
