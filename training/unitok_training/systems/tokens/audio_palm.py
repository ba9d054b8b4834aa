"""AudioPaLM (Rubenstein et al. 2023): five tasks in three languages by one decoder that begins as one of text.

unitok systems run audio_palm -o runs/audio_palm

The last language is never translated from speech in training: what is said in it is recognized, and its text is
translated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.base import CHAIN, OUT_UNITS
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, oracle_target, settings_of
from unitok_training.systems.base.token_parts import PartsConfig, every_language
from unitok_training.systems.base.token_scores import (
    Translated,
    answers,
    recognized,
    sentences_of,
    spoken,
    spoken_translations,
    translated,
    translating,
)
from unitok_training.trainer.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class AudioPalmConfig(TokenBenchConfig):
    """What the check depends on."""

    parts: PartsConfig = field(default_factory=every_language)
    """Corpus, tokenizers, synthesizer."""
    texts: int = 1500
    """Training sentences beside all spoken ones, as text alone, in every language: what text translation learns of."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=300))
    """Training of an arm; the seed is that of the arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parts.languages) < 3:
            raise InputError("parts.languages are fewer than three: two to translate between, and one for no shot")


def tasks_of(languages: tuple[str, ...], *, texts: bool) -> Mapping[str, float]:
    """The mixture: speech of all but the last language is translated; texts of all, where asked for."""
    known = [f"{one}-{other}" for one in languages[:-1] for other in languages if one != other]
    each = 1.0 / len(known)
    found = {"asr": 2.0, "tts.units": 1.0}
    for pair in known:
        found |= {f"s2tt@{pair}": 2 * each, f"s2st@{pair}": each, f"s2st.chain@{pair}": each}
    return found | ({"mt": 2.0} if texts else {})


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of one model."""

    wer: dict[str, float]
    """asr, tts → word errors."""
    by_task: dict[str, Translated]
    """s2tt, zero_shot, zero_shot.shuffled, and of the full arm mt, s2st, s2st_chained."""


def others_of(references: Sequence[str], langs: Sequence[str]) -> list[str]:
    """For each reference that of another sentence in the same language: what outputs share with it is chance."""
    places: dict[str, list[int]] = {}
    for place, lang in enumerate(langs):
        places.setdefault(lang, []).append(place)
    found = list(references)
    for same in places.values():
        for place, after in zip(same, [*same[1:], same[0]]):
            found[place] = references[after]
    return found


def scored_by(bench: TokenBench, *, fully: bool, run: Evaluation) -> Scores:
    """Scores of a model on held-out rows."""
    unheard, most = bench.config.parts.languages[-1], bench.config.limit
    pairs = run.all_pairs(run.split, "units", "text_ids")
    limited = replace(run, limit=most).limited
    known = limited([(a, b) for a, b in pairs if run.lang(a) != unheard])
    zero = limited([(a, b) for a, b in pairs if run.lang(a) == unheard])
    rows = bench.some(run, "units", "text_ids")
    outputs = answers(run, translating(run, zero, "units"))
    right = [run.text(b) for _, b in zero]
    other = others_of(right, [run.lang(b) for _, b in zero])
    found = {
        "s2tt": translated(run, known, "units"),
        "zero_shot": Translated.of(right, outputs, sentences_of(run, [a for a, _ in zero])),
        "zero_shot.shuffled": Translated.of(other, outputs, sentences_of(run, [a for a, _ in zero])),
    }
    errors = {"asr": recognized(run, rows).rate}
    if fully:
        errors["tts"] = spoken(run, rows, bench.parts.oracle).rate
        found["mt"] = translated(run, known, "text")
        for key, flags in (("s2st", (OUT_UNITS,)), ("s2st_chained", (CHAIN, OUT_UNITS))):
            found[key] = spoken_translations(run, known, bench.parts.oracle, flags)
    return Scores(wer=errors, by_task=found)


def check_audio_palm(given: Bench) -> Figures:
    """Four claims: a start from text, texts to translate, chains, and a language that was only ever transcribed."""
    config = settings_of(given, AudioPalmConfig)
    bench = TokenBench(given, config)
    figures, languages = bench.oracle_figures("c20"), config.parts.languages
    start = bench.start({"lm": 1.0})
    arms = {
        "warm": (tasks_of(languages, texts=True), start),
        "scratch": (tasks_of(languages, texts=True), None),
        "no_texts": (tasks_of(languages, texts=False), start),
    }
    found = {}
    for arm, (tasks, begin) in arms.items():

        def scored(run: Evaluation, fully: bool = arm == "warm") -> Scores:
            return scored_by(bench, fully=fully, run=run)

        found[arm] = bench.over_seeds(arm, tasks, scored, start=begin)
        for task in found[arm][0].wer:
            figures |= over_seeds(f"c20.{arm}.{task}.wer", [one.wer[task] for one in found[arm]])
        for task in found[arm][0].by_task:
            figures |= over_seeds(f"c20.{arm}.{task}.bleu", [one.by_task[task].bleu for one in found[arm]])
    warm = [one.by_task for one in found["warm"]]
    for arm in ("scratch", "no_texts"):
        pair = ([one["s2tt"].errors for one in warm], [one.by_task["s2tt"].errors for one in found[arm]])
        figures |= bench.compared(f"c20.over_{arm}.s2tt.wer", *pair)
    pair = ([one["s2st_chained"].errors for one in warm], [one["s2st"].errors for one in warm])
    figures |= bench.compared("c20.chained_over_direct.wer", *pair)
    pair = ([one["zero_shot"].errors for one in warm], [one["zero_shot.shuffled"].errors for one in warm])
    figures |= bench.compared("c20.zero_shot_over_shuffled.wer", *pair)
    return figures | {"c20.pairs": float(np.mean([len(one["s2tt"].errors.counts) for one in warm]))}


