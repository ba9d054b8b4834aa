"""Moshi (Défossez et al. 2024), its layout: a depth decoder beside parallel heads, and text before codes beside none.

unitok systems run moshi -o runs/moshi

Codes behind the first come a frame late in all arms, as in the paper. The inner monologue is that of a translator: it
hears a sentence in one language and says it in another, with both texts before the codes or without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from unitok.generation.sampling import Sampling
from unitok_tokenizers.corpora.toy import LANGUAGES
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.tasks.base import CHAIN, OUT_CODES
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.base import Shape
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import (
    CodeBench,
    CodeBenchConfig,
    CodePartsConfig,
    code_nats,
    parameters,
    sounds,
    written,
)
from unitok_training.systems.base.intervals import Counted, over_seeds, seeds_and_rates
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import Build, oracle_target, settings_of
from unitok_training.systems.base.token_scores import sentences_of
from unitok_training.trainer.config import TrainConfig

PLAIN = ExampleOptions(voice_share=0.0)
TASKS: Mapping[str, float] = {"vtts": 1.0}
"""Of the arms whose likelihoods are compared."""
SHARED: Mapping[str, float] = {"asr": 1.0, "mt": 1.0, "tts.codes": 1.0}
"""What both translators learn beside translating."""
TRANSLATORS: Mapping[str, str] = {"monologue": "s2st.chain_codes", "direct": "s2st.codes"}
"""Translator → how it translates."""
FLAGS: Mapping[str, tuple[str, ...]] = {"monologue": (CHAIN, OUT_CODES), "direct": (OUT_CODES,)}


@dataclass(frozen=True, kw_only=True)
class MoshiConfig(CodeBenchConfig):
    """What the check depends on."""

    parts: CodePartsConfig = field(default_factory=lambda: CodePartsConfig(languages=LANGUAGES[:2]))
    """Corpus, tokenizers, codec."""
    decoder: Shape = field(default_factory=lambda: Shape(width=128, layers=6, heads=4, kv_heads=2))
    """The decoder under parallel heads; the others give `depth_layers` of its blocks to codebooks."""
    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=300, pack_size=2048))
    """Training of an arm, were its codes in a flat stream; the seed is that of the arm."""
    translating: int = 600
    """Updates of a translator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.translating < 1:
            raise InputError(f"translating is {self.translating}: it must be 1 or more")
        if len(self.parts.languages) < 2:
            raise InputError("parts.languages has one language: a translator needs two")


def builds(bench: CodeBench) -> dict[str, Build]:
    """Arm → what it is built of."""
    config, pack = bench.config, bench.pack_of(1)
    assert isinstance(config, CodeBenchConfig)
    late = (1,) * (len(bench.parts.codec.cardinalities) - 1)
    depth = replace(config.depth, delays=late)
    return {
        "depth": Build(decoder=config.core, model=replace(depth, step_projections=True), pack_size=pack),
        "shared": Build(decoder=config.core, model=depth, pack_size=pack),
        "parallel": Build(model=ModelChoice(layout="delay", delays=late, reads_id=True), pack_size=pack),
    }


def translated_errors(bench: CodeBench, run: Evaluation, flags: tuple[str, ...], temperature: float) -> Counted:
    """Word errors that the oracle hears in translations of speech, spoken in codes."""
    pairs = replace(run, limit=bench.config.limit).pairs(run.split, "codes", "text_ids")
    specs = [SequenceSpec("s2st", run.lang(a), run.lang(b), flags, (run.span("units", a),)) for a, b in pairs]
    audio = sounds(written(run, specs, Sampling(temperature=0.0, speech_temperature=temperature)))
    found = bench.parts.oracle.errors(audio, [run.text(b) for _, b in pairs], [run.lang(b) for _, b in pairs])
    return found.of(sentences_of(run, [a for a, _ in pairs]))


