"""GSLM (Lakhotia et al. 2021): a language model of deduplicated units, and speech that it makes up.

unitok systems run gslm -o runs/gslm
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.tasks.base import OUT_UNITS
from unitok_training.evaluation.ngram import NgramModel
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, oracle_target, settings_of
from unitok_training.systems.base.token_parts import VOICE
from unitok_training.systems.base.token_scores import continued, in_order, nats, ngram_nats
from unitok_training.trainer.config import TrainConfig

ORDER = 5
"""Of the n-gram model of units that is the yardstick."""
WORD_ORDER = 3
"""Of the n-gram model of the training texts that scores what was made up."""


@dataclass(frozen=True, kw_only=True)
class GslmConfig(TokenBenchConfig):
    """What the check depends on."""

    spoken: int = 1200
    """Training sentences beside the corpus, spoken: the corpus alone is learned by heart."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=300))
    """Training of an arm; the seed is that of the arm."""
    temperatures: tuple[float, ...] = (0.3, 0.7, 1.0, 1.3)
    """At which speech is made up, as many utterances as held-out ones are spoken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.temperatures) < 2 or self.limit < 2:
            raise InputError("a curve needs two temperatures or more, and two utterances or more at each")


def made_up(bench: TokenBench, run: Evaluation, temperature: float, count: int) -> list[str]:
    """What the oracle reads in speech that a model makes up, of nothing."""
    langs = [run.model.languages[number % len(run.model.languages)] for number in range(count)]
    requests = [
        PromptRequest(plan=SequenceSpec("slm", lang, None, (OUT_UNITS,)), voice=VOICE, speak=True) for lang in langs
    ]
    found = run.model.run(seeded(requests, run.seed), sampling=Sampling(temperature=temperature))
    audio = [np.zeros(0, np.float32) if one.audio is None else one.audio for one in found]
    return bench.parts.oracle.read(audio, langs)


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-2 of each text against all others, 0 to 1: how much utterances are alike."""
    import sacrebleu

    scorer = sacrebleu.BLEU(max_ngram_order=2, effective_order=True, tokenize="none", force=True)
    found = [
        scorer.sentence_score(text, [*texts[:place], *texts[place + 1 :]]).score for place, text in enumerate(texts)
    ]
    return float(np.mean(found)) / 100


def auto_bleu(texts: Sequence[str], order: int = 2) -> float:
    """Mean share of a text's n-grams that it says more than once, 0 to 1; of texts without n-grams nothing."""
    shares = []
    for text in texts:
        words = text.split()
        grams = [tuple(words[place : place + order]) for place in range(len(words) - order + 1)]
        if grams:
            shares.append(float(np.mean([grams.count(one) > 1 for one in grams])))
    return float(np.mean(shares)) if shares else 0.0


def texts_perplexity(texts: Sequence[str], training: Sequence[str]) -> float:
    """Perplexity per word, ends included, of texts by an n-gram model of the training texts (PPX)."""
    numbers = {word: number for number, word in enumerate(sorted({w for text in training for w in text.split()}), 1)}
    unknown = len(numbers) + 1

    def ids(text: str) -> list[int]:
        return [*(numbers.get(word, unknown) for word in text.split()), 0]

    model = NgramModel.fit(map(ids, training), order=WORD_ORDER, size=unknown + 1)
    return model.perplexity(map(ids, texts))


def made_up_figures(key: str, texts: Sequence[str], training: Sequence[str]) -> Figures:
    """PPX and VERT of texts: how likely they are, and how much they repeat each other and themselves."""
    alike, repeated = self_bleu(texts), auto_bleu(texts)
    return {
        f"{key}.ppx": texts_perplexity(texts, training),
        f"{key}.self_bleu": alike,
        f"{key}.auto_bleu": repeated,
        f"{key}.vert": float(np.sqrt(alike * repeated)),
    }


