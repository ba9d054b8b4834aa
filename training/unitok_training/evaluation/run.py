"""An evaluation on its way: what is scored, the rows of a task, its metrics so far, and examples for the report.

A metric's key is its place in a nested dictionary: `asr.by_lang.en.wer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from unitok.generation.length_limits import TooLong
from unitok.generation.sampling import GREEDY, Sampling
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.audio.io import read_audio, resample
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.streams import StreamInfo, ids_column
from unitok_tokenizers.grammar.tasks.registry import TaskVariant
from unitok_training.data.mixture import parse_key
from unitok_training.evaluation.asr_scorer import AsrScorer
from unitok_training.evaluation.ear_scores import KnownVoices
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.evaluation.metrics import bleu, bleu_label, cer, chrf, error_unit, wer

Metrics = dict[str, Any]


T = TypeVar("T")


def drawn(items: Sequence[T], limit: int, *, seed: int = 0) -> list[T]:
    """At most `limit` items in their order, drawn at random; all where it is 0.

    Items alternate between languages, voices, questions and targets: even steps would take one of them.
    """
    if not limit or len(items) <= limit:
        return list(items)
    places = np.random.default_rng(seed).permutation(len(items))[:limit]
    return [items[index] for index in np.sort(places)]


@dataclass
class Example:
    """One thing to look at or listen to."""

    task: str
    reference: str
    output: str
    source: str = ""
    audio: np.ndarray | None = None
    reference_audio: np.ndarray | None = None
    note: str = ""


@dataclass
class Evaluation:
    """A model, its test data, and what was found."""

    model: Model
    shards: Shards
    judge: AsrScorer | None = None
    ears: Ears | None = None
    """Recognizer, speaker encoder and quality model that never saw this corpus."""
    heard_at_most: int = 0
    """Recordings of a kind that ears hear, at one to two seconds each; 0 for all."""
    known_voices: KnownVoices | None = None
    """What ears compare voices with; found when it is first needed."""
    split: str = "test"
    """Held-out sentences by held-out voices."""
    seen_split: str = "test_seen"
    """Held-out sentences by voices of the training."""
    limit: int = 0
    """Most rows per task; 0 takes all."""
    known_only: bool = False
    """Leave out rows in languages that the model does not know; without it they are an error."""
    seed: int = 0
    metrics: Metrics = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    def spoken(self, samples: np.ndarray | None) -> np.ndarray:
        """What the model has said (S,), at the rate of its recordings: its vocoder may speak at another one."""
        assert samples is not None and self.model.vocoder is not None
        return resample(samples, self.model.vocoder.sample_rate, self.model.sample_rate)

    def for_judge(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Recordings (S,) at the model's rate as the judge takes them."""
        assert self.judge is not None
        return [resample(one, self.model.sample_rate, self.judge.recognizer.sample_rate) for one in recordings]

    def all_rows(self, split: str, *columns: str) -> list[int]:
        """Rows of a split in which these ragged columns hold something.

        Here and below a column that is named after a kind is that of the kind's main stream.
        """
        mask = self.shards.split == split
        if self.known_only:
            mask &= np.isin(self.shards.lang, list(self.model.languages))
        for name in map(self.model.vocabulary.column, columns):
            if name not in self.shards.table.column_names:
                return []
            mask &= np.diff(self.shards.ragged(name)[1]) > 0
        return np.flatnonzero(mask).tolist()

    def rows(self, split: str, *columns: str) -> list[int]:
        """The same, at most `limit` of them."""
        return self.limited(self.all_rows(split, *columns))

    def limited(self, items: Sequence[T]) -> list[T]:
        """At most `limit` items, as `drawn` has them."""
        return drawn(items, self.limit, seed=self.seed)

    def cell(self, name: str, row: int) -> np.ndarray:
        """Local ids of one row of a ragged column."""
        values, offsets = self.shards.ragged(self.model.vocabulary.column(name))
        return values[offsets[row] : offsets[row + 1]]

    def stream(self, kind: str) -> StreamInfo | None:
        """The model's main stream of a kind, None where it or the shards have none."""
        main = self.model.vocabulary.main(kind)
        return None if main is None else self.shards.streams.get(main.name)

    def codes(self, row: int) -> np.ndarray:
        """Codes (F, Q) of one row, of the main stream."""
        return self.shards.codes(row, self.model.vocabulary.column("codes"))

    def span(self, kind: str, row: int) -> Span:
        """What one row says in a stream."""
        return Span(kind, self.codes(row) if kind == "codes" else self.cell(ids_column(kind), row))

    def knows(self, one: TaskVariant) -> bool:
        """Whether the model was trained on a variant, or does not say on which."""
        trained = self.model.info.get("tasks")
        named = [key for key in trained or () if not key.startswith("latent.")]  # those tell nothing of tokens
        return trained is None or one.key in {parse_key(key).of.key for key in named}

    def text(self, row: int) -> str:
        """Transcript of a row."""
        return self.shards.text[row] or ""

    def lang(self, row: int) -> str:
        """Language code of a row."""
        return str(self.shards.lang[row])

    def audio(self, row: int) -> np.ndarray:
        """Reference samples of a row, at the judge's rate."""
        values = self.shards.row(row)
        return read_audio(
            self.shards.folder / values["audio"],
            sample_rate=self.model.sample_rate,
            offset=values["offset"],
            seconds=values["seconds"],
        )

    def sound(self, row: int) -> np.ndarray | None:
        """`audio`, or None where the row has none or nothing here reads recordings."""
        model = self.model
        reads = bool(model.tokenizers.speech) or model.latent is not None
        there = reads and bool(self.shards.row(row)["audio"])
        return self.audio(row) if there else None

    def all_pairs(self, split: str, *columns: str, answers: Sequence[str] = ()) -> list[tuple[int, int]]:
        """(source row, target row) of the same group in two languages.

        With `answers`, columns that the target alone needs, the source has the others; of rows that answer with the
        same text one is taken, so that a source is asked once what several voices have said.
        """
        sources = self._by_group(self.all_rows(split, *columns))
        targets = self._by_group(self.all_rows(split, *answers)) if answers else sources
        if answers:
            first = {
                name: {(self.lang(row), self.text(row)): row for row in rows[::-1]} for name, rows in targets.items()
            }
            targets = {name: sorted(found.values()) for name, found in first.items()}
        return [
            (a, b)
            for name, rows in sources.items()
            for a in rows
            for b in targets.get(name, ())
            if self.lang(a) != self.lang(b)
        ]

    def _by_group(self, rows: Sequence[int]) -> dict[str, list[int]]:
        """Group → its rows."""
        found: dict[str, list[int]] = {}
        for row in rows:
            found.setdefault(str(self.shards.group[row]), []).append(row)
        return found

    def pairs(self, split: str, *columns: str, answers: Sequence[str] = ()) -> list[tuple[int, int]]:
        """The same, at most `limit` of them."""
        return self.limited(self.all_pairs(split, *columns, answers=answers))

    def answerable(self, requests: Sequence[PromptRequest], key: str) -> list[int]:
        """Places of requests that leave the model room for an answer; how many do not stands under a key, where some
        do not."""
        kept = []
        for place, request in enumerate(requests):
            try:
                self.model.token_request(request)
            except TooLong:
                continue
            kept.append(place)
        if len(kept) < len(requests):
            self.put(f"{key}.left_out", len(requests) - len(kept))
        return kept

    def rows_of_training(self, *columns: str) -> list[int]:
        """All training rows in which these columns hold something."""
        mask = self.shards.split == "train"
        for name in map(self.model.vocabulary.column, columns):
            mask &= np.diff(self.shards.ragged(name)[1]) > 0
        return np.flatnonzero(mask).tolist()

    def model_sampling(self, output: str) -> Sampling:
        """How speech is drawn: what the model's training found best, greedy otherwise."""
        settings = self.model.info.get("sampling", {}).get(output)
        return Sampling(**settings) if settings else GREEDY

    def show(self, task: str, reference: str, output: str, **shown: Any) -> None:
        """Keep an example for the report; `shown` are further fields of `Example`."""
        self.examples.append(Example(task, reference, output, **shown))

    def put(self, key: str, value: Any) -> None:
        """Store under a dotted key."""
        place = self.metrics
        *path, last = key.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value


