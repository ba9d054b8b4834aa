"""What finishes spans of codes of which a decoder said only the first codebooks.

The decoder reads and writes the inline codebooks of a pattern; those of role "refined" are made for a whole span at
once, when it stands: a network sees the conditions, a prompt and the span, all of it, in both directions. The trainer
asks for `losses`, whoever generates for `finish`.

B spans, N packed items, T condition ids, P prompt frames, F frames, Q codebooks, R losses, D latent width, V codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unitok.decoder.model import DecoderConfig
from unitok.layouts.base import Choose, SlotLosses
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern
from unitok_tokenizers.grammar.render import content
from unitok_tokenizers.grammar.sequence import Parsed, SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.base import opener
from unitok_tokenizers.grammar.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class CodeSpan:
    """One span of codes with what it is made from."""

    conditions: np.ndarray
    """(T,) int64 ids of the vocabulary: what is said, as text or phones; may be empty."""
    prompt: np.ndarray
    """(P, Q) int64 codes that are given whole: a voice, noisy speech, the beginning of the span; may be empty."""
    codes: np.ndarray
    """(F, Q) int64 codes; `ABSENT` where a second pass is to find them."""
    latents: np.ndarray | None = None
    """(F, D) float32 vectors of the codec that all its codebooks together say; for regression to learn from."""

    def begun(self, frames: int) -> CodeSpan:
        """The same speech, its first frames as prompt: what stands before a continuation."""
        assert 0 <= frames <= len(self.codes)
        return replace(
            self,
            prompt=np.concatenate([self.prompt, self.codes[:frames]]),
            codes=self.codes[frames:],
            latents=None if self.latents is None else self.latents[frames:],
        )


@dataclass(frozen=True, kw_only=True)
class SpanBatch:
    """Spans, packed: all their conditions one after another, likewise their prompts and their frames."""

    conditions: Tensor
    """(N,) int64 ids."""
    condition_bounds: Tensor
    """(B + 1,) int32 where each span's conditions start and end."""
    prompt: Tensor
    """(N, Q) int64 codes."""
    prompt_bounds: Tensor
    """(B + 1,) int32."""
    codes: Tensor
    """(N, Q) int64 codes, `ABSENT` where they are to be found, or have no loss."""
    bounds: Tensor
    """(B + 1,) int32."""
    latents: Tensor | None = None
    """(N, D) float32, beside `codes`."""
    stages: Tensor | None = None
    """(B,) int64 which refined codebook each span is trained on, counted from 0; None for all of them."""

    @staticmethod
    def of(
        spans: Sequence[CodeSpan],
        *,
        device: torch.device | str = "cpu",
        stages: Sequence[int] | np.ndarray | None = None,
    ) -> SpanBatch:
        """Spans laid one after another; latents are kept where all spans have them."""
        conditions, condition_bounds = _packed([one.conditions for one in spans], device)
        prompt, prompt_bounds = _packed([one.prompt for one in spans], device)
        codes, bounds = _packed([one.codes for one in spans], device)
        found = [one.latents for one in spans if one.latents is not None]
        latents = None
        if len(found) == len(spans):
            latents = torch.from_numpy(np.concatenate(found).astype(np.float32)).to(device)
        drawn = None if stages is None else torch.as_tensor(np.asarray(stages, np.int64), device=device)
        return SpanBatch(
            conditions=conditions, condition_bounds=condition_bounds, prompt=prompt, prompt_bounds=prompt_bounds,
            codes=codes, bounds=bounds, latents=latents, stages=drawn,
        )  # fmt: skip

    def __len__(self) -> int:
        """Spans."""
        return len(self.bounds) - 1

    def to(self, device: torch.device | str) -> SpanBatch:
        """The same on a device, copied without waiting where the memory is pinned."""
        return replace(self, **{name: one.to(device, non_blocking=True) for name, one in self._tensors()})

    def pin(self) -> SpanBatch:
        """The same in page-locked memory."""
        return replace(self, **{name: one.pin_memory() for name, one in self._tensors()})

    def _tensors(self) -> list[tuple[str, Any]]:
        """Those that are there, by their names."""
        found = ((one.name, getattr(self, one.name)) for one in fields(self))
        return [(name, value) for name, value in found if value is not None]

    @property
    def owner(self) -> Tensor:
        """(N,) int64 span of each frame."""
        return owners(self.bounds, len(self.codes))


