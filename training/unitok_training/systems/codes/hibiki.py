"""Hibiki (Labiausse et al. 2025): a translator that listens and speaks at once, taught by words that wait.

unitok systems run hibiki -o runs/hibiki

A text translation model says by which word of the source each word of the target becomes likely. Both arms learn from
the same sentences: `aligned` from targets whose words wait for these, `delayed` from targets a constant time behind,
which lag as much on the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.layouts.step_depth import StepDepthConfig
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.base import Shape
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import CodeBench, CodeBenchConfig, CodePartsConfig
from unitok_training.systems.base.intervals import over_seeds, seeds_and_rates
from unitok_training.systems.base.simultaneous import (
    Schedule,
    causal,
    laid_words,
    read_words,
    waits_by_delay,
    waits_for_source,
    waits_for_words,
)
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import oracle_target, settings_of
from unitok_training.systems.base.token_parts import words_heard
from unitok_training.systems.base.token_scores import Translated, answers
from unitok_training.systems.codes.remade_speech import Heard, heard
from unitok_training.systems.codes.stream_translator import StreamTraining, StreamTranslator
from unitok_training.systems.codes.two_stream_data import (
    SOURCE,
    TARGET,
    Pair,
    Streams,
    alignments,
    delay_of,
    pairs_of,
    stream_shards,
    text_rows,
    two_streams,
)

SPLIT = "test_seen"
"""Held-out sentences by the voices of the training."""
TEXT_TASKS: Mapping[str, float] = {f"mt@{SOURCE}-{TARGET}": 3.0, f"lm@{TARGET}": 1.0}
"""What the text model learns: to translate the first words of a sentence, and what is likely before there are any."""
ARMS = ("aligned", "delayed")


def causal_parts() -> CodePartsConfig:
    """Tokenizers that look back only, of both languages: codes of a frame know nothing of what is heard later."""
    plain = CodePartsConfig(languages=(SOURCE, TARGET))
    return replace(plain, encoder=replace(plain.encoder, causal=True), codec=replace(plain.codec, causal=True))


@dataclass(frozen=True, kw_only=True)
class HibikiConfig(CodeBenchConfig):
    """What the check depends on."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    """It scores fixed ones, which `dev` is none of."""
    idle: ClassVar[Mapping[str, str]] = {
        "train.steps": "text_steps and stream.steps say how long models are trained",
        "transcribed": "all sentences are translated",
    }

    parts: CodePartsConfig = field(default_factory=causal_parts)
    """Corpus, tokenizers, codec."""
    decoder: Shape = field(default_factory=lambda: Shape(width=128, layers=6, heads=4, kv_heads=2))
    """The text model; a stream translator's decoder over frames has `depth_layers` fewer blocks."""
    depth_width: int = 64
    """Width of the small decoder over codebooks, whose matrices are other ones at each."""
    stream: StreamTraining = field(default_factory=StreamTraining)
    """Training of a stream translator."""
    texts: int = 600
    """Sentences of text alone beside the spoken ones, for the text model."""
    text_steps: int = 600
    """Updates of the text model."""
    after: float = 2.5
    """Seconds behind the end of a source in which it may still be translated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.parts.languages) >= {SOURCE, TARGET}:
            raise InputError(f"parts.languages are {self.parts.languages}: what is translated is {SOURCE} to {TARGET}")
        if not self.after > 0 or self.text_steps < 1:
            raise InputError(f"after is {self.after}, text_steps {self.text_steps}: both must be above 0")


# -- data ---------------------------------------------------------------------------------------------------------


def text_model(bench: CodeBench, config: HibikiConfig) -> Evaluation:
    """The text translation model, before its own shards."""
    shards = prepare_shards(text_rows(bench), TokenizerSet.of(bench.parts.tokenizers.text), bench.run / "text_shards")
    model = bench.train("text", TEXT_TASKS, seed=config.seed, steps=config.text_steps, shards=shards)
    return Evaluation(model=model, shards=shards, seed=config.seed)


def text_bleu(run: Evaluation, pairs: Sequence[Pair]) -> float:
    """What its translations of whole texts are worth."""
    specs = [SequenceSpec("mt", SOURCE, TARGET, (), (run.model.text_span(pair.source.text or ""),)) for pair in pairs]
    return Translated.of([pair.target.text or "" for pair in pairs], answers(run, specs)).bleu


@dataclass(frozen=True, kw_only=True, eq=False)
class Laid:
    """When the words of the training's targets are said."""

    pairs: Sequence[Pair]
    """Of the training."""
    aligned: Sequence[np.ndarray]
    """Source word of each target word, by the text model."""
    streams: Streams
    """Lays them."""

    def plans(self, waits: Sequence[np.ndarray]) -> list[Schedule]:
        """Schedules of words that wait so long."""
        return [self.streams.plan(pair, one) for pair, one in zip(self.pairs, waits)]

    def texts(self, plans: Sequence[Schedule]) -> list[np.ndarray]:
        """(F,) ids of each target as a schedule has it."""
        return [
            laid_words(plan, [self.streams.ids(word) for word, _, _ in pair.target.words], self.streams.padding)
            for pair, plan in zip(self.pairs, plans)
        ]

    def lagging(self, plans: Sequence[Schedule]) -> float:
        """Mean seconds behind the source."""
        return float(np.mean([
            self.streams.lagging(ids, self.streams.frames(pair.source), len(pair.target.words))
            for pair, ids in zip(self.pairs, self.texts(plans))
        ]))  # fmt: skip

    def behind(self, delay: float) -> list[Schedule]:
        """Schedules of a constant delay."""
        return self.plans([waits_by_delay(pair.target.words, delay) for pair in self.pairs])

    def after(self, ahead: int) -> list[Schedule]:
        """Schedules of wait-k."""
        return self.plans([waits_for_words(len(one.target.words), one.source.words, ahead) for one in self.pairs])

    def causal(self, texts: Sequence[np.ndarray], aligned: Sequence[Sequence[int] | np.ndarray]) -> float:
        """Share of the words of streams (F,) that come no earlier than the end of their source word."""
        found = [
            causal(
                [place for place, _ in read_words(ids, self.streams.padding)], words, pair.source.words,
                self.streams.rate,
            )
            for ids, words, pair in zip(texts, aligned, self.pairs)
        ]  # fmt: skip
        return float(np.mean(np.concatenate(found)))


