"""The bench of systems that speak with the voice of a prompt: prompts, and whose voice the oracle hears in an answer.

N utterances, F frames, Q codebooks, S samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from unitok.generation.sampling import Sampling
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.fitting.codec import CodecConfig
from unitok_training.recipes.base import Shape
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import (
    QUICK_CODES,
    CodeBench,
    CodeBenchConfig,
    sounds,
    text_prompts,
    written,
)
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Target
from unitok_training.systems.base.token_bench import READS, Build, oracle_target
from unitok_training.systems.base.token_parts import word_errors
from unitok_training.systems.base.token_scores import sentences_of
from unitok_training.systems.base.voice_parts import LearnedParts, VoiceParts, VoicePartsConfig
from unitok_training.trainer.config import TrainConfig

QUICK_VOICES = (
    *QUICK_CODES,
    *("parts.voices=3", "parts.test_sentences=12"),
    *("refiner.layers=1", "refiner.width=16", "refiner.heads=2", "refiner.kv_heads=1"),
)
"""`QUICK_CODES` with voices, of which each says several held-out sentences, and a refiner."""
GROUPS: Mapping[str, str] = {"held_out": "test", "known": "test_seen"}
"""Voices → the split of their sentences, which are held out of either."""
TASKS: Mapping[str, float] = {"vtts": 1.0, "vtts.voice": 1.0}
"""Text to codes, alone or behind a voice."""
PROMPTED = ExampleOptions(voice_share=0.8)
"""How examples are drawn; a voice is left out now and then, as requests may have none."""


@dataclass(frozen=True, kw_only=True)
class VoiceBenchConfig(CodeBenchConfig):
    """What a check on voices depends on."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    """It scores fixed ones, which `dev` is none of."""

    parts: VoicePartsConfig = field(default_factory=VoicePartsConfig)
    """Corpus, tokenizers, codec."""
    decoder: Shape = field(default_factory=lambda: Shape(width=128, layers=4, heads=4, kv_heads=2))
    """The decoder, which says the first codebook."""
    refiner: Shape = field(default_factory=lambda: Shape(width=128, layers=4, heads=4, kv_heads=2))
    """The second pass, which finds the others."""
    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=400, pack_size=1536))
    """Training of an arm; the seed is that of the arm."""
    limit: int = 24
    """Most utterances of held-out voices that are made and heard, and as many of known ones."""


def refined(config: VoiceBenchConfig) -> Build:
    """A decoder of the first codebook with a refiner behind it."""
    shape = config.refiner
    return Build(
        model=ModelChoice(
            layout="first_nar", second_layers=shape.layers, second_width=shape.width, second_heads=shape.heads,
            second_kv_heads=shape.kv_heads,
        )
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A held-out sentence that is to be said."""

    row: int
    """Where it stands."""
    prompt: int
    """Row of another sentence, by the voice in which it is to be said."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the oracle hears in N answers."""

    errors: Counted
    """Words that it reads otherwise."""
    same: Counted
    """Whether the voice that it names is the prompt's."""
    chance: Counted
    """How often that would be so if the prompts were dealt anew: the share of the prompts that have this voice."""

    @staticmethod
    def joined(parts: Sequence[Heard]) -> Heard:
        """Those of several groups, one after another."""
        return Heard(**{name: Counted.joined([getattr(one, name) for one in parts]) for name in HEARD})

    def of(self, said: Sequence[str]) -> Heard:
        """The same, told which sentence each answer is of."""
        return Heard(**{name: getattr(self, name).of(said) for name in HEARD})


HEARD = ("errors", "same", "chance")


def heard(read: Sequence[tuple[str, str]], texts: Sequence[str], voices: Sequence[str]) -> Heard:
    """What was heard, (words, name of the voice) of each answer, against the texts and voices that were asked for."""
    tally, ones = Counter(voices), np.ones(len(read))
    same = [float(name == wanted) for (_, name), wanted in zip(read, voices, strict=True)]
    return Heard(
        errors=word_errors(texts, [said for said, _ in read]),
        same=Counted(counts=np.array(same), sizes=ones),
        chance=Counted(counts=np.array([tally[name] / len(read) for _, name in read]), sizes=ones),
    )


def voice_figures(key: str, parts: Sequence[Mapping[str, Heard]]) -> Figures:
    """Word errors and voices over the seeds, of each group of voices and of all."""
    figures, both = Figures(), [Heard.joined(list(one.values())) for one in parts]
    for group in parts[0]:
        figures |= over_seeds(f"{key}.{group}.voice", [one[group].same.rate for one in parts])
        figures |= over_seeds(f"{key}.{group}.wer", [one[group].errors.rate for one in parts])
    figures |= over_seeds(f"{key}.voice", [one.same.rate for one in both])
    return figures | over_seeds(f"{key}.wer", [one.errors.rate for one in both])


