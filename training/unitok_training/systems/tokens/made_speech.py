"""Speech that a model made beside little that people transcribed: recognition from a tenth of the transcripts (D15).

unitok systems run made_speech -o runs/made_speech

A synthesizer that learned from the transcribed tenth says the texts whose recordings nobody transcribed. What it says
becomes sound, by one voice, and goes the way of all recordings. All models begin with one that knows the texts, which
are there in any case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.tasks.base import OUT_UNITS
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, best_kept, oracle_target, settings_of
from unitok_training.systems.base.token_parts import VOICE, transcribed
from unitok_training.systems.base.token_scores import recognized, said
from unitok_training.trainer.config import TrainConfig

READING: Mapping[str, float] = {"asr": 1.0}
SAYING: Mapping[str, float] = {"tts.units": 1.0}
TEXT: Mapping[str, float] = {"lm": 1.0}


@dataclass(frozen=True, kw_only=True)
class MadeSpeechConfig(TokenBenchConfig):
    """What the check depends on."""

    idle: ClassVar[Mapping[str, str]] = {"transcribed": "share says of how many sentences the text is shown"}

    share: float = 0.1
    """Share of the spoken training sentences whose text is shown."""
    spoken: int = 1800
    """Training sentences beside the corpus, spoken: a tenth of a few hundred teaches nobody to read."""
    saying_steps: int = 400
    """Updates of the synthesizer."""
    train: TrainConfig = field(default_factory=best_kept)
    """Training of an arm; the seed is that of the arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise InputError(f"share is {self.share}: some sentences have their text, not all")
        if self.saying_steps < 1:
            raise InputError(f"saying_steps is {self.saying_steps}: it must be 1 or more")


def made_speech(run: Evaluation, rows: Sequence[Row], folder: Path) -> list[Row]:
    """What a model says of each row's text, as a recording with this text; made once. An empty answer is no recording.

    Args:
        run: the model, which speaks by the voice that the oracle reads best.
        rows: of the training.
        folder: where recordings and their manifest are kept.

    Raises:
        InputError: all answers are empty.
    """
    manifest = folder / "manifest.jsonl"
    if not manifest.exists():
        asked = [
            SequenceSpec("tts", row.lang, None, (OUT_UNITS,), (run.model.text_span(row.text or ""),)) for row in rows
        ]
        lines = []
        for row, samples in zip(rows, said(run, asked)):
            if not len(samples):
                continue
            name = f"{row.id}-made"
            write_audio(folder / "audio" / f"{name}.flac", samples, run.model.sample_rate)
            entry = {
                "id": name, "group": name, "lang": row.lang, "speaker": VOICE, "split": "train", "text": row.text,
                "audio": f"audio/{name}.flac",
            }  # fmt: skip
            lines.append(json.dumps(entry) + "\n")
        if not lines:
            raise InputError("the synthesizer says nothing at all: raise saying_steps")
        atomic_write_bytes(manifest, "".join(lines).encode("utf-8"))
    return read_manifest(manifest)


def untranscribed(rows: Sequence[Row], shown: Sequence[Row]) -> list[Row]:
    """Training recordings that keep no text where it is shown of some only, with their text."""
    silent = {row.id for row in shown if row.split == "train" and row.text is None}
    return [row for row in rows if row.id in silent]


def heard_errors(bench: TokenBench, rows: Sequence[Row]) -> Counted:
    """Word errors that the oracle hears in some recordings, against what they are said to say."""
    ear, rate = bench.parts.oracle, bench.parts.units.sample_rate
    drawn = np.random.default_rng([bench.config.seed, len(rows)]).permutation(len(rows))[: bench.config.limit]
    chosen = [rows[place] for place in sorted(drawn.tolist())]
    return ear.errors(
        [one.load(rate) for one in chosen], [one.text or "" for one in chosen], [one.lang for one in chosen]
    )


def check_made_speech(given: Bench) -> Figures:
    """Word errors of recognition from a tenth, from it and made speech, and from all transcripts."""
    config = settings_of(given, MadeSpeechConfig)
    count = max(1, round(config.share * (config.parts.sentences + config.spoken)))
    bench, whole = (TokenBench(given, replace(config, transcribed=one)) for one in (count, 0))
    figures, tenth, every = bench.oracle_figures("d15"), bench.shards, whole.shards_of("all")
    bench.train("start", TEXT, seed=config.seed, steps=config.start_steps, shards=every)
    start = bench.run / "start" / "model"
    speaker = bench.train("speaker", SAYING, seed=config.seed, steps=config.saying_steps, start=start)
    spoken = [*bench.parts.rows, *bench.parts.spoken(config.spoken)]
    asked = untranscribed(spoken, transcribed(spoken, count))
    bench.further = made = made_speech(bench.evaluation(speaker), asked, bench.run / "made")
    figures |= {"d15.made.wer": heard_errors(bench, made).rate, "d15.made.share": len(made) / len(asked)}

    def scored(run: Evaluation) -> Counted:
        return recognized(run, bench.some(run, "units", "text_ids"))

    data = {"tenth": tenth, "supplemented": bench.shards_of("supplemented"), "all": every}
    found = {arm: bench.over_seeds(arm, READING, scored, start=start, shards=shards) for arm, shards in data.items()}
    for arm, parts in found.items():
        figures |= over_seeds(f"d15.{arm}.wer", [one.rate for one in parts])
    return figures | bench.compared("d15.supplemented_over_tenth.wer", found["supplemented"], found["tenth"])


SYSTEM = System(
    name="made_speech",
    title="Made speech beside transcribed speech",
    row="D15",
    sentences=600,
    test_sentences=100,
    settings=MadeSpeechConfig,
    check=check_made_speech,
    differs="a toy corpus of one language; all begin with a model of the texts; the synthesizer learns from the same "
    "tenth, and speaks by one voice, through units and a network that knows all recordings; the recognizer under the "
    "units has read a quarter of the texts",
    measures="word errors of recognition from a tenth of the transcripts, from it with the other texts as a "
    "synthesizer of the same tenth says them, and from all transcripts; how the oracle reads what was made",
    targets=(
        oracle_target("d15"),
        Target("made speech lowers errors", lambda f: f["d15.supplemented.wer"] < f["d15.tenth.wer"]),
        Target("… on these sentences, not by chance", lambda f: f["d15.supplemented_over_tenth.wer.high"] < 0),
    ),
    measured=(
        Measured(
            "unitok systems run made_speech",
            {
                "d15.all.wer": 0.0273,
                "d15.all.wer.interval": 0.0407,
                "d15.made.share": 1.0,
                "d15.made.wer": 0.497,
                "d15.oracle.accuracy": 0.994,
                "d15.supplemented.wer": 0.162,
                "d15.supplemented.wer.interval": 0.0436,
                "d15.supplemented_over_tenth.wer": -0.226,
                "d15.supplemented_over_tenth.wer.high": -0.156,
                "d15.supplemented_over_tenth.wer.low": -0.292,
                "d15.tenth.wer": 0.388,
                "d15.tenth.wer.interval": 0.0848,
            },
            "d5d777e",
        ),
    ),
)