SYSTEM = System(
    name="audio_palm",
    title="AudioPaLM",
    row="C20",
    sentences=400,
    test_sentences=60,
    settings=AudioPalmConfig,
    check=check_audio_palm,
    differs="a text model of letters, trained here; three toy languages; a unit synthesizer of one voice in the place "
    "of SoundStorm",
    measures="translation of speech from a text start beside none and beside no texts to translate, chained speech to "
    "speech beside direct, and translation from a language that was only transcribed",
    targets=(
        oracle_target("c20"),
        Target("a start from text beats none", lambda f: f["c20.warm.s2tt.bleu"] > f["c20.scratch.s2tt.bleu"]),
        Target("… and not by chance", lambda f: f["c20.over_scratch.s2tt.wer.high"] < 0),
        Target("texts raise speech translation", lambda f: f["c20.warm.s2tt.bleu"] > f["c20.no_texts.s2tt.bleu"]),
        Target("… nor by chance", lambda f: f["c20.over_no_texts.s2tt.wer.high"] < 0),
        Target("a chain is no worse", lambda f: f["c20.warm.s2st_chained.bleu"] >= f["c20.warm.s2st.bleu"]),
        Target("no shot is above chance", lambda f: f["c20.zero_shot_over_shuffled.wer.high"] < 0),
    ),
    measured=(
        Measured(
            "unitok systems run audio_palm",
            {
                "c20.chained_over_direct.wer": 0.0466,
                "c20.chained_over_direct.wer.high": 0.12,
                "c20.chained_over_direct.wer.low": -0.0203,
                "c20.no_texts.asr.wer": 0.987,
                "c20.no_texts.asr.wer.interval": 0.15,
                "c20.no_texts.s2tt.bleu": 1.22,
                "c20.no_texts.s2tt.bleu.interval": 1.01,
                "c20.no_texts.zero_shot.bleu": 0.558,
                "c20.no_texts.zero_shot.bleu.interval": 0.604,
                "c20.no_texts.zero_shot.shuffled.bleu": 0.657,
                "c20.no_texts.zero_shot.shuffled.bleu.interval": 0.772,
                "c20.oracle.accuracy": 0.961,
                "c20.over_no_texts.s2tt.wer": -0.0168,
                "c20.over_no_texts.s2tt.wer.high": 0.0223,
                "c20.over_no_texts.s2tt.wer.low": -0.0571,
                "c20.over_scratch.s2tt.wer": 0.0279,
                "c20.over_scratch.s2tt.wer.high": 0.0633,
                "c20.over_scratch.s2tt.wer.low": -0.00896,
                "c20.pairs": 40.0,
                "c20.scratch.asr.wer": 0.784,
                "c20.scratch.asr.wer.interval": 0.146,
                "c20.scratch.s2tt.bleu": 0.839,
                "c20.scratch.s2tt.bleu.interval": 0.536,
                "c20.scratch.zero_shot.bleu": 0.107,
                "c20.scratch.zero_shot.bleu.interval": 0.46,
                "c20.scratch.zero_shot.shuffled.bleu": 0.213,
                "c20.scratch.zero_shot.shuffled.bleu.interval": 0.459,
                "c20.warm.asr.wer": 0.996,
                "c20.warm.asr.wer.interval": 0.0517,
                "c20.warm.mt.bleu": 1.43,
                "c20.warm.mt.bleu.interval": 0.92,
                "c20.warm.s2st.bleu": 0.365,
                "c20.warm.s2st.bleu.interval": 0.349,
                "c20.warm.s2st_chained.bleu": 0.307,
                "c20.warm.s2st_chained.bleu.interval": 0.361,
                "c20.warm.s2tt.bleu": 1.15,
                "c20.warm.s2tt.bleu.interval": 1.66,
                "c20.warm.tts.wer": 1.92,
                "c20.warm.tts.wer.interval": 0.383,
                "c20.warm.zero_shot.bleu": 0.362,
                "c20.warm.zero_shot.bleu.interval": 0.172,
                "c20.warm.zero_shot.shuffled.bleu": 0.351,
                "c20.warm.zero_shot.shuffled.bleu.interval": 0.182,
                "c20.zero_shot_over_shuffled.wer": -0.0201,
                "c20.zero_shot_over_shuffled.wer.high": 0.0466,
                "c20.zero_shot_over_shuffled.wer.low": -0.101,
            },
            "5c2c526",
        ),
    ),
)
