"""Languages with little speech, alone and beside one with much: recognition, and translation into that one (E9).

unitok systems run languages -o runs/languages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, best_kept, oracle_target, settings_of
from unitok_training.systems.base.token_parts import PartsConfig, every_language
from unitok_training.systems.base.token_scores import Translated, recognized, translated
from unitok_training.trainer.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class LanguagesConfig(TokenBenchConfig):
    """What the check depends on."""

    parts: PartsConfig = field(default_factory=every_language)
    """Corpus, tokenizers, synthesizer; the first language is the one with much."""
    amounts: tuple[int, ...] = (60, 400)
    """Training sentences that each of the other languages has."""
    train: TrainConfig = field(default_factory=best_kept)
    """Training of an arm; the seed is that of the arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parts.languages) < 2:
            raise InputError("parts.languages are fewer than two: one with much speech, and one with little")
        if not self.amounts or sorted(set(self.amounts)) != list(self.amounts) or self.amounts[0] < 1:
            raise InputError(
                f"amounts is {list(self.amounts)}: give numbers of sentences from 1 on, the smallest first"
            )
        for name in ("spoken", "texts", "transcribed"):
            if getattr(self, name):
                raise InputError(
                    f"{name} is {getattr(self, name)}: here languages have `amounts` of the corpus; leave it out"
                )


def limited(rows: Sequence[Row], langs: Sequence[str], count: int) -> list[Row]:
    """Rows of which only the first so many groups of the training are in these languages."""
    groups = sorted({row.group for row in rows if row.split == "train"})
    kept = set(groups[:count])
    return [row for row in rows if row.split != "train" or row.lang not in langs or row.group in kept]


def tasks_of(rich: str, poor: Sequence[str], *, beside: bool) -> dict[str, float]:
    """Recognition of the poor languages and translation of their speech; with `beside` recognition of the rich one."""
    found = {key: 1.0 for lang in poor for key in (f"asr@{lang}", f"s2tt@{lang}-{rich}")}
    return found | ({f"asr@{rich}": float(len(poor))} if beside else {})


def check_languages(given: Bench) -> Figures:
    """Errors and BLEU of every language with little speech, by its amount, alone and beside the first language."""
    config = settings_of(given, LanguagesConfig)
    bench = TokenBench(given, config)
    if config.amounts[-1] > config.parts.sentences:
        raise InputError(f"amounts is {list(config.amounts)}: the corpus has {config.parts.sentences} sentences")
    figures, (rich, *poor) = bench.oracle_figures("e9"), config.parts.languages

    def scored(run: Evaluation) -> dict[str, tuple[Counted, Translated]]:
        some = replace(run, limit=config.limit).limited
        every, pairs = run.all_rows(run.split, "units", "text_ids"), run.all_pairs(run.split, "units", "text_ids")
        found = {}
        for lang in poor:
            rows = some([row for row in every if run.lang(row) == lang])
            into = some([(a, b) for a, b in pairs if (run.lang(a), run.lang(b)) == (lang, rich)])
            found[lang] = (recognized(run, rows), translated(run, into, "units"))
        return found

    for amount in config.amounts:
        shards = bench.prepared(limited(bench.parts.rows, poor, amount), f"shards-{amount}")
        arms = {
            arm: bench.over_seeds(
                f"{arm}-{amount}", tasks_of(rich, poor, beside=arm == "beside"), scored, shards=shards
            )
            for arm in ("alone", "beside")
        }
        figures |= _figures(f"e9.{amount}", arms, poor, bench)
    return figures | {"e9.least": float(config.amounts[0]), "e9.most": float(config.amounts[-1])}


Scores = Mapping[str, tuple[Counted, Translated]]


def _figures(key: str, arms: Mapping[str, Sequence[Scores]], poor: Sequence[str], bench: TokenBench) -> Figures:
    """Of one amount: each language by itself, and how much the rich one lowers its errors."""
    found = Figures()
    for lang in poor:
        for arm, parts in arms.items():
            found |= over_seeds(f"{key}.{lang}.{arm}.wer", [one[lang][0].rate for one in parts])
            found |= over_seeds(f"{key}.{lang}.{arm}.bleu", [one[lang][1].bleu for one in parts])
        pair = ([one[lang][0] for one in arms["beside"]], [one[lang][0] for one in arms["alone"]])
        found |= bench.compared(f"{key}.{lang}.beside_over_alone.wer", *pair)
    return found


