"""All of it for one model, one metric after another; what was measured is kept in files, and a repeat continues.

FOLDER/words.json …   figures of a metric, and what they were made of
FOLDER/spoken/        recordings of pairs that were spoken
FOLDER/results.json   everything
FOLDER/table.md       the same for people
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import (
    atomic_write_bytes,
    fingerprint,
    read_json,
    sha256_file,
    write_json,
)
from unitok_tokenizers.progress import part_of_work
from unitok_tokenizers.seeds import check_seed
from unitok_training.evaluation.ngram import NgramModel
from unitok_training.evaluation.run import Evaluation
from unitok_training.evaluation.text_ability import read_text_evals
from unitok_training.speech_lm.cloze import cloze_figures
from unitok_training.speech_lm.curve import curve_figures
from unitok_training.speech_lm.pairs import pair_figures, pair_fits, read_pairs
from unitok_training.speech_lm.prediction import need_speech_lm, order_figures, prediction_figures, unit_grams
from unitok_training.speech_lm.prosody import prosody_figures
from unitok_training.speech_lm.spoken import (
    Speaking,
    TextPair,
    content,
    made_by,
    sentence_pairs,
    spoken_pairs,
    swapped_pairs,
    word_pairs,
)
from unitok_training.speech_lm.table import as_text

FORMAT = 1
TEMPERATURES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2)


@dataclass(frozen=True, kw_only=True)
class SpeechLmConfig:
    """What is measured, and of what."""

    metrics: tuple[str, ...] = ()
    """Names in `METRICS`; empty for all that can be measured."""
    speaking: Speaking = field(default_factory=Speaking)
    """Who says words and sentences."""
    lang: str = ""
    """Language of words and sentences that are spoken; empty for that of most training rows with a text."""
    pairs: tuple[str, ...] = ()
    """Manifests of recorded pairs."""
    sentences: tuple[str, ...] = ()
    """Files of minimal pairs of sentences, as BLiMP has them; without any, neighboring words are exchanged."""
    known_words: str = ""
    """File of further words, one a line, that no pseudo-word may be."""
    document: str = ""
    """Entry of the rows' extras that names their document; empty to cut sentences in two."""
    label: str = "prosody"
    """Entry of the rows' extras that is the class of prosody."""
    temperatures: tuple[float, ...] = TEMPERATURES
    """At which speech is drawn."""
    samples: int = 100
    """Utterances that are drawn at each."""

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise InputError(f"unknown metric {name!r}; choose of {', '.join(METRICS)}")