def least_ahead(laid: Laid, truth: Sequence[Sequence[int]]) -> int:
    """The least k by whose wait-k no word comes before what it translates."""
    longest = max(len(pair.source.words) for pair in laid.pairs)
    fits = (k for k in range(1, longest) if laid.causal(laid.texts(laid.after(k)), truth) == 1.0)
    return next(fits, longest)


# -- models -------------------------------------------------------------------------------------------------------


def translator(bench: CodeBench, config: HibikiConfig, streams: Streams, arm: str, seed: int) -> StreamTranslator:
    """The stream translator of an arm, which is trained unless it is there."""
    heads = config.decoder.heads
    depth = StepDepthConfig(
        text_rows=streams.padding + 2, size=config.depth_width, layers=config.depth_layers, heads=heads,
        kv_heads=heads, head_size=config.depth_width // heads, ffn=2 * config.depth_width,
    )  # fmt: skip
    model = StreamTranslator(config.core, depth, text=streams.padding, codes=streams.codec.info(), seed=seed)
    folder = bench.run / f"{arm}-{seed}" / "model"
    if folder.exists():
        return model.load(folder)
    bench.report(f"{arm}-{seed}: {config.stream.steps} steps")
    examples = two_streams(bench.run / f"{arm}_shards")
    model.fit(examples, config.stream, seed=seed, precision=bench.parts.precision)
    model.save(folder)
    return model


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What a stream translator says."""

    text: Translated
    """Its text, against the translations."""
    lagging: float
    """Mean seconds of the text behind the source."""
    heard: Heard
    """Its speech."""
    speech: Translated
    """The words that the oracle hears in it."""


def said(
    bench: CodeBench, streams: Streams, model: StreamTranslator, pairs: Sequence[Pair], sources: Sequence[np.ndarray],
    *, after: float, temperature: float, seed: int,
) -> Said:  # fmt: skip
    """Translate held-out recordings, whose codes (H, Q) are heard frame by frame."""
    frames = round(after * streams.rate)
    found = model.translate(sources, after=frames, code_sampling=Sampling(temperature=temperature), seed=seed)
    texts = [pair.target.text or "" for pair in pairs]
    audio = [bench.parts.vocoder.from_codes(one.own, streams.codec) for one in found]
    listened = heard(bench.parts.oracle, audio, [(text, TARGET, one.source.speaker) for text, one in zip(texts, pairs)])
    lags = [
        streams.lagging(one.text, len(source), len(pair.target.words))
        for one, source, pair in zip(found, sources, pairs)
    ]
    return Said(
        text=Translated.of(texts, [streams.text(one.text) for one in found]),
        lagging=float(np.mean(lags)),
        heard=listened,
        speech=Translated.of(texts, words_heard(listened.recognized)),
    )


# -- the check ----------------------------------------------------------------------------------------------------


def data_figures(laid: Laid, plans: Mapping[str, Sequence[Schedule]]) -> Figures:
    """How far targets lag, and how many of their words come no earlier than what they translate."""
    truth, found = [pair.truth for pair in laid.pairs], dict[str, float]()
    right = np.concatenate([np.asarray(one) == other for one, other in zip(laid.aligned, truth)])
    found["c29.alignment.accuracy"] = float(right.mean())
    ahead = least_ahead(laid, truth)
    found["c29.data.wait_k.k"] = float(ahead)
    for name, some in {**plans, "wait_k": laid.after(ahead)}.items():
        texts = laid.texts(some)
        found[f"c29.data.{name}.laal"] = laid.lagging(some)
        found[f"c29.data.{name}.causal"] = laid.causal(texts, laid.aligned)
        found[f"c29.data.{name}.causal_by_rule"] = laid.causal(texts, truth)
    return found


def put_said(figures: Figures, arm: str, found: Sequence[Said]) -> None:
    """Figures of an arm's models."""
    figures |= over_seeds(f"c29.{arm}.bleu", [one.text.bleu for one in found])
    figures |= over_seeds(f"c29.{arm}.laal", [one.lagging for one in found])
    figures |= over_seeds(f"c29.{arm}.asr_bleu", [one.speech.bleu for one in found])
    figures |= over_seeds(f"c29.{arm}.voice", [one.heard.voices.rate for one in found])