def check_gslm(given: Bench) -> Figures:
    """Perplexity of units against a 5-gram, the order of words, and what is made up at several temperatures."""
    config = settings_of(given, GslmConfig)
    bench = TokenBench(given, config)
    figures, ngrams, texts = bench.oracle_figures("c15"), list[Counted](), dict[float, list[str]]()

    def scored(run: Evaluation) -> tuple[Counted, Counted]:
        rows = run.rows(run.split, "units")
        ngrams.append(ngrams[0] if ngrams else ngram_nats(run, rows, "units", order=ORDER))
        if not texts:  # of the first seed
            texts.update({one: made_up(bench, run, one, config.limit) for one in config.temperatures})
        return nats(run, continued(run, "slm", "units", rows)), in_order(run, rows)

    found = bench.over_seeds("slm", {"slm": 1.0}, scored)
    figures |= over_seeds("c15.ppl", [float(np.exp(one.rate)) for one, _ in found])
    figures |= over_seeds("c15.order.accuracy", [order.rate for _, order in found])
    figures["c15.five_gram.ppl"] = float(np.exp(ngrams[0].rate))
    figures |= bench.compared("c15.nats_over_five_gram", [one for one, _ in found], ngrams)
    rows = [*bench.parts.rows, *bench.parts.spoken(config.spoken)]
    training = [row.text or "" for row in rows if row.split == "train"]
    held_out = [row.text or "" for row in bench.parts.rows if row.split == config.split]
    for temperature, made in texts.items():
        figures |= made_up_figures(f"c15.t{temperature:g}", made, training)
    return figures | made_up_figures("c15.held_out", held_out[: config.limit], training)


SYSTEM = System(
    name="gslm",
    title="GSLM",
    row="C15",
    sentences=600,
    test_sentences=100,
    settings=GslmConfig,
    check=check_gslm,
    differs="units of a small recognizer of letters, not of self-supervision; a toy corpus of two topics, "
    "whose sentences hardly ever say a pair of words twice: VERT is next to 0, and self-BLEU stands beside it",
    measures="perplexity of units beside a 5-gram, words in order against the same ones shuffled, and how likely and "
    "how various speech is that is made up at several temperatures, read by the oracle",
    measured=(
        Measured(
            "unitok systems run gslm",
            {
                "c15.oracle.accuracy": 0.994,
                "c15.ppl": 2.99,
                "c15.ppl.interval": 0.0364,
                "c15.five_gram.ppl": 4.26,
                "c15.nats_over_five_gram": -0.353,
                "c15.nats_over_five_gram.low": -0.394,
                "c15.nats_over_five_gram.high": -0.318,
                "c15.order.accuracy": 1.0,
                "c15.held_out.ppx": 17.3,
                "c15.held_out.self_bleu": 0.44,
                "c15.held_out.vert": 0.0,
                "c15.t0.3.ppx": 13.3,
                "c15.t0.3.self_bleu": 0.694,
                "c15.t0.3.vert": 0.0,
                "c15.t0.7.ppx": 22.9,
                "c15.t0.7.self_bleu": 0.448,
                "c15.t0.7.vert": 0.0748,
                "c15.t1.ppx": 43.6,
                "c15.t1.self_bleu": 0.434,
                "c15.t1.vert": 0.0,
                "c15.t1.3.ppx": 144.0,
                "c15.t1.3.self_bleu": 0.374,
                "c15.t1.3.vert": 0.0,
            },
            "a85bb34",
        ),
    ),
    targets=(
        oracle_target("c15"),
        Target("units are less perplexing than to a 5-gram", lambda f: f["c15.ppl"] < f["c15.five_gram.ppl"]),
        Target("… on these sentences, not by chance", lambda f: f["c15.nats_over_five_gram.high"] < 0),
        Target("nine sentences of ten are likelier in their order", lambda f: f["c15.order.accuracy"] >= 0.9),
        Target("what is made up cold is likelier", lambda f: f["c15.t0.3.ppx"] < f["c15.t1.3.ppx"]),
        Target("what is made up hot is more various", lambda f: f["c15.t1.3.self_bleu"] < f["c15.t0.3.self_bleu"]),
    ),
)
