"""The steps to an answer: what a request needs of a model, asked for one after another.

Whoever carries them out may do so at once, for one request (`carry_out`), or gather those of many requests and do them
in batches (`many`): a request asks for the same either way.

N vectors, C width of the decoder.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from unitok.inputs import Audio
from unitok.requests.prompt_request import PromptRequest, SpokenChunk
from unitok.requests.request import GenerationConfig
from unitok.requests.runner import RequestRunner
from unitok.results import Result
from unitok_tokenizers.grammar.sequence import Span


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodeSpeech:
    """Recordings become conditions: the answer to it is as `RequestRunner.heard` gives it."""

    audio: tuple[Audio | SpokenChunk, ...]
    front_end: str | None
    """As `Request.front_end`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunPrompts:
    """Prompts are continued: the answer to it is one result for each, as `RequestRunner.run` gives them."""

    prompts: tuple[PromptRequest, ...]
    config: GenerationConfig


Step = EncodeSpeech | RunPrompts
Made = TypeVar("Made")
Steps = Generator[Step, Any, Made]
"""Yields a step, is sent what came of it, and returns what was wanted; InputError where that is impossible."""
AnswerSteps = Steps[Result]


def encode_speech(
    audio: Sequence[Audio | SpokenChunk], front_end: str | None
) -> Steps[list[tuple[Span, torch.Tensor | None]]]:
    """(condition, its vectors (N, C) where it is `lat`) of each; nothing is asked for where there is none."""
    if not audio:
        return []
    found: list[tuple[Span, torch.Tensor | None]] = yield EncodeSpeech(audio=tuple(audio), front_end=front_end)
    return found


def run_prompts(prompts: Sequence[PromptRequest], config: GenerationConfig) -> Steps[list[Result]]:
    """One result for each prompt; nothing is asked for where there is none."""
    if not prompts:
        return []
    found: list[Result] = yield RunPrompts(prompts=tuple(prompts), config=config)
    return found


def carry_out(model: RequestRunner, steps: Steps[Made]) -> Made:
    """Do one step after another, each at once; InputError as they raise it."""
    given: object = None
    while True:
        try:
            step = steps.send(given)
        except StopIteration as end:
            made: Made = end.value
            return made
        if isinstance(step, EncodeSpeech):
            given = model.heard(step.audio, step.front_end)
        else:
            config = step.config
            given = model.run(step.prompts, sampling=config.sampling, beams=config.beams, seed=config.seed)