def check_hibiki(given: Bench) -> Figures:
    """Causality of the data, and what two stream translators say and when: of words that wait, and of a delay."""
    config = settings_of(given, HibikiConfig)
    bench = CodeBench(given, config)
    figures, streams = bench.oracle_figures("c29"), Streams(bench)
    train = pairs_of([*bench.parts.rows, *bench.parts.spoken(config.spoken)], "train")
    test = pairs_of(bench.parts.rows, SPLIT)[: config.limit]
    run = text_model(bench, config)
    figures["c29.text.bleu"] = text_bleu(run, test)
    laid = Laid(pairs=train, aligned=alignments(run, train), streams=streams)
    plans = {
        "aligned": laid.plans([waits_for_source(one, pair.source.words) for one, pair in zip(laid.aligned, train)])
    }
    delay = delay_of(laid.lagging(plans["aligned"]), lambda seconds: laid.lagging(laid.behind(seconds)))
    plans["delayed"] = laid.behind(delay)
    figures |= {"c29.data.delayed.seconds": delay} | data_figures(laid, plans)
    rate = streams.codec.sample_rate
    sources, found = streams.codec.encode_batch([pair.source.load(rate) for pair in test]), dict[str, list[Said]]()
    score = partial(said, after=config.after, temperature=config.temperature, seed=config.seed)
    for arm in ARMS:
        stream_shards(bench, f"{arm}_shards", train, plans[arm], streams)
        models = (translator(bench, config, streams, arm, seed) for seed in bench.seeds)
        found[arm] = [score(bench, streams, model, test, sources) for model in models]
        put_said(figures, arm, found[arm])
    errors = {arm: [one.text.errors for one in some] for arm, some in found.items()}
    spoken = {arm: [one.speech.errors for one in some] for arm, some in found.items()}
    figures |= {f"c29.{key}": value for key, value in seeds_and_rates(errors, "wer").items()}
    figures |= {f"c29.{key}": value for key, value in seeds_and_rates(spoken, "asr_wer").items()}
    figures["c29.laal_over_delayed"] = figures["c29.aligned.laal"] - figures["c29.delayed.laal"]
    return figures | bench.compared("c29.errors_over_delayed", errors["aligned"], errors["delayed"])


