"""One thing to answer in local ids: its prompt, and how the answer is looked for and spoken.

S samples, F frames, Q codebooks, N vectors, C width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from unitok.frontends.prompt_vectors import placed
from unitok.generation.framed import Given
from unitok.generation.sampling import Sampling
from unitok.generation.token_request import UnguidedPrompt
from unitok.inputs import Audio, check_tokens, check_utf8, is_tokens, read_samples, without_tokenizer
from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import rendered_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.registry import task_spec
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.seeds import check_seed, spread
from unitok_tokenizers.text.base import TextTokenizer

Voice = Audio | None
"""A known speaker's name or a recording; None leaves the choice to the model."""


@dataclass(frozen=True, eq=False)
class SpokenChunk:
    """A piece that a `Listener` has cut: it is read as it is."""

    samples: np.ndarray
    """(S,) float32 at the rate of what reads it."""


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """One thing to generate, in tokens."""

    plan: SequenceSpec
    transcript: str = ""
    """What the forced beginning of its answer says, in characters that the model knows: it stands before every text."""
    voice: str | np.ndarray | None = None
    """Voice of the unit vocoder: a known speaker or a voice vector."""
    speak: bool = False
    """Turn the units or codes into a waveform."""
    vectors: torch.Tensor | None = None
    """(N, C) of the plan's `lat` spans, in their order."""
    seed: int | None = None
    """Of its draws; None takes the one that all requests of a call are given."""
    sampling: Sampling | None = None
    """How its ids are chosen; None takes what all requests of a call are given."""
    limit: int | None = None
    """Most ids of its answer, marks and the end included; None takes what the model has learned of lengths."""
    given: Given | None = None
    """Codes beside the answer's ids that are not the model's to choose, position by position: what others say."""

    def drawn_with(self, seed: int) -> int:
        """Its own seed, or the one that all are given; InputError for what is no seed."""
        return check_seed(seed if self.seed is None else self.seed)


def behind_prompt(outputs: tuple[Span, ...], plan: SequenceSpec) -> tuple[Span, ...]:
    """Outputs without what was forced of the first, as a voice prompt is no part of the answer; a stretch that is said
    anew with what stands around it."""
    if task_spec(plan.task).infills:
        return with_surroundings(outputs, plan)
    if not plan.forced or not outputs:
        return outputs
    first = outputs[0]
    return (Span(first.kind, first.content[plan.forced :], first.stream), *outputs[1:])


def with_surroundings(outputs: tuple[Span, ...], plan: SequenceSpec) -> tuple[Span, ...]:
    """The whole of a recording of which a stretch was said anew: what stands before it, it, what stands behind it."""
    if not outputs:
        return outputs
    before, behind = (span.content for span in plan.conditions if span.kind == "codes")
    (stretch,) = outputs
    return (Span("codes", np.concatenate([before, stretch.content, behind]), stretch.stream),)


def around_cut(codes: Span, cut: tuple[float, float], frame_rate: Fraction) -> tuple[Span, Span]:
    """Codes (F, Q) before a cut in seconds, and behind it: of each a frame at least.

    Raises:
        InputError: it ends behind the recording, or there are fewer than two frames.
    """
    frames, rate = len(codes), float(frame_rate)
    if cut[1] > (frames + 1) / rate or frames < 2:
        raise InputError(f"cut is {cut[0]:g} to {cut[1]:g} s: the recording lasts {frames / rate:.2f} s; give less")
    begin = min(max(round(cut[0] * rate), 1), frames - 1)
    end = min(max(round(cut[1] * rate), begin), frames - 1)
    parts = (codes.content[:begin], codes.content[end:])
    before, behind = (Span("codes", part, codes.stream) for part in parts)
    return before, behind


def check_codes(codes: np.ndarray, stream: StreamInfo) -> np.ndarray:
    """(F, Q) int64 codes of a stream; InputError for another shape, or ids that it does not have."""
    if len(stream.cardinalities) == 1 and codes.ndim == 2 and codes.shape[1] == 1:
        codes = codes[:, 0]
    return check_tokens(codes, stream.cardinalities, stream.name).reshape(len(codes), -1)


def text_span(text: str, tokenizer: TextTokenizer) -> Span:
    """A text condition; InputError where there is nothing in it."""
    check_utf8(text)
    ids = tokenizer.encode(text)
    if not ids:
        raise InputError("the text is empty; give at least one character")
    return Span("text", np.asarray(ids))


def without_conditions(plan: SequenceSpec, kinds: Sequence[str]) -> SequenceSpec:
    """A plan without its conditions of these kinds, or without any where none is named: what guidance compares with.

    InputError where it has none of a kind.
    """
    given = list(dict.fromkeys(span.kind for span in plan.conditions))
    if not given or not set(kinds) <= set(given):
        wanted, there = ", ".join(kinds) or "conditions", ", ".join(given) or "no conditions"
        raise InputError(f"guidance compares with the prompt without its {wanted}; this one has {there}")
    kept = tuple(span for span in plan.conditions if kinds and span.kind not in kinds)
    return replace(plan, conditions=kept)


def unguided_prompt(request: PromptRequest, kinds: Sequence[str], vocabulary: Vocabulary) -> UnguidedPrompt:
    """A request's prompt without conditions; InputError as `without_conditions`."""
    plan = without_conditions(request.plan, kinds)
    ids, heard = rendered_prompt(plan, vocabulary).ids, any(span.kind == "lat" for span in plan.conditions)
    if not heard or request.vectors is None:
        return UnguidedPrompt(ids=ids)
    return UnguidedPrompt(ids=ids, vectors=placed(ids, vocabulary.control("<lat>"), request.vectors))


def codes_heard(audio: Audio | SpokenChunk, codec: AcousticTokenizer | None, stream: StreamInfo | None) -> Span:
    """All of a recording as codes, or codes (F, Q) that were made elsewhere; InputError without a codec for it."""
    if stream is None:
        raise InputError("this model has no codes, in which the task hears and answers")
    if isinstance(audio, np.ndarray) and is_tokens(audio):
        return Span("codes", check_codes(audio, stream))
    if codec is None:
        raise InputError(without_tokenizer(stream))
    found = audio.samples if isinstance(audio, SpokenChunk) else read_samples(audio, codec.sample_rate)
    return Span("codes", codec.encode(found))


def seeded(requests: Sequence[PromptRequest], seed: int) -> list[PromptRequest]:
    """The same requests with a seed each, made of one and of their numbers: several draws of one, or of many apart."""
    return [replace(request, seed=one) for request, one in zip(requests, spread(seed, len(requests)))]
