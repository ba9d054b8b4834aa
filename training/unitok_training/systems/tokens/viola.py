"""VioLA (Wang et al. 2023): many tasks and languages in one decoder that goes by ids of both, which are taken away.

unitok systems run viola -o runs/viola
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from unitok_tokenizers.corpora.toy import lexicon
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, oracle_target, settings_of
from unitok_training.systems.base.token_parts import PartsConfig, every_language
from unitok_training.systems.base.token_scores import answers, recognized, spoken, translated, translating
from unitok_training.trainer.config import TrainConfig

TASKS: Mapping[str, float] = {"asr": 2.0, "mt": 2.0, "s2tt": 2.0, "tts.units": 1.0, "lm": 0.5}
"""Recognition, both translations, synthesis, and text of nothing."""
SCORES = ("asr.wer", "mt.wer", "s2tt.wer", "tts.wer")
"""What a model is scored by; fewer errors are better."""


@dataclass(frozen=True, kw_only=True)
class ViolaConfig(TokenBenchConfig):
    """What the check depends on."""

    parts: PartsConfig = field(default_factory=every_language)
    """Corpus, tokenizers, synthesizer."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=600))
    """Training of an arm; the seed is that of the arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parts.languages) < 3:
            raise InputError("parts.languages are fewer than three: two to translate between, and a wrong one")


def without(run: Evaluation, ids: Sequence[int]) -> Evaluation:
    """The same model to which these ids are all one: the mean of their rows."""
    decoder, ids = copy.deepcopy(run.model.decoder), list(ids)
    with torch.no_grad():
        decoder.embedding[ids] = decoder.embedding[ids].mean(0)
    return replace(run, model=replace(run.model, decoder=decoder))


def in_language(texts: Sequence[str], lang: str) -> Counted:
    """Words of each text that are of a language, which shares none with another."""
    known = {word for words in lexicon(lang).values() for word in words}
    return Counted(
        counts=np.array([sum(word in known for word in text.split()) for text in texts], np.float64),
        sizes=np.array([len(text.split()) for text in texts], np.float64),
    )


def check_viola(given: Bench) -> Figures:
    """Errors of each task with its ids, without those of tasks, without those of languages; and a wrong language."""
    config = settings_of(given, ViolaConfig)
    bench = TokenBench(given, config)
    figures, languages = bench.oracle_figures("c25"), config.parts.languages

    def errors(run: Evaluation) -> dict[str, Counted]:
        rows = bench.some(run, "units", "text_ids")
        pairs = replace(run, limit=config.limit).pairs(run.split, "units", "text_ids")
        return {
            "asr.wer": recognized(run, rows),
            "mt.wer": translated(run, pairs, "text").errors,
            "s2tt.wer": translated(run, pairs, "units").errors,
            "tts.wer": spoken(run, rows, bench.parts.oracle),
        }

    def scored(run: Evaluation) -> dict[str, dict[str, Counted]]:
        vocabulary = run.model.vocabulary
        tasks = [vocabulary.control(f"<{key.partition('.')[0]}>") for key in TASKS]
        found = {
            "ids": errors(run),
            "no_task": errors(without(run, tasks)),
            "no_language": errors(without(run, [vocabulary.language(code) for code in languages])),
        }
        pairs = replace(run, limit=config.limit).pairs(run.split, "units", "text_ids")
        for kind in ("text", "units"):
            specs = translating(run, pairs, kind)
            wrong = [next(c for c in languages if c not in (one.source, one.target)) for one in specs]
            said = answers(run, [replace(one, target=lang) for one, lang in zip(specs, wrong)])
            parts = [in_language([text], lang) for text, lang in zip(said, wrong)]
            counts, sizes = (np.concatenate([getattr(one, name) for one in parts]) for name in ("counts", "sizes"))
            found[f"wrong_{kind}"] = {"share": Counted(counts=counts, sizes=np.maximum(sizes, 1))}
        return found

    found = bench.over_seeds("all", TASKS, scored)
    for arm in ("ids", "no_task", "no_language"):
        for key in SCORES:
            figures |= over_seeds(f"c25.{arm}.{key}", [one[arm][key].rate for one in found])
            if arm != "ids":
                pair = ([one[arm][key] for one in found], [one["ids"][key] for one in found])
                figures |= bench.compared(f"c25.{arm}_over_ids.{key}", *pair)
    for kind in ("text", "units"):
        figures |= over_seeds(f"c25.wrong_language.{kind}.share", [one[f"wrong_{kind}"]["share"].rate for one in found])
    return figures


SYSTEM = System(
    name="viola",
    title="VioLA's ids",
    row="C25",
    sentences=400,
    test_sentences=60,
    settings=ViolaConfig,
    check=check_viola,
    differs="units in the place of codec codes, so that nothing is refined; ids are taken from a trained model, not "
    "from its training; three toy languages",
    measures="word errors of recognition, of both translations and of synthesis with ids, without those of tasks and "
    "without those of languages; words in the language asked for, where the reference is in another",
    targets=(
        oracle_target("c25"),
        Target(
            "every task errs more without task ids",
            lambda f: all(f[f"c25.no_task_over_ids.{key}.low"] > 0 for key in SCORES),
        ),
        Target(
            "both translations err more without language ids",
            lambda f: all(f[f"c25.no_language_over_ids.{key}.low"] > 0 for key in ("mt.wer", "s2tt.wer")),
        ),
        Target(
            "another language is asked for and comes",
            lambda f: min(f[f"c25.wrong_language.{kind}.share"] for kind in ("text", "units")) >= 0.9,
        ),
    ),
    measured=(
        Measured(
            "unitok systems run viola",
            {
                "c25.ids.asr.wer": 0.738,
                "c25.ids.asr.wer.interval": 0.273,
                "c25.ids.mt.wer": 0.942,
                "c25.ids.mt.wer.interval": 0.0825,
                "c25.ids.s2tt.wer": 0.967,
                "c25.ids.s2tt.wer.interval": 0.0821,
                "c25.ids.tts.wer": 1.48,
                "c25.ids.tts.wer.interval": 0.186,
                "c25.no_language.asr.wer": 0.923,
                "c25.no_language.asr.wer.interval": 0.148,
                "c25.no_language.mt.wer": 0.993,
                "c25.no_language.mt.wer.interval": 0.0814,
                "c25.no_language.s2tt.wer": 1.03,
                "c25.no_language.s2tt.wer.interval": 0.0405,
                "c25.no_language.tts.wer": 1.54,
                "c25.no_language.tts.wer.interval": 0.209,
                "c25.no_language_over_ids.asr.wer": 0.185,
                "c25.no_language_over_ids.asr.wer.high": 0.242,
                "c25.no_language_over_ids.asr.wer.low": 0.134,
                "c25.no_language_over_ids.mt.wer": 0.0507,
                "c25.no_language_over_ids.mt.wer.high": 0.0765,
                "c25.no_language_over_ids.mt.wer.low": 0.0208,
                "c25.no_language_over_ids.s2tt.wer": 0.0598,
                "c25.no_language_over_ids.s2tt.wer.high": 0.0852,
                "c25.no_language_over_ids.s2tt.wer.low": 0.0347,
                "c25.no_language_over_ids.tts.wer": 0.0568,
                "c25.no_language_over_ids.tts.wer.high": 0.125,
                "c25.no_language_over_ids.tts.wer.low": -0.0128,
                "c25.no_task.asr.wer": 0.813,
                "c25.no_task.asr.wer.interval": 0.123,
                "c25.no_task.mt.wer": 0.969,
                "c25.no_task.mt.wer.interval": 0.034,
                "c25.no_task.s2tt.wer": 0.986,
                "c25.no_task.s2tt.wer.interval": 0.0899,
                "c25.no_task.tts.wer": 1.45,
                "c25.no_task.tts.wer.interval": 0.395,
                "c25.no_task_over_ids.asr.wer": 0.0751,
                "c25.no_task_over_ids.asr.wer.high": 0.116,
                "c25.no_task_over_ids.asr.wer.low": 0.0311,
                "c25.no_task_over_ids.mt.wer": 0.0272,
                "c25.no_task_over_ids.mt.wer.high": 0.0626,
                "c25.no_task_over_ids.mt.wer.low": -0.0103,
                "c25.no_task_over_ids.s2tt.wer": 0.0181,
                "c25.no_task_over_ids.s2tt.wer.high": 0.0461,
                "c25.no_task_over_ids.s2tt.wer.low": -0.0109,
                "c25.no_task_over_ids.tts.wer": -0.0293,
                "c25.no_task_over_ids.tts.wer.high": 0.0412,
                "c25.no_task_over_ids.tts.wer.low": -0.0947,
                "c25.oracle.accuracy": 0.961,
                "c25.wrong_language.text.share": 0.998,
                "c25.wrong_language.text.share.interval": 0.00788,
                "c25.wrong_language.units.share": 1.0,
                "c25.wrong_language.units.share.interval": 0.0,
            },
            "7d3a35b",
        ),
    ),
)
