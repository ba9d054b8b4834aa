"""LauraGPT (Chen et al. 2023): vectors are read, codes are written, and one step finds all behind the first codebook.

unitok systems run laura_gpt -o runs/laura_gpt

Both speakers have a decoder that writes the first codebook of what a text says. Behind it `regress` finds the codec's
latents in one step, `refine` a codebook after another (VALL-E). They are compared on the first codebook of held-out
recordings, which is the same for both. Both readers begin with one model of text: `tokens` learns to read units,
`vectors` the frames that the units were made of.

F frames, Q codebooks, D latent width, M mel bins.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from unitok.model_parts import SECOND_PASS
from unitok.second_passes.base import CodeSpan, SecondPass, SpanBatch, code_span, greedy, unfinished
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import CodeBench, CodeBenchConfig, said_errors
from unitok_training.systems.base.intervals import Counted, over_seeds, seeds_and_rates
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import Build, oracle_target, settings_of
from unitok_training.systems.base.token_scores import recognized
from unitok_training.systems.tokens.vector_reading import READING, Reading, read_from_vectors, vector_reader
from unitok_training.trainer.config import TrainConfig

SPEAKING: Mapping[str, float] = {"vtts": 1.0}
"""What both speakers learn."""
TEXT: Mapping[str, float] = {"lm": 1.0}
"""What both readers know before they read."""
LAYOUTS: Mapping[str, str] = {"regress": "first_regress", "refine": "first_nar"}
"""Speaker → how codebooks behind the first are found."""
PLAIN = ExampleOptions(voice_share=0.0)


@dataclass(frozen=True, kw_only=True)
class LauraConfig(CodeBenchConfig):
    """What the check depends on."""

    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=300, pack_size=2048))
    """Training of a speaker, were its codes in a flat stream; the seed is that of the arm."""
    second_layers: int = 2
    """Blocks of a second pass."""
    second_width: int = 128
    """Its width; the heads are the decoder's."""
    reading: int = 400
    """Updates of a reader, from units or from frames."""
    reading_pack: int = 1024
    """Positions of a pack of these."""
    rounds: int = 3
    """Times that a second pass over the same utterances is timed; the quickest counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("reading", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")


def builds(bench: CodeBench) -> dict[str, Build]:
    """Speaker → what it is built of."""
    config = bench.config
    assert isinstance(config, LauraConfig)
    second = ModelChoice(
        layout="first_regress", second_layers=config.second_layers, second_width=config.second_width,
        second_heads=config.decoder.heads, second_kv_heads=config.decoder.kv_heads,
    )  # fmt: skip
    return {
        arm: Build(model=replace(second, layout=layout), pack_size=bench.pack_of(1)) for arm, layout in LAYOUTS.items()
    }


# -- behind the first codebook ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Vocoded:
    """What a second pass makes of the first codebook of recordings."""

    errors: Counted
    """Words that the oracle hears otherwise."""
    distance: Counted
    """Absolute difference from the log-mels of the recordings' own codes, out of the numbers of these."""
    seconds: float
    """Of the processor for a second of audio: the pass alone, without the codec and what makes a waveform."""


def first_alone(run: Evaluation, rows: Sequence[int], second: SecondPass) -> list[CodeSpan]:
    """Each row's text and the first codebook of its codes; the others are to be found."""
    vocabulary, spans = run.model.vocabulary, list[CodeSpan]()
    for row in rows:
        known = Span("codes", unfinished(run.codes(row)[:, : second.known], second.pattern))
        plan = SequenceSpec("vtts", run.lang(row), None, (), (run.model.text_span(run.text(row)),), (known,))
        span = code_span(plan, vocabulary, second.pattern)
        assert span is not None, "the plan ends in codes"
        spans.append(span)
    return spans


