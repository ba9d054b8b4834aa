"""Pairs of recordings as two streams: by which word a translation's words become likely, when they are said, and laid.

F frames, J target words, N ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unitok_tokenizers.corpora.toy import LANGUAGES, ORDERS, understand
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.interleave import text_cuts, word_pieces
from unitok_training.evaluation.metrics import laal
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.code_bench import CodeBench
from unitok_training.systems.base.simultaneous import (
    Schedule,
    contextual_alignment,
    laid_speech,
    laid_words,
    read_words,
    schedule,
)
from unitok_training.systems.base.token_scores import log_probabilities
from unitok_training.systems.codes.stream_translator import TwoStreams

SOURCE, TARGET = LANGUAGES[0], LANGUAGES[2]
"""The verb, which is third in the one, comes first in the other: what it has to wait for changes with the sentence."""
LONGEST_DELAY = 8.0
"""Seconds among which a constant delay is looked for."""


# -- alignment ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A recording and its translation's."""

    source: Row
    """What is heard."""
    target: Row
    """What is to be said."""

    @property
    def truth(self) -> list[int]:
        """The source word that each target word translates, by the corpus's own rule."""
        meaning = understand(self.source.text or "", SOURCE)
        roles = [role for role in ORDERS[SOURCE] if role in meaning]
        return [roles.index(role) for role in ORDERS[TARGET] if role in meaning]


def pairs_of(rows: Sequence[Row], split: str) -> list[Pair]:
    """Recordings of a split in both languages."""
    of = {(row.group, row.lang): row for row in rows if row.split == split}
    groups = sorted({group for group, _ in of})
    both = ((of.get((group, SOURCE)), of.get((group, TARGET))) for group in groups)
    return [Pair(source=one, target=other) for one, other in both if one is not None and other is not None]


def prefixes(text: str) -> list[str]:
    """The first word, the first two, and so on: all of the text last."""
    words = text.split()
    return [" ".join(words[:count]) for count in range(1, len(words) + 1)]


def text_rows(bench: CodeBench) -> list[Row]:
    """The beginnings of every source sentence, each with the whole translation, as text alone."""
    config, found = bench.config, list[Row]()
    rows = [*bench.parts.rows, *bench.parts.spoken(config.spoken), *bench.parts.texts(config.spoken, config.texts)]
    texts = {(row.group, row.split, row.lang): row.text or "" for row in rows}
    for (group, split, lang), text in sorted(texts.items()):
        if lang != SOURCE or (group, split, TARGET) not in texts:
            continue
        some = prefixes(text) if split == "train" else [text]
        for number, prefix in enumerate(some):
            name = f"{group}-{number}"
            both = ((SOURCE, prefix), (TARGET, texts[group, split, TARGET]))
            found += [
                Row(id=f"{split}-{name}-{code}", group=name, lang=code, split=split, text=said) for code, said in both
            ]
    return found


