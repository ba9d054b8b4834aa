"""Every task line, from plan to generation: a tiny model learns eight examples by heart and says them back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import toy_shards
from tests.support.toy_shards import ToyShards
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.generation.generate import generate
from unitok.generation.sampling import Sampling
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.decoder import train
from unitok_training.trainer.optimizer import OptimConfig

EXAMPLES = 8
STEPS = {"sr": 260, **dict.fromkeys(("se", "se.text", "tse", "tse.text"), 200)}
"""Of tasks that take more than 110: what noise says next, and who of two is meant, have no order that helps."""
CONTINUED = {"lm": 2, "slm": 3, "ilm": 1 + 3}
"""Units or pieces given to tasks without a condition, to tell examples apart: fewer than any example has."""


def rows_for(key: str) -> list[dict[str, Any]]:
    if key in ("chat", "chat.direct"):
        return toy_shards.dialogues(EXAMPLES)
    if key.startswith(("se", "sr", "tse")):
        spoken = [toy_shards.row(group, "en", speaker) for group in range(EXAMPLES // 2) for speaker in "ab"]
        return spoken + toy_shards.mixtures(spoken)
    if key == "vc":
        return [toy_shards.row(group, "en", speaker) for group in range(EXAMPLES // 2) for speaker in "ab"]
    two = key.startswith(("mt", "s2"))
    return [
        toy_shards.row(group, lang, "a")
        for group in range(EXAMPLES // 2 if two else EXAMPLES)
        for lang in (("en", "de") if two else ("en",))
    ]


def prompt_and_answer(plan: SequenceSpec, vocabulary: Any) -> tuple[np.ndarray, np.ndarray]:
    """What generation is given and the ids it should add; tasks without a condition are given a beginning."""
    ids = render(plan, vocabulary).ids
    prompt = render_prompt(replace(plan, outputs=()), vocabulary)
    given = len(prompt) + CONTINUED.get(plan.task, 0)
    return ids[:given], ids[given:]


@pytest.mark.slow
@pytest.mark.parametrize("key", TOKEN_VARIANTS)
def test_a_tiny_model_learns_eight_examples_by_heart(key: str, tmp_path: Path) -> None:
    shards: Any = ToyShards(rows_for(key))
    vocabulary = toy_shards.vocabulary()
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(vocab_size=vocabulary.size, width=64, layers=2, heads=4, kv_heads=2))
    config = TrainConfig(
        steps=STEPS.get(key, 110),
        pack_size=512,
        packs_per_step=1,
        window=32,
        precision="fp32",
        log_every=300,
        checkpoint_every=300,
        optim=OptimConfig(learning_rate=6e-3, warmup_steps=10, weight_decay=0.0),
    )
    options = ExampleOptions(repeat=EXAMPLES, interleave_sentences=2, voice_max_seconds=1.0)
    mixture = Mixture(tasks={key: 1.0})
    train(config, decoder, shards, vocabulary, tmp_path, mixture=mixture, plans=options)
    source = ExampleSource(shards, vocabulary, mixture, seed=config.seed, options=options)
    plans = [source.plan(index) for index in range(EXAMPLES)]
    pairs = [prompt_and_answer(plan, vocabulary) for plan in plans]
    limit = max(len(answer) for _, answer in pairs)
    decoder.eval()
    found = generate(
        decoder,
        [prompt for prompt, _ in pairs],
        automata=[Automaton(vocabulary, prompt, max_new_tokens=limit) for prompt, _ in pairs],
        sampling=Sampling(temperature=0.0),
        max_new_tokens=limit,
        seed=0,
        eos=vocabulary.eos,
    )
    said = sum(result.ids.tolist() == answer.tolist() for result, (_, answer) in zip(found, pairs))
    assert said == EXAMPLES, f"{said} of {EXAMPLES} examples of {key} came back"
