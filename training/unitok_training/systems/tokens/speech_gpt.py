"""SpeechGPT (Zhang et al. 2023): three stages, the last of which answers a spoken question through both texts.

unitok systems run speech_gpt -o runs/speech_gpt

The question is a sentence; the answer says who does it to whom the other way round. Both arms of the last stage begin
with the same model and take the same steps: `chained` goes through both texts, `direct` does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unitok.generation.generate import generate
from unitok.generation.sampling import GREEDY
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.corpora.toy import SAMPLE_RATE, TRAIN_VOICES, say, synthesize, understand
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.tasks.base import OUT_UNITS
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, oracle_target, settings_of
from unitok_training.systems.base.token_parts import word_errors
from unitok_training.systems.base.token_scores import recognized, said
from unitok_training.trainer.config import TrainConfig

UNITS_ALONE: Mapping[str, float] = {"slm": 1.0}
PAIRS: Mapping[str, float] = {"asr": 1.0, "tts.units": 1.0, "lm": 0.5}
"""Of the second stage, and half as often of the last, so that nothing is forgotten."""
ARMS: Mapping[str, str] = {"chained": "chat", "direct": "chat.direct"}
"""Arm of the last stage → its task."""
FLAGS: Mapping[str, tuple[str, ...]] = {"chained": (), "direct": (OUT_UNITS,)}
"""Arm of the last stage → flags of its questions."""
MOST_IDS = 320
"""Of an answer that nothing holds to the grammar."""


@dataclass(frozen=True, kw_only=True)
class SpeechGptConfig(TokenBenchConfig):
    """What the check depends on."""

    unit_share: float = 0.3
    """Updates of the first stage, on units alone, ÷ those of the last."""
    pair_share: float = 0.8
    """Updates of the second stage, on speech with its text, ÷ those of the last."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=300))
    """Training of an arm of the last stage; the seed is that of the arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("unit_share", "pair_share"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: a stage has steps, so it must be above 0")


def answer_to(question: str, lang: str) -> str:
    """Who does it to whom, the other way round."""
    meaning = understand(question, lang)
    return say({"noun1": meaning["noun2"], "verb": meaning["verb"], "noun2": meaning["noun1"]}, lang)


def spoken_answers(rows: Sequence[Row], folder: Path, *, seed: int) -> list[Row]:
    """A spoken answer to every training question, made once."""
    manifest = folder / "manifest.jsonl"
    if not manifest.exists():
        lines = []
        for number, row in enumerate(one for one in rows if one.split == "train"):
            random = np.random.default_rng([seed, number])
            voice, text = TRAIN_VOICES[int(random.integers(len(TRAIN_VOICES)))], answer_to(row.text or "", row.lang)
            spoken, name = synthesize(text, voice, seed=[seed, number]), f"{row.id}-reply"
            write_audio(folder / "audio" / f"{name}.flac", spoken.samples, SAMPLE_RATE)
            entry = {
                "id": name, "group": name, "lang": row.lang, "speaker": voice.name, "split": "train", "text": text,
                "audio": f"audio/{name}.flac", "words": spoken.words, "extras": {"reply_to": row.id},
            }  # fmt: skip
            lines.append(json.dumps(entry))
        atomic_write_bytes(manifest, ("\n".join(lines) + "\n").encode("utf-8"))
    return read_manifest(manifest)


def well_formed(run: Evaluation, specs: Sequence[SequenceSpec], outputs: int) -> Counted:
    """Whether each answer is a whole one with so many outputs, where nothing but the model decides what follows."""
    vocabulary = run.model.vocabulary
    prompts = [render_prompt(one, vocabulary) for one in specs]
    room = run.model.decoder.config.max_positions - max(map(len, prompts))
    found = generate(
        run.model.decoder, prompts, sampling=GREEDY, max_new_tokens=min(MOST_IDS, room), eos=vocabulary.eos
    )
    right = []
    for prompt, one in zip(prompts, found):
        try:
            parsed = parse(np.concatenate([prompt, one.ids]), vocabulary)
        except InputError:  # what the grammar does not have
            right.append(0.0)
            continue
        right.append(float(parsed.complete and len(parsed.outputs) == outputs))
    return Counted(counts=np.array(right), sizes=np.ones(len(right)))


def scored(bench: TokenBench, run: Evaluation, arm: str) -> dict[str, Counted]:
    """Of one model of the last stage: right answers and their words, whole chains, errors of recognition."""
    rows = bench.some(run, "units", "text_ids")
    langs = [run.lang(row) for row in rows]
    wanted = [answer_to(run.text(row), lang) for row, lang in zip(rows, langs)]
    specs = [SequenceSpec("chat", run.lang(row), None, FLAGS[arm], (run.span("units", row),)) for row in rows]
    read = bench.parts.oracle.read(said(run, specs), langs)
    right = np.array([one == other for one, other in zip(read, wanted)], np.float64)
    return {
        "accuracy": Counted(counts=right, sizes=np.ones(len(right))),
        "wer": word_errors(wanted, read),
        "well_formed": well_formed(run, specs, 3 if arm == "chained" else 1),
        "asr.wer": recognized(run, rows),
    }


def check_speech_gpt(given: Bench) -> Figures:
    """Spoken answers through both texts and at once, and whether a chain is one when nothing holds it together."""
    config = settings_of(given, SpeechGptConfig)
    bench = TokenBench(given, config)
    bench.further = spoken_answers(bench.parts.rows, bench.parts.folder / "answers", seed=config.parts.seed)
    figures, start = bench.oracle_figures("c26"), bench.start({"lm": 1.0})
    found: dict[str, list[dict[str, Counted]]] = {arm: [] for arm in ARMS}
    before = []
    first, second = (max(1, round(one * config.train.steps)) for one in (config.unit_share, config.pair_share))
    for seed in bench.seeds:
        bench.train(f"units-{seed}", UNITS_ALONE, seed=seed, steps=first, start=start)
        begin = bench.run / f"units-{seed}" / "model"
        run = bench.evaluation(bench.train(f"pairs-{seed}", PAIRS, seed=seed, steps=second, start=begin))
        before.append(recognized(run, bench.some(run, "units", "text_ids")))
        for arm, task in ARMS.items():
            tasks = {task: 1.0, **{key: weight / 2 for key, weight in PAIRS.items()}}
            model = bench.train(f"{arm}-{seed}", tasks, seed=seed, start=bench.run / f"pairs-{seed}" / "model")
            found[arm].append(scored(bench, bench.evaluation(model), arm))
    figures |= over_seeds("c26.pairs.asr.wer", [one.rate for one in before])
    for arm, parts in found.items():
        for key in ("accuracy", "wer", "well_formed", "asr.wer"):
            figures |= over_seeds(f"c26.{arm}.{key}", [one[key].rate for one in parts])
    chained, direct = found["chained"], found["direct"]
    for key in ("accuracy", "wer"):
        pair = ([one[key] for one in chained], [one[key] for one in direct])
        figures |= bench.compared(f"c26.over_direct.{key}", *pair)
    return figures


SYSTEM = System(
    name="speech_gpt",
    title="SpeechGPT",
    row="C26",
    sentences=600,
    test_sentences=100,
    settings=SpeechGptConfig,
    check=check_speech_gpt,
    differs="a text model of letters, trained here; one kind of question; all weights move in the last stage, not "
    "low-rank updates",
    measures="spoken answers, read by the oracle, through both texts and at once, by arms of equal steps from one "
    "model of two stages; chains that are whole though no automaton holds them; errors of recognition before and after",
    targets=(
        oracle_target("c26"),
        Target("nineteen chains of twenty are whole", lambda f: f["c26.chained.well_formed"] >= 0.95),
        Target(
            "through both texts more answers are right", lambda f: f["c26.chained.accuracy"] > f["c26.direct.accuracy"]
        ),
        Target("… on these questions, not by chance", lambda f: f["c26.over_direct.accuracy.low"] > 0),
    ),
    measured=(
        Measured(
            "unitok systems run speech_gpt",
            {
                "c26.chained.accuracy": 0.742,
                "c26.chained.accuracy.interval": 0.251,
                "c26.chained.asr.wer": 0.0546,
                "c26.chained.asr.wer.interval": 0.0592,
                "c26.chained.well_formed": 1.0,
                "c26.chained.well_formed.interval": 0.0,
                "c26.chained.wer": 0.125,
                "c26.chained.wer.interval": 0.169,
                "c26.direct.accuracy": 0.65,
                "c26.direct.accuracy.interval": 0.164,
                "c26.direct.asr.wer": 0.204,
                "c26.direct.asr.wer.interval": 0.0342,
                "c26.direct.well_formed": 1.0,
                "c26.direct.well_formed.interval": 0.0,
                "c26.direct.wer": 0.133,
                "c26.direct.wer.interval": 0.0621,
                "c26.oracle.accuracy": 0.994,
                "c26.over_direct.accuracy": 0.0917,
                "c26.over_direct.accuracy.high": 0.192,
                "c26.over_direct.accuracy.low": -0.0167,
                "c26.over_direct.wer": -0.00833,
                "c26.over_direct.wer.high": 0.0417,
                "c26.over_direct.wer.low": -0.0556,
                "c26.pairs.asr.wer": 0.281,
                "c26.pairs.asr.wer.interval": 0.0748,
            },
            "d5d777e",
        ),
    ),
)