def log_mels(second: SecondPass, found: np.ndarray, codec: MelCodec) -> np.ndarray:
    """Latents (F, D) or codes (F, Q) that a second pass found → log-mels (4F, M)."""
    return codec.decode_latent_features(found) if second.says_latents else codec.decode_features(found)


def finished(second: SecondPass, spans: Sequence[CodeSpan], rounds: int) -> tuple[list[np.ndarray], float]:
    """What a second pass finds of each span, latents (F, D) or codes (F, Q), and how many seconds it took for all."""
    batch, quickest = SpanBatch.of(spans), float("inf")
    with torch.inference_mode():
        for _ in range(rounds):
            begin = time.process_time()
            made = second.finish(batch, greedy)
            quickest = min(quickest, time.process_time() - begin)
    return np.split(made.numpy(), np.cumsum([len(one.codes) for one in spans])[:-1]), quickest


def distances(mels: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> Counted:
    """Absolute differences of log-mels (4F, M) from others, out of their numbers."""
    return Counted(
        counts=np.array([float(np.abs(one - other).sum()) for one, other in zip(mels, wanted, strict=True)]),
        sizes=np.array([float(one.size) for one in wanted]),
    )


def vocoded(bench: CodeBench, run: Evaluation, rows: Sequence[int], rounds: int) -> Vocoded:
    """Have the first codebook of recordings finished, and listen."""
    second, codec = run.model.parts[SECOND_PASS], bench.parts.codec
    assert isinstance(second, SecondPass)
    made, seconds = finished(second, first_alone(run, rows, second), rounds)
    mels = [log_mels(second, one, codec) for one in made]
    audio = [bench.parts.vocoder.from_features(torch.from_numpy(one)) for one in mels]
    return Vocoded(
        errors=bench.parts.oracle.errors(audio, [run.text(row) for row in rows], [run.lang(row) for row in rows]),
        distance=distances(mels, [codec.decode_features(run.codes(row)) for row in rows]),
        seconds=seconds / (sum(len(run.codes(row)) for row in rows) / float(codec.frame_rate)),
    )


# -- reading ------------------------------------------------------------------------------------------------------


def readers(bench: CodeBench) -> dict[str, list[Counted]]:
    """Word errors of what a reader of every seed reads after as many updates, from units and from frames."""
    config, found = bench.config, {"tokens": list[Counted](), "vectors": list[Counted]()}
    assert isinstance(config, LauraConfig)
    start, build = bench.start(TEXT), Build(pack_size=config.reading_pack)
    reading = Reading(steps=config.reading, pack_size=config.reading_pack)
    for seed in bench.seeds:
        model = bench.train(f"tokens-{seed}", READING, seed=seed, steps=config.reading, start=start, build=build)
        run = bench.evaluation(model)
        rows = bench.some(run, "codes", "text_ids")
        found["tokens"].append(recognized(run, rows))
        run = bench.evaluation(vector_reader(bench, seed, start, reading))
        found["vectors"].append(read_from_vectors(bench, run, rows))
    return found


def check_laura_gpt(given: Bench) -> Figures:
    """Quality and time of one step and of a step a codebook; word errors read from units and from vectors."""
    config = settings_of(given, LauraConfig)
    bench = CodeBench(given, config)
    figures, speakers = bench.oracle_figures("c31"), dict[str, list[Vocoded]]()

    def scored(run: Evaluation) -> tuple[Vocoded, Counted]:
        some = bench.some(run, "codes", "text_ids")
        return vocoded(bench, run, some, config.rounds), said_errors(bench, run, some, config.temperature)

    for arm, build in builds(bench).items():
        found = bench.over_seeds(arm, SPEAKING, scored, options=PLAIN, build=build)
        speakers[arm] = [one for one, _ in found]
        figures |= over_seeds(f"c31.{arm}.ms_per_second", [1000 * one.seconds for one, _ in found])
        figures |= over_seeds(f"c31.{arm}.said_wer", [one.rate for _, one in found])
    errors = {arm: [one.errors for one in found] for arm, found in speakers.items()}
    far = {arm: [one.distance for one in found] for arm, found in speakers.items()}
    read = readers(bench)
    for key, rates in (("wer", errors), ("distance", far), ("read_wer", read)):
        figures |= {f"c31.{name}": value for name, value in seeds_and_rates(rates, key).items()}
    figures["c31.time_ratio"] = figures["c31.regress.ms_per_second"] / figures["c31.refine.ms_per_second"]
    figures |= bench.compared("c31.wer_over_refine", errors["regress"], errors["refine"])
    figures |= bench.compared("c31.distance_over_refine", far["regress"], far["refine"])
    return figures | bench.compared("c31.read_wer_over_tokens", read["vectors"], read["tokens"])


SYSTEM = System(
    name="laura_gpt",
    title="LauraGPT",
    row="C31",
    sentences=600,
    test_sentences=100,
    settings=LauraConfig,
    check=check_laura_gpt,
    differs="recognition and synthesis of seven tasks; a reader is not the speaker but an equal decoder, since a model "
    "that lays codes beside its ids cannot yet read vectors; its vectors are frames of the small recognizer under the "
    "units, which does not move, instead of a Conformer's that is trained along; the text is all that a second pass is "
    "told beside the first codebook",
    measures="word errors heard by the oracle, distance from the log-mels of the recordings' own codes and time by "
    "second of audio, of one step to the codec's latents and of a refiner that takes a step for each codebook, behind "
    "the first codebook of the same recordings; word errors that equal decoders read in units and in vectors, after as "
    "many updates",
    targets=(
        oracle_target("c31"),
        Target("one step takes less time than the refiner", lambda f: f["c31.time_ratio"] < 1),
        Target("its spectra are as near, or nearer", lambda f: f["c31.distance_over_refine"] <= 0),
        Target("no more words are wrong, but for chance", lambda f: f["c31.wer_over_refine.low"] <= 0),
        Target("from vectors no more words are read wrong", lambda f: f["c31.read_wer_over_tokens"] <= 0),
        Target("… on these sentences, not by chance", lambda f: f["c31.read_wer_over_tokens.high"] <= 0),
    ),
    measured=(
        Measured(
            "unitok systems run laura_gpt",
            {
                "c31.distance_over_refine": -0.0805,
                "c31.distance_over_refine.high": -0.0501,
                "c31.distance_over_refine.low": -0.114,
                "c31.oracle.accuracy": 0.967,
                "c31.read_wer_over_tokens": 0.173,
                "c31.read_wer_over_tokens.high": 0.218,
                "c31.read_wer_over_tokens.low": 0.13,
                "c31.refine.distance": 0.555,
                "c31.refine.distance.interval": 0.127,
                "c31.refine.ms_per_second": 2.39,
                "c31.refine.ms_per_second.interval": 0.323,
                "c31.refine.said_wer": 0.417,
                "c31.refine.said_wer.interval": 0.0477,
                "c31.refine.wer": 0.113,
                "c31.refine.wer.interval": 0.105,
                "c31.regress.distance": 0.474,
                "c31.regress.distance.interval": 0.0326,
                "c31.regress.ms_per_second": 0.677,
                "c31.regress.ms_per_second.interval": 0.0329,
                "c31.regress.said_wer": 0.388,
                "c31.regress.said_wer.interval": 0.0,
                "c31.regress.wer": 0.0455,
                "c31.regress.wer.interval": 0.0415,
                "c31.time_ratio": 0.283,
                "c31.tokens.read_wer": 0.0674,
                "c31.tokens.read_wer.interval": 0.0207,
                "c31.vectors.read_wer": 0.24,
                "c31.vectors.read_wer.interval": 0.223,
                "c31.wer_over_refine": -0.0674,
                "c31.wer_over_refine.high": -0.0323,
                "c31.wer_over_refine.low": -0.109,
            },
            "7fa1f90",
        ),
    ),
)
