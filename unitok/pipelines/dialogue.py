"""The decoder as coordinator of a conversation: for every chunk of sound it listens, speaks, or stops.

One checkpoint decides and other parts act (Wang et al. 2024, a full-duplex dialogue scheme). The `<turn>` line reads
what was heard since the last turn and what was said meanwhile, and gives a single state token. In `<speak>` an answerer
is asked for the next words: this decoder's `<ask>` line, or any function. In the other states there are none: the
line's automaton allows one state and the end, and nobody else is asked.

S samples, N units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from unitok.inputs import read_samples
from unitok.requests.prompt_request import PromptRequest
from unitok.task_model import TaskModel
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.base import STATES

LISTEN, SPEAK, STOP = STATES
Answerer = Callable[[np.ndarray, str], str]
"""(units (N,) heard, what was said so far) → the next words."""


@dataclass(frozen=True)
class DialogueTurn:
    """What a chunk of sound led to."""

    state: str
    """One of `STATES`."""
    text: str = ""
    """Words to be spoken now; none but in `<speak>`."""


@dataclass
class Coordinator:
    """A conversation as it goes on.

    Raises:
        InputError: a model without units.
    """

    model: TaskModel
    """With a trained `<turn>` line."""
    lang: str
    """Of the conversation."""
    answer: Answerer | None = None
    """Gives the words; the model's own `<ask>` line where None."""
    window_seconds: float = 20.0
    """Most sound that is looked at; what came before is forgotten."""
    heard: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32), repr=False)
    """(S,) since the last turn ended."""
    said: str = ""
    """What this turn has said so far."""

    def __post_init__(self) -> None:
        if self.model.unit_tokenizer is None:
            raise InputError("this model has no tokenizer that makes units; a coordinator hears recordings as units")
        if self.model.unit_tokenizer.merges is not None:
            raise InputError("this model's units are merged; a coordinator hears them frame by frame")
        if self.window_seconds <= 0:
            raise InputError(f"window_seconds is {self.window_seconds}: it must be above 0")

    def run(self, chunks: Iterable[np.ndarray]) -> Iterator[DialogueTurn]:
        """`hear` chunk after chunk."""
        for chunk in chunks:
            yield self.hear(chunk)

    def hear(self, chunk: np.ndarray) -> DialogueTurn:
        """Decide what to do now.

        Args:
            chunk: (S,) float samples at the model's rate, as long as the chunks of the training.

        Raises:
            InputError: samples that are empty or not finite.
        """
        fresh = read_samples(chunk, self.model.sample_rate)
        kept = round(self.window_seconds * self.model.sample_rate)
        self.heard = np.concatenate([self.heard, fresh])[-kept:]
        units = units_of(self.model, self.heard)
        state = self._state(units)
        if state == SPEAK:
            words = (self.answer or self._ask)(units, self.said).strip()
            self.said = f"{self.said} {words}".strip()
            return DialogueTurn(state, words)
        if state == STOP:
            self.heard, self.said = fresh, ""  # what interrupts is the beginning of the next turn
        return DialogueTurn(state)

    def _state(self, units: np.ndarray) -> str:
        (found,) = self.model.run([PromptRequest(plan=turn_plan(self.model, "turn", self.lang, units, self.said))])
        return STATES[int(found.outputs[0].content[0])]

    def _ask(self, units: np.ndarray, said: str) -> str:
        plan = turn_plan(self.model, "ask", self.lang, units, said)
        return self.model.run([PromptRequest(plan=plan)])[0].text or ""


def units_of(model: TaskModel, samples: np.ndarray) -> np.ndarray:
    """(S,) → (N,) units frame by frame: how long a silence lasts is what tells that somebody has finished."""
    assert model.unit_tokenizer is not None
    return np.asarray(model.unit_tokenizer.encode_batch([samples])[0])


def turn_plan(model: TaskModel, task: str, lang: str, units: np.ndarray, said: str) -> SequenceSpec:
    """What both lines are given: what was heard, and behind it what was said."""
    text = (model.text_span(said),) if said else ()
    return SequenceSpec(task, lang, conditions=(Span("units", units), *text))