def alignments(run: Evaluation, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """The contextual alignment of each pair by a text translation model."""
    specs, sizes = list[SequenceSpec](), list[int]()
    for pair in pairs:
        answer = (run.model.text_span(pair.target.text or ""),)
        some = prefixes(pair.source.text or "")
        specs.append(SequenceSpec("lm", TARGET, outputs=answer))
        specs += [SequenceSpec("mt", SOURCE, TARGET, (), (run.model.text_span(one),), answer) for one in some]
        sizes.append(len(some) + 1)
    starts = word_pieces(run.model.tokenizers.text.pieces())
    found = [
        of_words(scores, spec.outputs[-1].content, starts) for scores, spec in zip(log_probabilities(run, specs), specs)
    ]
    bounds = np.cumsum([0, *sizes]).tolist()
    return [contextual_alignment(np.array(found[one:other])) for one, other in zip(bounds, bounds[1:])]


def of_words(scores: np.ndarray, ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(J,) log-probability of each word of a text, given those (N,) of its ids, the mark behind it last."""
    own = scores[len(scores) - 1 - len(ids) : -1]
    return np.add.reduceat(own, text_cuts(ids, starts)[:-1])


# -- streams ------------------------------------------------------------------------------------------------------


class Streams:
    """Lays pairs as two streams, and reads what is said.

    Args:
        bench: its codec, letters and rates.
    """

    def __init__(self, bench: CodeBench) -> None:
        self.codec, self.letters = bench.parts.codec, bench.parts.tokenizers.text
        self.rate, self.padding = float(self.codec.frame_rate), len(self.letters.pieces())
        self._frames: dict[str, int] = {}

    def ids(self, word: str) -> list[int]:
        """Letters of a word."""
        return list(self.letters.encode(word))

    def frames(self, row: Row) -> int:
        """Frames of a recording."""
        if row.id not in self._frames:
            self._frames[row.id] = int(len(row.load(self.codec.sample_rate)) / self.codec.sample_rate * self.rate)
        return self._frames[row.id]

    def plan(self, pair: Pair, waits: np.ndarray) -> Schedule:
        """When the words of a pair's target are said, which wait so long."""
        words = pair.target.words
        return schedule(
            waits, [len(self.ids(word)) for word, _, _ in words], [end - start for _, start, end in words],
            self.frames(pair.source) / self.rate, self.rate,
        )  # fmt: skip

    def lagging(self, ids: np.ndarray, frames: int, reference: int) -> float:
        """Seconds by which what is said (F,) lags behind so many frames of a source; the source's length for nothing.

        A word counts when its last letter has been said.
        """
        seconds = frames / self.rate
        ends = [min((place + len(word)) / self.rate, seconds) for place, word in read_words(ids, self.padding)]
        return laal(ends, seconds, reference) if ends else seconds

    def text(self, ids: np.ndarray) -> str:
        """What is said, as text."""
        return " ".join(self.letters.decode(word.tolist()).strip() for _, word in read_words(ids, self.padding))


def stream_shards(
    bench: CodeBench, name: str, pairs: Sequence[Pair], plans: Sequence[Schedule], streams: Streams
) -> Shards:
    """Shards of pairs' two streams, by their plans, which are made unless they are there.

    Columns: `monologue`, the ids of text frame by frame; `own` and `heard`, codes of the target and of the source.
    """
    folder, codec = bench.run / name, streams.codec
    if (folder / "manifest.json").exists():
        return Shards.open(folder)
    bench.report(f"{name}: {len(pairs)} pairs of streams")
    rate, rows = codec.sample_rate, list[Row]()
    said = [
        laid_speech(plan, pair.target.load(rate), pair.target.words, sample_rate=rate, rate=streams.rate)
        for pair, plan in zip(pairs, plans)
    ]
    own, heard = codec.encode_batch(said), codec.encode_batch([pair.source.load(rate) for pair in pairs])
    for pair, plan, codes, source in zip(pairs, plans, own, heard):
        ids = laid_words(plan, [streams.ids(word) for word, _, _ in pair.target.words], streams.padding)
        rows.append(
            replace(
                pair.target, audio=None, words=(), extras={},
                tokens={"monologue": ids, "own": codes[: plan.frames], "heard": source},
            )
        )  # fmt: skip
    infos = {name: replace(codec.info(), name=name) for name in ("own", "heard")}
    infos["monologue"] = StreamInfo("monologue", "units", "letters", codec.frame_rate, (streams.padding + 1,))
    return prepare_shards(rows, TokenizerSet.of(bench.parts.tokenizers.text), folder, external=infos)


def two_streams(folder: Path) -> list[TwoStreams]:
    """The streams of every row of shards."""
    shards = Shards.open(folder)
    return [
        TwoStreams(
            text=shards.cell("monologue", row).astype(np.int64), own=shards.codes(row, "own").astype(np.int64),
            heard=shards.codes(row, "heard").astype(np.int64),
        )
        for row in range(len(shards))
    ]  # fmt: skip


def delay_of(target: float, lagging: Callable[[float], float]) -> float:
    """The constant delay in seconds by which what is said lags so much on the mean, by halving."""
    low, high = 0.0, LONGEST_DELAY
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if lagging(middle) < target else (low, middle)
    return (low + high) / 2
