"""Requests in other words than were learnt: how many of them a script of rules and a trained router send to their tool.

    unitok systems run routing -o runs/systems/routing

A request is a way to ask, what is wanted, and of which thing. Ways and things of the requests that are scored occur in
no request that is learnt from. The router is a decoder from scratch with the `<route>` line; it can name no other call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from unitok.decoder.model import Decoder
from unitok.model import Model
from unitok.pipelines.router import Call, Router, Rule, Script, read_call
from unitok.pipelines.tools import Registry, Tool
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.documents import Document
from unitok_training.data.hash_rng import EpochOrder
from unitok_training.finetune.supervised import FinetuneConfig, finetune
from unitok_training.recipes.base import Shape
from unitok_training.recipes.config import overridden
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.trainer.optimizer import OptimConfig

WANTED: Mapping[str, tuple[str, ...]] = {
    "recognise lang=en": ("transcribe {}", "write down {}", "turn {} into text", "write out {}"),
    "translate target=de": ("translate {} into german", "put {} into german", "give a german version of {}"),
    "translate target=fr": ("translate {} into french", "put {} into french", "give a french version of {}"),
    "speak lang=en": ("read {} aloud", "say {} slowly", "pronounce {}", "read {} to me"),
    "clean": ("remove the noise from {}", "clean up {}", "make {} less noisy"),
}
"""Call → how it is wanted, {} for the thing."""
WAYS = {
    "train": (
        "{}", "please {}", "can you {}", "could you {} for me", "I want you to {}", "{} now", "would you {} please",
        "I would like you to {}", "when you have time, {}", "first {} and then stop", "and {} as well", "just {}",
        "I have a wish: {}, thank you", "well, {} for us if that is possible", "do {} before the evening comes",
        "it would help if you {}",
    ),
    "test": ("hello, {} if you can", "be so kind and {}", "next, {} and tell me when it is done", "try to {} again"),
}  # fmt: skip
THINGS = {
    "train": (
        "it", "this", "the recording", "my message", "this clip", "the meeting", "that sentence", "the news",
        "her call", "the file", "a long letter", "my old notes", "these words", "the first chapter", "each question",
        "your answer", "some of them", "the story of my life", "our plan for tomorrow", "both songs", "a poem",
        "everything here",
    ),
    "test": ("the interview", "what he sent", "this lecture", "our talk", "the last one", "the song"),
}  # fmt: skip
RULES = (
    Rule(r"\b(?P<target>german|french)\b", "translate", {"target": "{target}"}),
    Rule(r"\b(read|say|pronounce)\b", "speak", {"lang": "en"}),
    Rule(r"\b(transcribe|write|into text)\b", "recognise", {"lang": "en"}),
    Rule(r"\b(noise|noisy|clean)\b", "clean", {}),
)
LANGUAGES = {"german": "de", "french": "fr"}


@dataclass(frozen=True, kw_only=True)
class RoutingConfig:
    """What a check of routing depends on."""

    requests: int = 2400
    """Most requests that are learnt from."""
    test_requests: int = 120
    """Most requests that are scored."""
    text_pieces: int = 300
    """Pieces of the text tokenizer; few, so that a new word is made of pieces that were learnt."""
    decoder: Shape = field(default_factory=lambda: Shape(width=64, layers=2, heads=2, kv_heads=2))
    """Shape of the decoder."""
    steps: int = 300
    """Updates of the decoder."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    precision: str = "fp32"
    """"fp32", "bf16" or "auto", of the training."""
    seed: int = 0
    """Of the requests, the weights and the order of examples."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("requests", "test_requests", "steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")


def routing_figures(run: Path, config: RoutingConfig, *, report: Callable[[str], None] = print) -> dict[str, float]:
    """Teach a router, leave it in `run / "model"`, and score it and the script on the same requests.

    Returns:
        `router.accuracy` and `script.accuracy`, shares of requests that reach their call; `untaught.accuracy`, of the
        router before it learnt; `calls` and `requests`, how many there are.
    """
    report("corpus")
    learnt, test = (
        requests(split, count, config.seed)
        for split, count in (("train", config.requests), ("test", config.test_requests))
    )
    model = untrained([text for row in learnt for text in row], config)
    router, script = Router(model, [read_call(call) for call in WANTED]), Script(RULES, tools(), LANGUAGES)
    wanted = [read_call(call) for _, call in test]
    before = router.route([text for text, _ in test])
    report(f"router: {config.steps} steps")
    train_router(model, learnt, config)
    model.save(run / "model")
    made = {
        "untaught": before,
        "router": router.route([text for text, _ in test]),
        "script": [script(text) for text, _ in test],
    }
    return {
        **{f"{name}.accuracy": shared(wanted, calls) for name, calls in made.items()},
        "calls": float(len(WANTED)),
        "requests": float(len(test)),
    }


def shared(wanted: Sequence[Call], made: Sequence[Call]) -> float:
    """Share of calls that are the wanted ones."""
    return float(np.mean([one == other for one, other in zip(wanted, made)]))


def requests(split: str, most: int, seed: int) -> list[tuple[str, str]]:
    """(request, call) of a split, drawn at random, as many of each call as of the others where there are enough."""
    random = np.random.default_rng([seed, sorted(WAYS).index(split)])
    by_call: list[list[tuple[str, str]]] = []
    for call, phrases in WANTED.items():
        own = [
            (way.format(want.format(thing)), call) for way in WAYS[split] for want in phrases for thing in THINGS[split]
        ]
        by_call.append([own[place] for place in random.permutation(len(own))])
    return [rows[place] for place in range(max(map(len, by_call))) for rows in by_call if place < len(rows)][:most]


def tools() -> Registry:
    """Tools of the calls; they are named here, not run."""
    rows = (("recognise", ("lang",)), ("translate", ("target",)), ("speak", ("lang",)), ("clean", ()))
    return Registry(
        Tool(name=name, description=name, inputs=dict.fromkeys(words, "word"), output="text", function=str)
        for name, words in rows
    )


def untrained(texts: Sequence[str], config: RoutingConfig) -> Model:
    """Text pieces of the requests and calls, and a decoder of random weights."""
    bundle = TokenizerSet.of(SentencePieceText.train(texts, config.text_pieces))
    vocabulary = bundle.vocabulary(["en"])
    shape = config.decoder.config(vocabulary.size)
    decoder = Decoder(shape, generator=torch.Generator().manual_seed(config.seed)).eval()
    return Model(decoder=decoder, vocabulary=vocabulary, tokenizers=bundle)


def train_router(model: Model, rows: Sequence[tuple[str, str]], config: RoutingConfig) -> list[float]:
    """Teach a model the `<route>` line on (request, call), in place; returns the loss of every step."""
    order = EpochOrder(len(rows), (config.seed,))

    def document(index: int) -> Document:
        text, call = rows[order.item(index)]
        answer = Span("tool", np.asarray(model.tokenizers.text.encode(call)))
        made = render(
            SequenceSpec("route", "en", conditions=(model.text_span(text),), outputs=(answer,)), model.vocabulary
        )
        return Document(ids=made.ids, loss_weight=made.loss_weight, task=0, prefix_length=made.prefix_length)

    optim = OptimConfig(learning_rate=config.learning_rate, warmup_steps=min(20, config.steps))
    losses = finetune(
        model.decoder,
        document,
        FinetuneConfig(steps=config.steps, positions=1024, optim=optim, precision=config.precision, seed=config.seed),
        pad=model.vocabulary.pad,
    )
    model.info = {**model.info, "tasks": list(dict.fromkeys([*model.info.get("tasks", []), "route"]))}
    return losses


def check_routing(bench: Bench) -> Figures:
    """AudioGPT's choice of a tool: requests in other words than were learnt, by rules and by a trained router."""
    given = bench.config
    config = RoutingConfig(requests=given.sentences, test_requests=given.test_sentences, seed=given.seed)
    return routing_figures(bench.run, overridden(given.precisely(config), given.overrides), report=bench.report)


SYSTEM = System(
    name="routing",
    title="AudioGPT's choice of a tool",
    row="A2",
    settings=RoutingConfig,
    check=check_routing,
    differs="five tools; a router of its own instead of a chat model",
    measures="requests in other words than were learnt, by rules and by a trained router",
    targets=(
        Target("the script knows every request", lambda f: f["script.accuracy"] == 1),
        Target("the router is right nineteen times of twenty", lambda f: f["router.accuracy"] >= 0.95),
    ),
    measured=(
        Measured(
            "unitok systems run routing --test-sentences 408",
            {"script.accuracy": 1.0, "router.accuracy": 0.966},
        ),
    ),
)