@dataclass(frozen=True, kw_only=True)
class SpeechLmRun:
    """One model that is being measured."""

    data: Evaluation
    """The model, the shards, their split, the limit and the seed, and ears where there are any."""
    config: SpeechLmConfig
    """What is asked for."""
    folder: Path
    """Where everything is kept."""

    @cached_property
    def lang(self) -> str:
        """Language of what is spoken."""
        if self.config.lang:
            self.data.model.vocabulary.language(self.config.lang)
            return self.config.lang
        rows = self.data.rows_of_training("text_ids") or self.data.all_rows(self.data.split)
        if not rows:
            raise InputError("the shards have no texts to take words of; give --lang with --sentences or --pairs")
        return Counter(map(self.data.lang, rows)).most_common(1)[0][0]

    def texts(self, split: str) -> list[str]:
        """Texts of a split's rows in the language that is spoken."""
        rows = [row for row in self.data.all_rows(split) if self.data.lang(row) == self.lang]
        return [text for row in rows if (text := self.data.text(row))]

    def keep(self, name: str, of: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Figures that a file holds if they were made of the same, and are made and kept otherwise."""
        path, made_of = self.folder / f"{name}.json", fingerprint([FORMAT, self.identity, of])
        if path.exists():
            found = read_json(path)
            if isinstance(found, dict) and found.get("made_of") == made_of and isinstance(found.get("figures"), dict):
                kept: dict[str, Any] = found["figures"]
                return kept
        figures: dict[str, Any] = finite(make())
        write_json(path, {"made_of": made_of, "figures": figures})
        return figures

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What all figures depend on."""
        data = self.data
        return {
            "model": fingerprint([made_by(data.model), data.model.vocabulary.fingerprint]),
            "shards": [part["sha256"] for part in data.shards.manifest["files"]],
            "split": data.split,
            "limit": data.limit,
            "seed": data.seed,
        }


def finite(value: Any) -> Any:
    """Figures with None in place of what is no number: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_words(path: str) -> frozenset[str]:
    """Words of a file, in lower case. InputError where it is not a text in UTF-8."""
    try:
        return frozenset(Path(path).read_text(encoding="utf-8").lower().split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give words in UTF-8, one a line") from error


# -- the metrics -----------------------------------------------------------------------------------------------------


def _grams(run: SpeechLmRun) -> dict[str, NgramModel]:
    return unit_grams(run.data, order=5, end=False)


def measure_words(run: SpeechLmRun) -> dict[str, Any]:
    """Words against pseudo-words."""
    need_speech_lm(run.data)
    other = read_words(run.config.known_words) if run.config.known_words else frozenset[str]()
    texts = run.texts("train") or run.texts(run.data.split)
    found, told = word_pairs(texts, run.lang, limit=run.data.limit, seed=run.data.seed, other=other)
    return {**_said(run, found), **told, "lang": run.lang}


def measure_sentences(run: SpeechLmRun) -> dict[str, Any]:
    """Sentences against slightly wrong ones."""
    need_speech_lm(run.data)
    limit, seed = run.data.limit, run.data.seed
    if run.config.sentences:
        found = sentence_pairs(read_text_evals(run.config.sentences), run.lang, limit=limit, seed=seed)
    else:
        found = swapped_pairs(run.texts(run.data.split), run.lang, limit=limit, seed=seed)
    if not found:
        raise InputError(
            f"no pairs of sentences: split {run.data.split!r} has no texts of three words; give --sentences"
        )
    return {**_said(run, found), "lang": run.lang}


def _said(run: SpeechLmRun, found: Sequence[TextPair]) -> dict[str, Any]:
    """Figures of pairs that are spoken here; those that the decoder has no positions for are left out."""
    pairs = spoken_pairs(run.data.model, found, run.config.speaking, run.folder / "spoken")
    fitting = [pair for pair in pairs if pair_fits(run.data.model, pair)]
    if pairs and not fitting:
        raise InputError(f"none of the {len(pairs)} pairs fits the decoder's positions, once spoken")
    return {**pair_figures(run.data.model, fitting, _grams(run)), "left_out": len(pairs) - len(fitting)}


def measure_pairs(run: SpeechLmRun) -> dict[str, Any]:
    """Recorded pairs."""
    need_speech_lm(run.data)
    if not run.config.pairs:
        raise InputError("no recorded pairs are given (--pairs)")
    lang = run.config.lang or run.data.model.languages[0]
    found = [pair for path in run.config.pairs for pair in read_pairs(path, run.data.model, lang=lang)]
    return pair_figures(run.data.model, found, _grams(run))


def measure_curve(run: SpeechLmRun) -> dict[str, Any]:
    """PPX and VERT, each temperature kept as soon as it is known."""
    ears = "" if run.data.ears is None else run.data.ears.source
    of = [ears, run.config.samples]

    def keep(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return run.keep(f"curve/{name.replace(' ', '-')}", of, make)

    return curve_figures(run.data, run.config.temperatures, samples=run.config.samples, keep=keep)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One thing that is measured."""

    measure: Callable[[SpeechLmRun], dict[str, Any]]
    """Makes its figures; InputError where the model or the data have no way to."""
    depends: Callable[[SpeechLmRun], Any] = lambda run: None
    """What of a run its figures depend on, beside its identity."""


def _files(paths: Sequence[str]) -> list[str]:
    """What files hold; InputError for one that is not there."""
    for path in paths:
        if not Path(path).is_file():
            raise InputError(f"no file {path}; check the path")
    return [sha256_file(path) for path in paths]


def _speaking(run: SpeechLmRun) -> list[Any]:
    """Who says pairs, by name and by content."""
    return [asdict(run.config.speaking), content(run.config.speaking, run.data.model)]


METRICS: Mapping[str, Metric] = {
    "prediction": Metric(measure=lambda run: prediction_figures(run.data)),
    "order": Metric(measure=lambda run: order_figures(run.data)),
    "words": Metric(
        measure=measure_words,
        depends=lambda run: [
            *_speaking(run),
            run.config.lang,
            _files([run.config.known_words] if run.config.known_words else []),
        ],
    ),
    "sentences": Metric(
        measure=measure_sentences, depends=lambda run: [*_speaking(run), run.config.lang, _files(run.config.sentences)]
    ),
    "pairs": Metric(measure=measure_pairs, depends=lambda run: [run.config.lang, _files(run.config.pairs)]),
    "cloze": Metric(
        measure=lambda run: cloze_figures(run.data, document=run.config.document),
        depends=lambda run: run.config.document,
    ),
    "prosody": Metric(
        measure=lambda run: prosody_figures(run.data, label=run.config.label), depends=lambda run: run.config.label
    ),
    "curve": Metric(measure=measure_curve, depends=lambda run: [list(run.config.temperatures), run.config.samples]),
}
"""Name → how it is measured, in the order in which that is done."""


def run_speech_lm(run: SpeechLmRun, *, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure what was chosen, or all that can be; write `results.json` and `table.md`, and return the former.

    `not_measured` says why a metric that nobody chose by name is missing.

    Raises:
        InputError: the shards are not this model's or hold no rows of the split; a metric that was chosen by name and
            cannot be measured.
    """
    data, names = run.data, run.config.metrics or tuple(METRICS)
    check_seed(data.seed)
    data.model.vocabulary.check_all(data.shards.streams, str(data.shards.folder), "the model's vocabulary")
    if not (data.shards.split == data.split).any():
        found = sorted(set(data.shards.split.tolist()))
        raise InputError(f"{data.shards.folder}: no rows of split {data.split!r}; it holds {', '.join(found)}")
    results: dict[str, Any] = {"format": FORMAT, "of": run.identity, "metrics": {}, "not_measured": {}}
    ears = "" if data.ears is None else data.ears.source
    for number, name in enumerate(names):
        metric = METRICS[name]
        with part_of_work(name, number, len(names)):
            try:
                of = [name, metric.depends(run), ears if name == "curve" else ""]
                results["metrics"][name] = run.keep(name, of, partial(metric.measure, run))
            except InputError as error:
                if run.config.metrics or (name == "pairs" and run.config.pairs):
                    raise
                results["not_measured"][name] = str(error)
        progress(f"{name}: {results['not_measured'].get(name, 'measured')}")
    write_json(run.folder / "results.json", results)
    atomic_write_bytes(run.folder / "table.md", (as_text(results) + "\n").encode("utf-8"))
    return results
