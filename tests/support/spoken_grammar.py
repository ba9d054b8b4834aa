"""A small language whose units, words, stories and prosody are known, for what is to be learned in seconds.

A letter is a unit, in one of two classes of prosody a unit of its own; a word is two or three letters. A sentence is of
one topic, in one class, and words of two kinds take turns in it: nothing else is certain.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.model import Model
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.mixture import Mixture
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.decoder import train
from unitok_training.trainer.optimizer import OptimConfig

LETTERS = "abcdefghij"
WORDS = ((("bad", "cab"), ("de", "bec")), (("fig", "hij"), ("gh", "ijg")))
"""Topic → the words of each of the two kinds; topics share no letter."""
CLASSES = ("low", "high")
LENGTH, FRAMES = 4, 2
"""Words of a sentence, and frames of a letter."""
UNITS = StreamInfo("units", "units", "letters-20", Fraction(50), (len(CLASSES) * len(LETTERS),), deduplicated=True)
STEPS = 250
"""Of training, until everything that is certain is known."""
TASKS = {"slm": 1.0, "ilm": 2.0}


def units_of(text: str, manner: int = 0) -> np.ndarray:
    """(F,) one unit a frame."""
    letters = [LETTERS.index(letter) + manner * len(LETTERS) for letter in text if letter != " "]
    return np.repeat(np.asarray(letters, np.int64), FRAMES)


def sentence(random: np.random.Generator, topic: int) -> str:
    first = int(random.integers(2))
    return " ".join(str(random.choice(WORDS[topic][(first + at) % 2])) for at in range(LENGTH))


def row(name: str, text: str, manner: int, split: str, **extras: Any) -> Row:
    edges = np.cumsum([0, *map(len, text.split())]) * FRAMES / float(UNITS.frame_rate or 1)
    words = tuple((word, float(a), float(b)) for word, a, b in zip(text.split(), edges, edges[1:]))
    return Row(
        id=name, group=name, lang="en", speaker="eva", split=split, text=text, words=words,
        tokens={"units": units_of(text, manner)}, extras={"prosody": CLASSES[manner], **extras},
    )  # fmt: skip


def rows(train_rows: int = 400, test_rows: int = 40) -> list[Row]:
    """Training sentences in one class each, test sentences in both, which come in documents of four."""
    random, found = np.random.default_rng(5), []
    for number in range(train_rows):
        text = sentence(random, number % len(WORDS))
        found.append(row(f"r{number}", text, int(random.integers(2)), "train"))
    for number in range(test_rows):
        text = sentence(random, number // 4 % len(WORDS))
        found += [row(f"t{number}{one}", text, one, "test", document=f"d{number // 4}{one}") for one in (0, 1)]
    return found


def made(folder: Path) -> tuple[Shards, Vocabulary, TokenizerSet]:
    """Shards of the language, with a vocabulary and a text tokenizer."""
    every = rows()
    text = SentencePieceText.train([one.text or "" for one in every], 300)
    tokenizers = TokenizerSet.of(text)
    shards = prepare_shards(every, tokenizers, folder / "shards", external={"units": UNITS})
    info = tokenizers.infos()[0]
    return shards, Vocabulary.build(text=info, streams=[UNITS], languages=["en"]), tokenizers


def model_of(shards: Shards, vocabulary: Vocabulary, tokenizers: TokenizerSet, folder: Path, *, steps: int) -> Model:
    """A tiny model of random weights, trained for some steps."""
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(vocab_size=vocabulary.size, width=64, layers=2, heads=4, kv_heads=2))
    if steps:
        config = TrainConfig(
            steps=steps, pack_size=512, packs_per_step=1, window=64, precision="fp32", log_every=steps,
            checkpoint_every=steps,
            optim=OptimConfig(name="muon", learning_rate=4e-3, warmup_steps=10, weight_decay=0.0),
        )  # fmt: skip
        options = ExampleOptions(interleave_words=2.0)
        pieces, mixture = tokenizers.text.pieces(), Mixture(tasks=TASKS)
        train(config, decoder, shards, vocabulary, folder, mixture=mixture, plans=options, pieces=pieces)
    return Model(
        decoder=decoder.eval(), vocabulary=vocabulary, tokenizers=tokenizers, info={"tasks": list(TASKS)}
    )  # fmt: skip