class VoiceBench(CodeBench):
    """A run folder in which systems are trained that speak with the voice of a prompt."""

    Parts = VoiceParts
    parts: VoiceParts
    config: VoiceBenchConfig

    def __init__(self, bench: Bench, config: VoiceBenchConfig) -> None:
        super().__init__(bench, config)
        self.given = bench

    def behind(self, name: str, codec: CodecConfig) -> VoiceBench:
        """The same bench behind another codec, whose first codebook is learned; its runs lie in a folder of a name."""
        found = VoiceBench(Bench(Path(self.run) / name, self.given.config, self.report), self.config)
        found.parts = LearnedParts(self.parts, codec)
        return found

    def asked(self, run: Evaluation, group: str) -> list[Asked]:
        """Held-out sentences of a group of voices, each with another utterance of its voice."""
        split, speaker = GROUPS[group], run.shards.speaker
        every = run.all_rows(split, "codes", "text_ids")
        by_voice: dict[str, list[int]] = {}
        for row in every:
            by_voice.setdefault(str(speaker[row]), []).append(row)
        found = []
        for row in every:
            peers = by_voice[str(speaker[row])]
            prompt = peers[(peers.index(row) + 1) % len(peers)]
            if prompt != row:
                found.append(Asked(row=row, prompt=prompt))
        if not found:
            raise InputError(
                f"no voice of split {split!r} says two held-out sentences, so that none is a prompt: raise "
                "--test-sentences"
            )
        return replace(run, limit=self.config.limit).limited(found)

    def read(self, audio: Sequence[np.ndarray], langs: Sequence[str]) -> list[tuple[str, str]]:
        """(words, name of the voice) that the oracle hears in each (S,); nothing and nobody where there is no sound."""
        found = self.parts.oracle.hear(audio, langs)
        return [("", "") if one is None else (one.text, one.speaker) for one in found]

    def heard(self, run: Evaluation, asked: Sequence[Asked], audio: Sequence[np.ndarray]) -> Heard:
        """What is heard in answers (S,), against what was asked for."""
        rows = [one.row for one in asked]
        read = self.read(audio, [run.lang(row) for row in rows])
        voices = [str(run.shards.speaker[one.prompt]) for one in asked]
        return heard(read, [run.text(row) for row in rows], voices).of(sentences_of(run, rows))

    def spoken(self, run: Evaluation, asked: Sequence[Asked], way: str) -> Heard:
        """What is heard where a model says sentences with prompts that are given in one of `WAYS`."""
        sampling = Sampling(temperature=self.config.temperature)
        return self.heard(run, asked, sounds(written(run, WAYS[way](run, asked), sampling)))

    def arm(self, name: str, tasks: Mapping[str, float], ways: Sequence[str]) -> dict[str, list[dict[str, Heard]]]:
        """A decoder with a refiner, trained with every seed: way of a prompt → of each seed, what of each group of
        voices is heard."""

        def scored(run: Evaluation) -> dict[str, dict[str, Heard]]:
            asked = {group: self.asked(run, group) for group in GROUPS}
            return {way: {group: self.spoken(run, some, way) for group, some in asked.items()} for way in ways}

        found = self.over_seeds(name, tasks, scored, options=PROMPTED, build=refined(self.config))
        return {way: [one[way] for one in found] for way in ways}

    def copied(self, row: str) -> Figures:
        """What the oracle is worth as a judge of words and of voices, in recordings that went through codes and back.

        What it takes for another voice here no system can be blamed for.
        """
        figures, words = Figures(), list[Counted]()
        for group, split in GROUPS.items():
            some = [one for one in self.parts.rows if one.split == split][: self.config.limit]
            read = self.read([self.parts.resynthesized(one) for one in some], [one.lang for one in some])
            words.append(word_errors([one.text or "" for one in some], [said for said, _ in read]))
            right = [name == one.speaker for (_, name), one in zip(read, some)]
            figures[f"{row}.oracle.{group}.voice"] = float(np.mean(right))
            figures[f"{row}.oracle.{group}.wer"] = words[-1].rate
        wrong, of = (sum(float(part.sum()) for part in parts) for parts in zip(*((w.counts, w.sizes) for w in words)))
        return figures | {f"{row}.oracle.accuracy": 1.0 - wrong / of}


# -- prompts ------------------------------------------------------------------------------------------------------


def unprompted(run: Evaluation, asked: Sequence[Asked]) -> list[SequenceSpec]:
    """Each text alone."""
    return text_prompts(run, [one.row for one in asked])


def apart(run: Evaluation, asked: Sequence[Asked]) -> list[SequenceSpec]:
    """The prompt's codes before the text, without what they say."""
    return [
        replace(plan, conditions=(Span("voice", run.codes(one.prompt)), *plan.conditions))
        for one, plan in zip(asked, unprompted(run, asked))
    ]


def continued(run: Evaluation, asked: Sequence[Asked]) -> list[SequenceSpec]:
    """What the prompt says before the text, and its codes as the beginning of the answer: VALL-E's own way."""
    found = []
    for one in asked:
        text = run.model.text_span(f"{run.text(one.prompt)} {run.text(one.row)}")
        codes = Span("codes", run.codes(one.prompt))
        found.append(SequenceSpec("vtts", run.lang(one.row), conditions=(text,), outputs=(codes,), forced=len(codes)))
    return found


WAYS = {"continued": continued, "apart": apart, "unprompted": unprompted}
"""How a prompt is given → the plans of some sentences."""


def voice_targets(row: str, *ways: str) -> tuple[Target, ...]:
    """What is asked of a system that speaks with the voice of a prompt."""
    return (
        oracle_target(row),
        Target(
            "… and knows the voice in it, held-out ones and others",
            lambda f: min(f[f"{row}.oracle.{group}.voice"] for group in GROUPS) >= READS,
        ),
        *(target for way in ways for target in _spoken_targets(row, way)),
    )


SAID: Mapping[str, str] = {"continued": "a prompt with its text", "apart": "a prompt without its text"}
"""How a prompt is given, in words."""


def _spoken_targets(row: str, way: str) -> tuple[Target, ...]:
    said = SAID[way]
    return (
        Target(
            f"behind {said}, nine held-out voices of ten are kept", lambda f: f[f"{row}.{way}.held_out.voice"] >= 0.9
        ),
        Target(f"behind {said}, nine known voices of ten are kept", lambda f: f[f"{row}.{way}.known.voice"] >= 0.9),
        Target(f"behind {said}, a word of ten is wrong at most", lambda f: f[f"{row}.{way}.wer"] <= 0.1),
    )