def _packed(arrays: Sequence[np.ndarray], device: torch.device | str) -> tuple[Tensor, Tensor]:
    bounds = np.cumsum([0, *(len(one) for one in arrays)]).astype(np.int32)
    return torch.from_numpy(np.concatenate(arrays).astype(np.int64)).to(device), torch.from_numpy(bounds).to(device)


def owners(bounds: Tensor, count: int) -> Tensor:
    """(N,) int64 span of each of the packed items that `bounds` (B + 1,) cut, without waiting for a GPU."""
    numbers = torch.arange(len(bounds) - 1, device=bounds.device)
    return torch.repeat_interleave(numbers, bounds.diff().long(), output_size=count)


@dataclass(frozen=True, kw_only=True)
class SecondPassConfig:
    """Options of every second pass."""

    decoder: DecoderConfig = field(default_factory=lambda: DecoderConfig(vocab_size=0, width=256, layers=6, kv_heads=4))
    """Shape of the network's blocks. How many ids conditions may have is the vocabulary's: `vocab_size` counts not."""


class SecondPass(nn.Module, ABC):
    """Finds what the codebooks that a decoder does not say hold, for whole spans.

    Args:
        options: its `Config`.
        pattern: where codes stand; its slots of role "refined" are this network's, one of every frame each.
        ids: size of the vocabulary, whose ids are the conditions.
        generator: draws the weights; torch's default generator where None.

    Raises:
        InputError: a pattern whose refined codebooks are not its last ones, or that has none.
    """

    name: ClassVar[str]
    """Entry in `registry.SECOND_PASSES`."""
    Config: ClassVar[type[Any]]
    """Dataclass of its options, a `SecondPassConfig`."""
    says_latents: ClassVar[bool] = False
    """Whether it learns and finds the codec's latents, in place of codes."""

    def __init__(
        self, options: Any, pattern: FramePattern, *, ids: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if options.decoder.window is not None:
            raise InputError(f"second pass {self.name!r}: its decoder has a window; leave it out")
        self.options, self.pattern, self.ids = options, pattern, ids
        self.refined = refined_codebooks(pattern)
        self.known = self.refined[0]
        """Codebooks that the decoder says, the first ones."""

    @classmethod
    def read_options(cls, value: Mapping[str, Any]) -> Any:
        """Options by name, as a recipe or JSON has them, `decoder` being what is not as by default; InputError for an
        unknown or a missing one."""
        known = {one.name for one in fields(cls.Config)}
        if unknown := sorted(set(value) - known):
            raise InputError(
                f"second pass {cls.name!r} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        shape = value.get("decoder", {})
        try:
            if not isinstance(shape, DecoderConfig):
                shape = replace(SecondPassConfig().decoder, **shape)
            return cls.Config(**{**value, "decoder": shape})
        except InputError as error:
            raise InputError(f"second pass {cls.name!r}, its decoder (model.second_…): {error}") from error
        except TypeError as error:
            raise InputError(
                f"second pass {cls.name!r}: its options {dict(value)!r} are not whole ({error})"
            ) from error

    def config(self) -> dict[str, Any]:
        """What builds it again, with its pattern; JSON."""
        options = asdict(self.options)
        del options["decoder"]["window"]  # it has none, see `__init__`
        return {
            "second_pass": self.name,
            "ids": self.ids,
            "options": options,
            "pattern": self.pattern.to_json(),
        }

    @property
    @abstractmethod
    def loss_names(self) -> tuple[str, ...]:
        """R names of what `losses` counts."""

    @property
    @abstractmethod
    def loss_terms(self) -> tuple[str, ...]:
        """Which term of an objective each of them is of (R): those of one term are averaged together."""

    @abstractmethod
    def counts(self, spans: Sequence[CodeSpan], stages: np.ndarray) -> dict[str, float]:
        """Term → what `losses` divides by, of spans at these stages (B,), known before anything is computed."""

    @abstractmethod
    def losses(self, batch: SpanBatch) -> SlotLosses:
        """What spans cost whose codes are known: sums (R,) and weights (R,), in the order of `loss_names`."""

    @abstractmethod
    def finish(self, batch: SpanBatch, choose: Choose) -> Tensor:
        """Spans of which the decoder's codebooks are known → all their codes (N, Q), or the codec's latents (N, D).

        Args:
            batch: spans.
            choose: chooses the codes of one slot of the pattern from their logits, a row for every packed frame.
        """


def refined_codebooks(pattern: FramePattern) -> tuple[int, ...]:
    """Codebooks of a second pass; InputError where they are none, or not the last ones."""
    found = tuple(sorted({slot.codebook for slot in pattern.slots if slot.role == "refined"}))
    books = len(pattern.cardinalities)
    if not found or found != tuple(range(books - len(found), books)) or not found[0]:
        raise InputError(
            f"layout {pattern.layout!r} refines codebooks {list(found)} of {books}: a second pass takes the last ones, "
            "behind one that is predicted"
        )
    return found


def refined_slots(pattern: FramePattern) -> tuple[int, ...]:
    """The slot of the pattern that stands for each of `refined_codebooks`: its first, where frames go in groups."""
    named = [(slot.codebook, place) for place, slot in enumerate(pattern.slots) if slot.role == "refined"]
    return tuple(min(place for book, place in named if book == wanted) for wanted in refined_codebooks(pattern))


def greedy(slot: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """`Choose`: the most probable code of each row, as VALL-E's second pass takes."""
    logprobs, codes = logits.float().log_softmax(-1).max(-1)
    return codes, logprobs


# -- from what a sequence says ------------------------------------------------------------------------------------


def code_span(plan: SequenceSpec | Parsed, vocabulary: Vocabulary, pattern: FramePattern) -> CodeSpan | None:
    """The codes that a sequence ends with and what they are made from; None where its last output is no codes.

    Ids of all else that is given or said before are conditions, each span behind its opening mark. Speech in the same
    codes is prompt: voices, conditions of codes, and what was forced of the answer.
    """
    stream = pattern.stream
    if not plan.outputs or plan.outputs[-1].kind != "codes" or not _is_of(plan.outputs[-1], stream, vocabulary):
        return None
    last, before = plan.outputs[-1], (*plan.conditions, *plan.outputs[:-1])
    given = [span for span in before if _is_of(span, stream, vocabulary)]
    said = [span for span in before if span.kind not in ("lat", "state") and not _is_of(span, stream, vocabulary)]
    ids = [np.concatenate([[vocabulary.control(opener(one.kind))], content(one, vocabulary).ids]) for one in said]
    empty = np.zeros((0, len(pattern.cardinalities)), np.int64)
    whole = CodeSpan(
        conditions=np.concatenate([np.zeros(0, np.int64), *ids]),
        prompt=np.concatenate([empty, *(span.content for span in given)]),
        codes=last.content,
    )
    forced = plan.forced if isinstance(plan, SequenceSpec) and len(plan.outputs) == 1 else 0
    return whole.begun(min(forced, len(last)))


def _is_of(span: Span, stream: str, vocabulary: Vocabulary) -> bool:
    """Whether a span holds frames of a stream of codes."""
    main = vocabulary.main(span.stream or "")
    return span.content.ndim == 2 and stream in (span.stream, None if main is None else main.name)


def unfinished(first: np.ndarray, pattern: FramePattern) -> np.ndarray:
    """Codes (F, K) of the K first codebooks → (F, Q), the others `ABSENT`: what `finish` takes."""
    codes = np.full((len(first), len(pattern.cardinalities)), ABSENT, np.int64)
    codes[:, : first.shape[1]] = first
    return codes