def gains(figures: Figures, amount: float, end: str = "") -> bool:
    """Whether the rich language lowers the errors of each of the others, by the mean or by an end of its interval."""
    start, last = f"e9.{amount:.0f}.", f".beside_over_alone.wer{end}"
    found = [value for name, value in figures.items() if name.startswith(start) and name.endswith(last)]
    if not found:
        raise KeyError(f"{start}*{last}")
    return max(found) < 0


SYSTEM = System(
    name="languages",
    title="Languages with little speech",
    row="E9",
    sentences=400,
    test_sentences=60,
    settings=LanguagesConfig,
    check=check_languages,
    differs="three toy languages, whose words are all different and whose sounds are not, in the place of German, "
    "French and Spanish; amounts are sentences of some two seconds, 60 and 400; the recognizer under the units has "
    "read all texts; of as many updates a third are the first language's where it is learned beside",
    measures="word errors of recognition and BLEU of translated speech of each language with little speech, by how "
    "much it has, alone and beside recognition of the first language",
    targets=(
        oracle_target("e9"),
        Target("of little speech errors fall beside the first language", lambda f: gains(f, f["e9.least"])),
        Target("… on these sentences, not by chance", lambda f: gains(f, f["e9.least"], ".high")),
        Target("and of more speech, too", lambda f: gains(f, f["e9.most"])),
    ),
    measured=(
        Measured(
            "unitok systems run languages",
            {
                "e9.400.qab.alone.bleu": 1.91,
                "e9.400.qab.alone.bleu.interval": 0.668,
                "e9.400.qab.alone.wer": 0.247,
                "e9.400.qab.alone.wer.interval": 0.0492,
                "e9.400.qab.beside.bleu": 1.34,
                "e9.400.qab.beside.bleu.interval": 0.375,
                "e9.400.qab.beside.wer": 0.172,
                "e9.400.qab.beside.wer.interval": 0.165,
                "e9.400.qab.beside_over_alone.wer": -0.0751,
                "e9.400.qab.beside_over_alone.wer.high": -0.032,
                "e9.400.qab.beside_over_alone.wer.low": -0.117,
                "e9.400.qac.alone.bleu": 4.49,
                "e9.400.qac.alone.bleu.interval": 4.38,
                "e9.400.qac.alone.wer": 0.222,
                "e9.400.qac.alone.wer.interval": 0.106,
                "e9.400.qac.beside.bleu": 2.03,
                "e9.400.qac.beside.bleu.interval": 2.19,
                "e9.400.qac.beside.wer": 0.245,
                "e9.400.qac.beside.wer.interval": 0.207,
                "e9.400.qac.beside_over_alone.wer": 0.0238,
                "e9.400.qac.beside_over_alone.wer.high": 0.0688,
                "e9.400.qac.beside_over_alone.wer.low": -0.0242,
                "e9.60.qab.alone.bleu": 1.06,
                "e9.60.qab.alone.bleu.interval": 1.12,
                "e9.60.qab.alone.wer": 0.969,
                "e9.60.qab.alone.wer.interval": 0.0752,
                "e9.60.qab.beside.bleu": 1.56,
                "e9.60.qab.beside.bleu.interval": 2.05,
                "e9.60.qab.beside.wer": 0.775,
                "e9.60.qab.beside.wer.interval": 0.0492,
                "e9.60.qab.beside_over_alone.wer": -0.194,
                "e9.60.qab.beside_over_alone.wer.high": -0.142,
                "e9.60.qab.beside_over_alone.wer.low": -0.245,
                "e9.60.qac.alone.bleu": 0.756,
                "e9.60.qac.alone.bleu.interval": 0.56,
                "e9.60.qac.alone.wer": 0.982,
                "e9.60.qac.alone.wer.interval": 0.102,
                "e9.60.qac.beside.bleu": 1.49,
                "e9.60.qac.beside.bleu.interval": 0.617,
                "e9.60.qac.beside.wer": 0.751,
                "e9.60.qac.beside.wer.interval": 0.0959,
                "e9.60.qac.beside_over_alone.wer": -0.231,
                "e9.60.qac.beside_over_alone.wer.high": -0.186,
                "e9.60.qac.beside_over_alone.wer.low": -0.281,
                "e9.least": 60.0,
                "e9.most": 400.0,
                "e9.oracle.accuracy": 0.961,
            },
            "801c6a5",
        ),
    ),
)
