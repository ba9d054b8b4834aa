"""The bench of systems that write codes of several codebooks: the bench of flat tokens, with a codec on its units.

Every arm lays the same codes in its own way: their likelihoods are of the same thing, and are given by second of audio.

F frames, Q codebooks, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from unitok.generation.sampling import Sampling
from unitok.layouts.base import CodebookLayout
from unitok.model import Model
from unitok.model_parts import LAYOUT
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok.results import Result
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.streams import ids_column
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.run import Evaluation
from unitok_training.evaluation.tokens import choices_of, slot_sums
from unitok_training.fitting.codec import CodecConfig
from unitok_training.fitting.tokenizers import FitConfig
from unitok_training.recipes.base import Shape
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.intervals import Counted
from unitok_training.systems.base.token_bench import QUICK, TokenBench, TokenBenchConfig
from unitok_training.systems.base.token_parts import PartsConfig, TokenParts
from unitok_training.systems.base.token_scores import rows_with, sentences_of
from unitok_vocoder.vocoder import Vocoder

QUICK_CODES = (
    "depth_layers=1", "depth_width=16", "decoder.layers=2",
    *(one for one in QUICK if one not in ("decoder.layers=1", "seeds=2")), "seeds=1",
    "parts.encoder.steps=2", "parts.codec.steps=2", "parts.codec.cardinality=4", "parts.codec.codebooks=2",
)  # fmt: skip
"""`QUICK` with a codec, for which there must be an encoder, and with blocks for frames and for codebooks."""
CODES_ALONE = "vtts"
"""Text to codes alone."""
HEADER = 8
"""Ids of an example beside its text and its codes."""


@dataclass(frozen=True, kw_only=True)
class CodePartsConfig(PartsConfig):
    """What the parts depend on."""

    codec: CodecConfig = field(default_factory=lambda: CodecConfig(steps=600, codebooks=3, cardinality=64))
    """Codec whose first codebook is the units: with its own ones, Q."""


class CodeParts(TokenParts):
    """The parts with a codec; codes sound through its log-mels, by Griffin-Lim."""

    config: CodePartsConfig
    judged: ClassVar[str] = "test_seen"
    """Codes have a voice, and what speaks without a prompt has one of the training."""

    def fit_config(self) -> FitConfig:
        """How tokenizers are fitted."""
        return replace(super().fit_config(), codec=replace(self.config.codec, seed=self.config.seed))

    @property
    def codec(self) -> MelCodec:
        """The codec."""
        found = self.tokenizers.codec
        assert isinstance(found, MelCodec), "it is fitted with the units"
        return found

    @cached_property
    def vocoder(self) -> Vocoder:
        """Log-mels to sound."""
        return Vocoder(None, mel_config=self.codec.mel)

    def resynthesized(self, row: Row) -> np.ndarray:
        """A recording (S,) that went through codes and back."""
        return self.vocoder.from_codes(self.codec.encode(row.load(self.codec.sample_rate)), self.codec)


@dataclass(frozen=True, kw_only=True)
class CodeBenchConfig(TokenBenchConfig):
    """What a check on codes depends on."""

    parts: CodePartsConfig = field(default_factory=CodePartsConfig)
    """Corpus, tokenizers, codec."""
    depth_layers: int = 2
    """Blocks of a small decoder over the codebooks of a frame."""
    depth_width: int = 112
    """Its width; the heads are the decoder's."""
    temperature: float = 0.7
    """At which codes are drawn that are listened to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.depth_layers < self.decoder.layers:
            raise InputError(
                f"depth_layers is {self.depth_layers}: the decoder's {self.decoder.layers} blocks are shared between "
                "frames and codebooks, and both need one"
            )
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}: it must be above 0")

    @property
    def core(self) -> Shape:
        """The decoder over frames, where a small one over codebooks takes as many blocks from it as it has."""
        return replace(self.decoder, layers=self.decoder.layers - self.depth_layers)

    @property
    def depth(self) -> ModelChoice:
        """The small decoder over codebooks, with the large one's state at every step."""
        return ModelChoice(
            layout="depth", depth_layers=self.depth_layers, depth_width=self.depth_width,
            depth_heads=self.decoder.heads, depth_kv_heads=self.decoder.kv_heads, state_added=True,
        )  # fmt: skip