TextPairs = list[tuple[str, str, str]]
"""(label of the breakdown, reference, output)."""


def put_error_rates(run: Evaluation, key: str, pairs: TextPairs) -> None:
    """Pooled WER and CER and by language, with what `wer` counts (`unit`): characters where there are no spaces."""
    run.put(f"{key}.wer", wer([p[1] for p in pairs], [p[2] for p in pairs]))
    run.put(f"{key}.cer", cer([p[1] for p in pairs], [p[2] for p in pairs]))
    run.put(f"{key}.unit", error_unit([p[1] for p in pairs]))
    run.put(f"{key}.count", len(pairs))
    for label in sorted({p[0] for p in pairs}):
        chosen = [p for p in pairs if p[0] == label]
        run.put(f"{key}.by_lang.{label}.wer", wer([p[1] for p in chosen], [p[2] for p in chosen]))
        run.put(f"{key}.by_lang.{label}.cer", cer([p[1] for p in chosen], [p[2] for p in chosen]))
        run.put(f"{key}.by_lang.{label}.unit", error_unit([p[1] for p in chosen]))


def target_of(direction: str) -> str:
    """Target language of a direction such as en-ja; of one with regions, such as en-ja-JP, the language itself."""
    _, *parts = direction.lower().replace("_", "-").split("-")
    return "ja" if "ja" in parts else parts[-1] if parts else ""


def put_translation_scores(run: Evaluation, key: str, pairs: TextPairs, name: str = "bleu") -> None:
    """Pooled BLEU and chrF, and BLEU by direction, each with the tokenizer of the target's script."""
    langs, references = [target_of(p[0]) for p in pairs], [p[1] for p in pairs]
    run.put(f"{key}.{name}", bleu(references, [p[2] for p in pairs], langs))
    run.put(f"{key}.{name}_tokenizer", bleu_label(references, langs))
    run.put(f"{key}.{name.replace('bleu', 'chrf')}", chrf([p[1] for p in pairs], [p[2] for p in pairs]))
    run.put(f"{key}.count", len(pairs))
    for label in sorted({p[0] for p in pairs}):
        chosen = [p for p in pairs if p[0] == label]
        texts, langs = [p[1] for p in chosen], [target_of(label)] * len(chosen)
        run.put(f"{key}.by_direction.{label}.{name}", bleu(texts, [p[2] for p in chosen], langs))
        run.put(f"{key}.by_direction.{label}.{name}_tokenizer", bleu_label(texts, langs))
