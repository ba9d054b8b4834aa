"""A coordinator from nothing to figures: scripted turns, both of its lines taught, states of voices never heard.

    unitok systems run coordinator -o runs/systems/coordinator

Conversations are those of `systems.dialogue_corpus`. A coordinator that was left to itself is scored on voices and
conversations that it has not heard, and beside it what needs no ears: always listening, and silence in place of sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from unitok.decoder.model import Decoder
from unitok.model import Model
from unitok.pipelines.dialogue import LISTEN
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.corpora.toy import TEST_VOICES, TRAIN_VOICES, Sentence, Speaker, build_sentences
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.finetune.supervised import FinetuneConfig
from unitok_training.recipes.base import Shape
from unitok_training.recipes.config import overridden
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.text.dialogue_corpus import (
    Script,
    ScriptConfig,
    scripted,
    train_turns,
    turn_documents,
    turn_scores,
)
from unitok_training.trainer.optimizer import OptimConfig

ASKED, ANSWERED = "qaa", "qab"
"""Languages of the questions and of their answers."""


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig:
    """What a check of a coordinator depends on."""

    questions: int = 12
    """Questions that have an answer to be learnt."""
    turns: int = 600
    """Questions asked in the conversations that are learnt from."""
    test_turns: int = 120
    """Questions asked in the conversations that are scored."""
    script: ScriptConfig = field(default_factory=ScriptConfig)
    """How people talk."""
    clusters: int = 48
    """Number of units."""
    text_pieces: int = 300
    """Pieces of the text tokenizer."""
    decoder: Shape = field(default_factory=lambda: Shape(width=96, layers=2, heads=4, kv_heads=2))
    """Shape of the decoder."""
    steps: int = 400
    """Updates of the decoder."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    precision: str = "fp32"
    """"fp32", "bf16" or "auto", of the training."""
    seed: int = 0
    """Of the conversations, the units, the weights and the order of examples."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("questions", "turns", "test_turns", "clusters", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")


def coordinator_figures(
    run: Path, config: CoordinatorConfig, *, report: Callable[[str], None] = print
) -> dict[str, float]:
    """Teach a coordinator, leave it in `run / "model"`, and score it.

    Returns:
        The figures of `turn_scores` for held-out voices; `always_listen.state_accuracy` and `deaf.state_accuracy`, what
        one reaches that never stops listening or hears nothing; `new_questions.state_accuracy`, of conversations whose
        questions have no answer that was learnt.
    """
    drawn = build_sentences(train=config.questions, test=config.questions, dev=0, seed=config.seed)
    known, strange = ([one for one in drawn if one.split == split] for split in ("train", "test"))
    report("corpus")
    learnt = conversations(known, TRAIN_VOICES, config.turns, config, stream=0)
    model = untrained(known, learnt, config)
    documents = turn_documents(model, learnt, ASKED)
    report(f"coordinator: {config.steps} steps")
    optim = OptimConfig(learning_rate=config.learning_rate, warmup_steps=min(20, config.steps))
    train_turns(model, documents, FinetuneConfig(
        steps=config.steps, optim=optim, precision=config.precision, seed=config.seed
    ))  # fmt: skip
    model.save(run / "model")
    report("scores")
    test = conversations(known, TEST_VOICES, config.test_turns, config, stream=1)
    other = conversations(strange, TEST_VOICES, config.test_turns, config, stream=2)
    found = turn_scores(model, test, ASKED)
    beside = {
        "deaf": turn_scores(model, [[(np.zeros_like(chunk), right) for chunk, right in one] for one in test], ASKED),
        "new_questions": turn_scores(model, other, ASKED),
    }
    return {
        **found,
        **{f"{name}.state_accuracy": scores["state_accuracy"] for name, scores in beside.items()},
        "always_listen.state_accuracy": float(np.mean([right.state == LISTEN for one in test for _, right in one])),
    }


def conversations(
    sentences: Sequence[Sentence], voices: Sequence[Speaker], turns: int, config: CoordinatorConfig, *, stream: int
) -> list[Script]:
    """Scripts of `turns` questions in all, by the voices in turn; `stream` names a sequence of draws."""
    pairs = [(one.text(ASKED), one.text(ANSWERED)) for one in sentences]
    random = np.random.default_rng([config.seed, stream])
    count = -(-turns // config.script.turns)
    return [scripted(pairs, voices[number % len(voices)], config.script, random) for number in range(count)]


def untrained(sentences: Sequence[Sentence], heard: Sequence[Script], config: CoordinatorConfig) -> Model:
    """Units from cepstra of the scripts, text pieces of their words, and a decoder of random weights."""
    sounds = [np.concatenate([chunk for chunk, _ in one]) for one in heard[:24]]
    units = UnitTokenizer.fit(MfccEncoder(MelConfig(hop_length=640)), sounds, config.clusters, seed=config.seed)
    texts = [one.text(lang) for one in sentences for lang in (ASKED, ANSWERED)]
    bundle = TokenizerSet.of(SentencePieceText.train(texts * 8, config.text_pieces), units)
    vocabulary = bundle.vocabulary([ASKED, ANSWERED])
    shape = config.decoder.config(vocabulary.size)
    decoder = Decoder(shape, generator=torch.Generator().manual_seed(config.seed)).eval()
    return Model(decoder=decoder, vocabulary=vocabulary, tokenizers=bundle)


def check_coordinator(bench: Bench) -> Figures:
    """A coordinator with state tokens: its states in conversations of held-out voices, left to itself."""
    given = bench.config
    config = CoordinatorConfig(turns=given.sentences, test_turns=given.test_sentences, seed=given.seed)
    return coordinator_figures(bench.run, overridden(given.precisely(config), given.overrides), report=bench.report)


SYSTEM = System(
    name="coordinator",
    title="coordinator with state tokens",
    row="A19",
    settings=CoordinatorConfig,
    check=check_coordinator,
    differs="scripted conversations of a toy corpus",
    measures=(
        "states in conversations of held-out voices, left to itself; without ears; on questions that were not learnt"
    ),
    targets=(
        Target("nine states of ten are right", lambda f: f["state_accuracy"] >= 0.9),
        Target("ears are needed", lambda f: f["state_accuracy"] > f["deaf.state_accuracy"]),
    ),
    measured=(
        Measured(
            "unitok systems run coordinator --sentences 600",
            {"state_accuracy": 0.994},
        ),
    ),
)