SYSTEM = System(
    name="hibiki",
    title="Hibiki",
    row="C29",
    sentences=600,
    test_sentences=100,
    settings=HibikiConfig,
    check=check_hibiki,
    differs="two toy languages, of which one has its verb first; the text model translates beginnings of sentences as "
    "it was taught to; letters for pieces of text, one a frame; words of the target's recording are moved apart, not "
    "synthesized anew; no labels of how like the voices are, so that nothing is guided; no start from a text model",
    measures="words of the training's targets that come no earlier than the source word they are aligned to, by a text "
    "model and by the corpus's rule; how far targets lag, by LAAL, with words that wait, behind a constant delay, and "
    "by wait-k; BLEU, word errors and LAAL of what two stream translators write of held-out sentences by voices of the "
    "training, and what the oracle hears in what they say",
    targets=(
        oracle_target("c29"),
        Target("nineteen words of twenty are aligned by the rule", lambda f: f["c29.alignment.accuracy"] >= 0.95),
        Target("no target word comes before its source word", lambda f: f["c29.data.aligned.causal_by_rule"] == 1.0),
        Target(
            "… as some do behind a constant delay that lags as much",
            lambda f: f["c29.data.delayed.causal_by_rule"] < 1.0,
        ),
        Target("fewer words are wrong than after a constant delay", lambda f: f["c29.errors_over_delayed"] < 0),
        Target("… not by chance", lambda f: f["c29.errors_over_delayed.high"] < 0),
        Target("… and BLEU is higher", lambda f: f["c29.aligned.bleu"] > f["c29.delayed.bleu"]),
        Target("… at no more than 50 ms of further lag", lambda f: f["c29.laal_over_delayed"] <= 0.05),
    ),
    measured=(
        Measured(
            "unitok systems run hibiki",
            {
                "c29.aligned.asr_bleu": 0.323,
                "c29.aligned.asr_bleu.interval": 0.0846,
                "c29.aligned.asr_wer": 3.0,
                "c29.aligned.asr_wer.interval": 0.804,
                "c29.aligned.bleu": 0.716,
                "c29.aligned.bleu.interval": 0.89,
                "c29.aligned.laal": 1.03,
                "c29.aligned.laal.interval": 0.103,
                "c29.aligned.voice": 0.2,
                "c29.aligned.voice.interval": 0.0,
                "c29.aligned.wer": 1.08,
                "c29.aligned.wer.interval": 0.215,
                "c29.alignment.accuracy": 0.989,
                "c29.data.aligned.causal": 1.0,
                "c29.data.aligned.causal_by_rule": 1.0,
                "c29.data.aligned.laal": 0.991,
                "c29.data.delayed.causal": 0.883,
                "c29.data.delayed.causal_by_rule": 0.883,
                "c29.data.delayed.laal": 0.991,
                "c29.data.delayed.seconds": 0.823,
                "c29.data.wait_k.causal": 1.0,
                "c29.data.wait_k.causal_by_rule": 1.0,
                "c29.data.wait_k.k": 3.0,
                "c29.data.wait_k.laal": 1.11,
                "c29.delayed.asr_bleu": 0.26,
                "c29.delayed.asr_bleu.interval": 0.27,
                "c29.delayed.asr_wer": 3.36,
                "c29.delayed.asr_wer.interval": 0.887,
                "c29.delayed.bleu": 0.45,
                "c29.delayed.bleu.interval": 0.323,
                "c29.delayed.laal": 1.02,
                "c29.delayed.laal.interval": 0.105,
                "c29.delayed.voice": 0.192,
                "c29.delayed.voice.interval": 0.0359,
                "c29.delayed.wer": 1.12,
                "c29.delayed.wer.interval": 0.308,
                "c29.errors_over_delayed": -0.0407,
                "c29.errors_over_delayed.high": 0.0149,
                "c29.errors_over_delayed.low": -0.0888,
                "c29.laal_over_delayed": 0.0154,
                "c29.oracle.accuracy": 0.733,
                "c29.text.bleu": 75.4,
            },
            "4c63b0b",
        ),
    ),
)
