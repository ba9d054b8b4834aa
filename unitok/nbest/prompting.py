"""Correction by prompts alone: few-shot (H2T, HyPoradise) and task-activating (TAP, Yang et al. 2023) templates.

For a frozen language model that can learn from its context: any function from a prompt to its continuation, a local
`transformers` model, or the `<lm>` line of a unitok model. What such a model answers is its own quality; here are the
templates, the choice of examples, and how the answer is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.model import Model
from unitok.nbest.lists import NBest
from unitok_tokenizers.errors import InputError

Continue = Callable[[str], str]
"""A prompt → what a language model writes after it."""

TASK = "Correct the errors of a speech recognizer: from its best guesses, write what was said."
TAP_TURNS = (
    ("Do you know automatic speech recognition?", "Yes. It turns recorded speech into text, and it makes errors."),
    (
        "Do you know what an n-best list is for?",
        "Yes. The recognizer gives several guesses; comparing them shows which words are uncertain, and the most "
        "plausible sentence can be put together from them.",
    ),
)
"""The dialogue that defines the task before any example."""


def shot(one: NBest, most: int, *, answered: bool) -> str:
    """One example, or with `answered=False` the question to be answered."""
    guesses = [f"guess {index}: {text}" for index, text in enumerate(one.texts[:most], 1)]
    return "\n".join([*guesses, f"said: {one.reference}" if answered else "said:"])


def few_shot_prompt(one: NBest, shots: Sequence[NBest], *, most: int = 5) -> str:
    """Instruction, examples with their references, and the list to correct."""
    parts = [TASK, *(shot(example, most, answered=True) for example in shots), shot(one, most, answered=False)]
    return "\n\n".join(parts)


def tap_prompt(one: NBest, shots: Sequence[NBest], *, most: int = 5) -> str:
    """A dialogue that leads to the task, the examples as its turns, and the list to correct as the last question."""
    turns = [f"User: {question}\nAssistant: {answer}" for question, answer in TAP_TURNS]
    turns.append(f"User: {TASK}\nAssistant: I will answer with the sentence alone, after 'said:'.")
    for example in shots:
        guesses = shot(example, most, answered=False).removesuffix("\nsaid:")
        turns.append(f"User: {guesses}\nAssistant: said: {example.reference}")
    turns.append(f"User: {shot(one, most, answered=False).removesuffix(chr(10) + 'said:')}\nAssistant: said:")
    return "\n\n".join(turns)


def read_answer(text: str) -> str:
    """The first line of a continuation, without a repeated `said:`."""
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    return lines[0].removeprefix("said:").strip() if lines else ""


@dataclass
class PromptCorrector:
    """A frozen language model that corrects lists in context."""

    language_model: Continue
    """Writes what follows a prompt."""
    examples: Sequence[NBest]
    """Lists with references that examples are drawn from."""
    template: Callable[..., str] = few_shot_prompt
    """`few_shot_prompt` or `tap_prompt`."""
    shots: int = 3
    """Examples in a prompt."""
    most: int = 5
    """Hypotheses of a list that are shown."""
    seed: int = 0
    """Of the draw of examples."""

    def prompt(self, index: int, one: NBest) -> str:
        """The prompt of the list at a place; its examples are of the same language, and never the list itself."""
        pool = [
            example
            for example in self.examples
            if example.reference is not None and example.lang == one.lang and example.id != one.id
        ]
        if len(pool) < self.shots:
            raise InputError(
                f"{self.shots} examples of {one.lang!r} are asked for and {len(pool)} lists have a reference; ask for "
                "fewer, or give more"
            )
        drawn = np.random.default_rng([self.seed, index]).permutation(len(pool))[: self.shots]
        return self.template(one, [pool[place] for place in drawn], most=self.most)

    def correct(self, lists: Sequence[NBest]) -> list[str]:
        """A text per list; where the model writes nothing, the list's first."""
        answers = [read_answer(self.language_model(self.prompt(index, one))) for index, one in enumerate(lists)]
        return [answer or one.texts[0] for answer, one in zip(answers, lists)]


def own_language_model(model: Model, lang: str) -> Continue:
    """The `<lm>` line of a unitok model as a function from a prompt to its continuation."""

    def write(prompt: str) -> str:
        return model.generate("lm", source=lang, text=prompt).text.removeprefix(prompt)  # type: ignore[union-attr]

    return write


def local_language_model(folder: Path | str, *, max_new_tokens: int = 64) -> Continue:
    """A causal language model of a local `transformers` folder; nothing is downloaded."""
    from unitok.pipelines.backends.hugging_face import local_pipeline

    pipeline: Any = local_pipeline("text-generation", folder)

    def write(prompt: str) -> str:
        answer = pipeline(prompt, max_new_tokens=max_new_tokens, do_sample=False, return_full_text=False)
        return str(answer[0]["generated_text"])

    return write
