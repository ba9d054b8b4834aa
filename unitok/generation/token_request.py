"""One sequence to continue, in ids, and what became of it.

N ids, T ids of a prompt, S slots.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from unitok.frontends.prompt_vectors import PromptVectors
from unitok.generation.framed import SlotOptions
from unitok.generation.sampling import GREEDY, Sampling
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.seeds import check_seed


@dataclass(frozen=True)
class Generated:
    """What one sequence produced after its prompt."""

    ids: np.ndarray
    """(N,) int64, the end of sequence included where it was reached."""
    logprobs: np.ndarray
    """(N,) float32 log-probability of each id among the allowed ones, before temperature and filters."""
    finish_reason: str
    """eos; length where the limit cut it short; loop where a guard did; cancelled where it was taken back."""
    slots: np.ndarray | None = None
    """(N, S) int64 codes beside each id, -1 where there is none; None where the answer has no slots."""
    slot_logprobs: np.ndarray | None = None
    """(N, S) float32 log-probability of each code that a layout predicted, before temperature and filters; 0 beside."""
    framed: np.ndarray | None = None
    """(N,) bool: ids at positions with slots, be it that these hold nothing there."""

    @property
    def frames(self) -> Frames | None:
        """The codes beside those ids; None where the answer has no slots."""
        if self.slots is None or self.framed is None:
            return None
        return Frames(np.flatnonzero(self.framed), self.slots[self.framed])

    @property
    def score(self) -> float:
        """Sum of the log-probabilities, those of codes beside ids included."""
        return float(self.logprobs.sum()) + (0.0 if self.slot_logprobs is None else float(self.slot_logprobs.sum()))


@dataclass(frozen=True, kw_only=True, eq=False)
class UnguidedPrompt:
    """The same prompt without the conditions that guidance is about."""

    ids: np.ndarray
    """(T,) ids, no more than with them."""
    vectors: PromptVectors | None = None
    """Those that stand in for embedding rows of what is left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRequest:
    """One sequence to continue, in ids. What it becomes depends on nothing that runs beside it."""

    prompt: np.ndarray
    """(T,) ids."""
    limit: int
    """Most ids that follow."""
    automaton: Automaton | None = None
    """Says which ids may follow, and follows them; None leaves every id allowed."""
    sampling: Sampling = GREEDY
    """How ids are chosen."""
    seed: int = 0
    """Of the draws: what is drawn at a step is a function of it, the prompt and the step."""
    vectors: PromptVectors | None = None
    """Those that stand in for embedding rows of the prompt."""
    eos: int | None = None
    """Id that ends it where there is no automaton."""
    frames: Frames | None = None
    """Codes beside ids of the prompt."""
    slots: SlotOptions | None = None
    """How codes come to stand beside ids of the answer; None where they do not."""
    without: UnguidedPrompt | None = None
    """What `sampling.guidance` compares with; unused without guidance."""


def draws_of(
    seed: int, prompt: np.ndarray, frames: Frames | None = None, *, of: int | None = None
) -> np.random.Generator:
    """Random numbers of a sequence: of its own seed and prompt, whatever stands beside it in the batch.

    The prompt is among them so that unlike prompts with one seed have nothing to do with each other. `of` tells several
    rows of numbers of one sequence apart.
    """
    mark = zlib.crc32(np.asarray(prompt).astype("<i8").tobytes())
    if frames is not None:
        mark = zlib.crc32(np.asarray(frames.slots).astype("<i8").tobytes(), mark)
    return np.random.default_rng([check_seed(seed), mark, *(() if of is None else (of,))])