def check_moshi(given: Bench) -> Figures:
    """Likelihood of codes by a depth decoder and by parallel heads; translations with text before codes and without."""
    config = settings_of(given, MoshiConfig)
    bench = CodeBench(given, config)
    figures, nats, arms = bench.oracle_figures("c28"), dict[str, list[Counted]](), builds(bench)

    def scored(run: Evaluation) -> tuple[Counted, int]:
        return code_nats(run), parameters(run.model)

    for arm, build in arms.items():
        found = bench.over_seeds(arm, TASKS, scored, options=PLAIN, build=build)
        nats[arm] = [one for one, _ in found]
        figures |= over_seeds(f"c28.{arm}.bits_per_second", [one.rate / float(np.log(2)) for one in nats[arm]])
        figures[f"c28.{arm}.parameters"] = float(found[0][1])
    for other in ("parallel", "shared"):
        figures |= bench.compared(f"c28.nats_over_{other}", nats["depth"], nats[other])
    errors = {}
    steps = replace(config, train=replace(config.train, steps=config.translating))
    translators = CodeBench(given, steps)
    for arm, task in TRANSLATORS.items():
        heard = partial(translated_errors, translators, flags=FLAGS[arm], temperature=config.temperature)
        tasks = {task: 2.0, **SHARED}
        errors[arm] = translators.over_seeds(arm, tasks, heard, options=PLAIN, build=arms["depth"])
    figures |= {f"c28.{key}": value for key, value in seeds_and_rates(errors, "wer").items()}
    return figures | bench.compared("c28.wer_over_direct", errors["monologue"], errors["direct"])


SYSTEM = System(
    name="moshi",
    title="Moshi's layout",
    row="C28",
    sentences=600,
    test_sentences=100,
    settings=MoshiConfig,
    check=check_moshi,
    differs="no duplex: one speaker, no other side's codes; of a step's own weights the matrix by which codes enter it "
    "and its head, not the blocks; the monologue is whole before the codes, which come behind units, instead of text "
    "and codes at every frame; a translator in two toy languages instead of a conversation",
    measures="likelihood of held-out codes by a depth decoder with weights of its own for each step, by one without, "
    "and by parallel heads with as many blocks; word errors, heard by the oracle, of spoken translations with both "
    "texts before the codes and without, after equal steps",
    targets=(
        oracle_target("c28"),
        Target(
            "no more parameters than under parallel heads",
            lambda f: f["c28.depth.parameters"] <= 1.02 * f["c28.parallel.parameters"],
        ),
        Target("codes are likelier than by parallel heads", lambda f: f["c28.nats_over_parallel"] < 0),
        Target("… on these sentences, not by chance", lambda f: f["c28.nats_over_parallel.high"] < 0),
        Target("without a monologue more words are wrong", lambda f: f["c28.monologue.wer"] < f["c28.direct.wer"]),
        Target("… not by chance either", lambda f: f["c28.wer_over_direct.high"] < 0),
    ),
    measured=(
        Measured(
            "unitok systems run moshi",
            {
                "c28.depth.bits_per_second": 469.0,
                "c28.depth.bits_per_second.interval": 9.49,
                "c28.depth.parameters": 1330000.0,
                "c28.direct.wer": 1.74,
                "c28.direct.wer.interval": 0.189,
                "c28.monologue.wer": 1.93,
                "c28.monologue.wer.interval": 0.0638,
                "c28.nats_over_parallel": 5.85,
                "c28.nats_over_parallel.high": 6.58,
                "c28.nats_over_parallel.low": 5.12,
                "c28.nats_over_shared": 4.68,
                "c28.nats_over_shared.high": 5.44,
                "c28.nats_over_shared.low": 4.0,
                "c28.oracle.accuracy": 0.989,
                "c28.parallel.bits_per_second": 461.0,
                "c28.parallel.bits_per_second.interval": 4.99,
                "c28.parallel.parameters": 1370000.0,
                "c28.shared.bits_per_second": 463.0,
                "c28.shared.bits_per_second.interval": 12.3,
                "c28.shared.parameters": 1280000.0,
                "c28.wer_over_direct": 0.188,
                "c28.wer_over_direct.high": 0.303,
                "c28.wer_over_direct.low": 0.066,
            },
            "5c2c526",
        ),
    ),
)
