"""Scripted turns of the toy corpus: who is heard when, and what a coordinator should do with every chunk.

Somebody asks after a silence; a chunk of silence later the answer comes, some words a chunk, and ends. Now and then the
next question begins before that, and the answer stops at once. Everything is known, so that states can be scored.

S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unitok.model import Model
from unitok.pipelines.dialogue import LISTEN, SPEAK, STOP, Coordinator, DialogueTurn, turn_plan, units_of
from unitok_tokenizers.corpora.toy import SAMPLE_RATE, Speaker, synthesize
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.tasks.base import STATES
from unitok_training.data.documents import Document
from unitok_training.data.hash_rng import EpochOrder
from unitok_training.finetune.supervised import FinetuneConfig, finetune


@dataclass(frozen=True, kw_only=True)
class ScriptConfig:
    """How people talk in a script."""

    chunk_seconds: float = 0.32
    """Length of a chunk."""
    words: int = 2
    """Words of an answer that are said in a chunk."""
    turns: int = 3
    """Questions of a conversation."""
    silence: int = 2
    """Most chunks of silence before a question."""
    interrupted: float = 0.3
    """Share of the answers that the next question interrupts."""

    def __post_init__(self) -> None:
        if not 0.05 <= self.chunk_seconds <= 10 or min(self.words, self.turns) < 1 or self.silence < 0:
            raise InputError(
                f"chunk_seconds {self.chunk_seconds}, words {self.words}, turns {self.turns}, silence {self.silence}: "
                "give chunks of 0.05 to 10 seconds, 1 word and 1 turn or more, and no negative silence"
            )
        if not 0 <= self.interrupted <= 1:
            raise InputError(f"interrupted is {self.interrupted}: it is a share from 0 to 1")


Script = list[tuple[np.ndarray, DialogueTurn]]
"""Chunks (S,) float32 of a conversation, each with what is right to do."""


def scripted(
    pairs: Sequence[tuple[str, str]], speaker: Speaker, config: ScriptConfig, random: np.random.Generator
) -> Script:
    """A conversation: questions drawn from (question, answer) pairs, spoken by one voice."""
    size = round(config.chunk_seconds * SAMPLE_RATE)
    found: Script = []
    interrupting = False
    for _ in range(config.turns):
        question, answer = pairs[int(random.integers(len(pairs)))]
        if not interrupting:
            found += [
                (_hush(size, speaker, random), DialogueTurn(LISTEN)) for _ in range(random.integers(config.silence + 1))
            ]
        late = 0 if interrupting else int(random.integers(size // 2))
        chunks = _asked(question, late, size, speaker, random)
        found += [
            (one, DialogueTurn(STOP if interrupting and not place else LISTEN)) for place, one in enumerate(chunks)
        ]
        words = answer.split()
        said = [" ".join(words[start : start + config.words]) for start in range(0, len(words), config.words)]
        interrupting = random.random() < config.interrupted
        told = said[: int(random.integers(1, len(said) + 1))] if interrupting else said
        found += [(_hush(size, speaker, random), DialogueTurn(SPEAK, one)) for one in told]
        if not interrupting:
            found.append((_hush(size, speaker, random), DialogueTurn(STOP)))
    return found


def _hush(size: int, speaker: Speaker, random: np.random.Generator) -> np.ndarray:
    return random.normal(0.0, speaker.breath, size).astype(np.float32)


def _asked(question: str, late: int, size: int, speaker: Speaker, random: np.random.Generator) -> list[np.ndarray]:
    """Chunks of a question that begins `late`; a quarter of the last one is speech, or nobody could tell its end."""
    spoken = synthesize(question, speaker, seed=int(random.integers(2**31)))
    end = round(spoken.words[-1][2] * SAMPLE_RATE)
    late += max(0, size // 4 - (late + end) % size)
    chunks = -(-(late + end) // size)
    sound = _hush(chunks * size, speaker, random)
    sound[late : late + end] = spoken.samples[:end]
    return np.split(sound, chunks)


def turn_documents(model: Model, scripts: Sequence[Script], lang: str) -> list[Document]:
    """What the lines `turn` and `ask` learn from scripts: a document for every decision and for every piece of answer.

    Each is given what a `Coordinator` would have at that moment, had it done right so far.
    """
    documents = []
    for number, script in enumerate(scripts):
        heard, said = np.zeros(0, dtype=np.float32), ""
        for place, (chunk, right) in enumerate(script):
            heard = np.concatenate([heard, chunk])
            units = units_of(model, heard)
            answers = {"turn": Span("state", np.asarray([STATES.index(right.state)]))}
            if right.state == SPEAK:
                answers["ask"] = model.text_span(right.text)
            for task, (line, answer) in enumerate(answers.items()):
                plan = replace(turn_plan(model, line, lang, units, said), outputs=(answer,))
                made = render(plan, model.vocabulary)
                documents.append(
                    Document(
                        ids=made.ids,
                        loss_weight=made.loss_weight,
                        task=task,
                        name=f"chunk {place} of script {number}",
                        prefix_length=made.prefix_length,
                    )
                )
            said = f"{said} {right.text}".strip()
            if right.state == STOP:
                heard, said = chunk, ""
    return documents


def train_turns(
    model: Model,
    documents: Sequence[Document],
    config: FinetuneConfig,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Teach a model both lines, in place; returns the loss of every step. InputError without documents."""
    if not documents:
        raise InputError("there are no turns to learn from; give scripts with at least one chunk")

    order = EpochOrder(len(documents), (config.seed,))

    def document(index: int) -> Document:
        return documents[order.item(index)]

    losses = finetune(model.decoder, document, config, pad=model.vocabulary.pad, progress=progress)
    model.info = {**model.info, "tasks": list(dict.fromkeys([*model.info.get("tasks", []), "turn", "ask"]))}
    return losses


def turn_scores(model: Model, scripts: Sequence[Script], lang: str) -> dict[str, float]:
    """How often a coordinator that is left to itself does what is right, and how often its words are right as well.

    `state_accuracy` is over all chunks, `<state>_accuracy` over those where that state is right, `text_accuracy` over
    those where words are; `words_while_silent` counts words that came with a state other than `<speak>`.
    """
    states, words, slips = [], [], 0
    for script in scripts:
        coordinator = Coordinator(model, lang)
        for chunk, right in script:
            found = coordinator.hear(chunk)
            states.append((right.state, found.state == right.state))
            slips += 0 if found.state == SPEAK else len(found.text.split())
            if right.state == SPEAK:
                words.append(found.text == right.text)
    by_state = {
        f"{state.strip('<>')}_accuracy": float(np.mean([right for wanted, right in states if wanted == state]))
        for state in STATES
        if any(wanted == state for wanted, _ in states)
    }
    whole = {
        "state_accuracy": float(np.mean([right for _, right in states])),
        "chunks": float(len(states)),
        "words_while_silent": float(slips),
    }
    return {**whole, **by_state, **({"text_accuracy": float(np.mean(words))} if words else {})}