class CodeBench(TokenBench):
    """A run folder in which systems of codes are trained and scored."""

    Parts = CodeParts
    parts: CodeParts

    def pack_of(self, positions: float) -> int:
        """Positions of a pack that holds as many utterances as one of the flat stream does, where a frame has
        `positions` of them: arms then learn from equally many examples."""
        share = self.length(positions) / self.length(len(self.parts.codec.cardinalities))
        return max(1, round(share * self.config.train.pack_size))

    def length(self, positions: float) -> float:
        """Positions of a training utterance with its text, in the mean, where a frame has `positions` of them."""
        rows = rows_with(self.shards, ids_column("codes"))
        frames = float(np.mean([len(self.shards.codes(row, "codes")) for row in rows]))
        texts = float(np.mean([len(self.shards.cell("text_ids", row)) for row in rows]))
        return HEADER + texts + positions * frames


def parameters(model: Model) -> int:
    """Numbers of a decoder and of what predicts codes beside its ids."""
    layout = model.parts.get(LAYOUT)
    parts = [model.decoder, *([layout] if isinstance(layout, CodebookLayout) else [])]
    return sum(value.numel() for part in parts for value in part.parameters())


@torch.inference_mode()
def code_nats(run: Evaluation, key: str = CODES_ALONE, options: ExampleOptions | None = None) -> Counted:
    """Negative log-likelihood of each held-out example's outputs, in nats, out of seconds of audio.

    Ids and the codes beside them count alike: however codes are laid, their joint likelihood is meant.
    """
    pieces, mixture = run.model.tokenizers.text.pieces(), Mixture(tasks={key: 1.0})
    options = replace(options or ExampleOptions(voice_share=0.0), split=run.split, target_row="fixed")
    source = ExampleSource(run.shards, run.model.vocabulary, mixture, seed=run.seed, options=options, pieces=pieces)
    stream = run.stream("codes")
    assert stream is not None and stream.frame_rate is not None, "the codec says its rate"
    counts, sizes = [], []
    for index in range(source.usable()[key]):
        document = source.document(index)
        _, logprobs, _ = next(choices_of(run.model, [document]))
        beside = sum(nats for nats, _ in slot_sums(run.model, [document]).values())
        counts.append(beside - float(logprobs.sum()))
        sizes.append(len(source.plan(index).outputs[-1]) / float(stream.frame_rate))
    return Counted(counts=np.array(counts), sizes=np.array(sizes))


def text_prompts(run: Evaluation, rows: Sequence[int]) -> list[SequenceSpec]:
    """Each row's text, to be said in codes."""
    return [SequenceSpec("vtts", run.lang(row), conditions=(run.model.text_span(run.text(row)),)) for row in rows]


def written(run: Evaluation, specs: Sequence[SequenceSpec], sampling: Sampling, *, speak: bool = True) -> list[Result]:
    """What a model answers to each prompt in codes, and how it sounds."""
    requests = [PromptRequest(plan=spec, speak=speak) for spec in specs]
    return run.model.run(seeded(requests, run.seed), sampling=sampling)


def sounds(results: Sequence[Result]) -> list[np.ndarray]:
    """(S,) of each answer; nothing of one that is empty."""
    return [np.zeros(0, np.float32) if one.audio is None else one.audio for one in results]


def said_errors(bench: CodeBench, run: Evaluation, rows: Sequence[int], temperature: float) -> Counted:
    """Word errors that the oracle hears in what a model says of each row's text in codes."""
    audio = sounds(written(run, text_prompts(run, rows), Sampling(temperature=temperature)))
    found = bench.parts.oracle.errors(audio, [run.text(row) for row in rows], [run.lang(row) for row in rows])
    return found.of(sentences_of(run, rows))
