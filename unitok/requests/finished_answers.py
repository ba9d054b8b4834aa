"""Answers when they stand: what their ids say, and what a second pass finds of the codes that these leave open.

F frames, Q codebooks, K codebooks that the decoder says, D width of a codec's latents, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from unitok.generation.token_request import Generated, TokenRequest
from unitok.requests.framed_answers import check_whole, parsed_answer
from unitok.second_passes.base import CodeSpan, SecondPass, SpanBatch, code_span, greedy
from unitok_tokenizers.acoustic.base import AcousticTokenizer, LatentCodec
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import task_spec
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_vocoder.vocoder import Vocoder


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """What a prompt and its answer say together."""

    outputs: tuple[Span, ...]
    """Every output; the last codes whole, where a second pass finds codes."""
    latents: np.ndarray | None = None
    """(F - G, D) float32 of the last output's frames behind those that were given, where it finds latents."""
    given: int = 0
    """G frames of the last output that were given whole."""

    def latents_behind(self, forced: int, codec: AcousticTokenizer | None) -> np.ndarray | None:
        """(F - `forced`, D) latents of the last codes without a forced beginning; None where nobody finds latents, or
        nobody knows those of frames that were given."""
        if self.latents is None or forced >= self.given:
            return None if self.latents is None else self.latents[forced - self.given :]
        if not isinstance(codec, LatentCodec):
            return None
        begun = codec.latents(self.outputs[-1].content[forced : self.given])
        return np.concatenate([begun.astype(np.float32), self.latents])


def latents_around(
    latents: np.ndarray | None, plan: SequenceSpec, codec: AcousticTokenizer | None
) -> np.ndarray | None:
    """Latents of an answer, and where it is a stretch that is said anew, of the codes before it and behind it too; None
    where nobody knows them."""
    if latents is None or not task_spec(plan.task).infills:
        return latents
    if not isinstance(codec, LatentCodec):
        return None
    before, behind = (codec.latents(span.content) for span in plan.conditions if span.kind == "codes")
    return np.concatenate([before.astype(np.float32), latents, behind.astype(np.float32)])


@torch.inference_mode()
def finish_answers(
    second: SecondPass | None,
    answers: Sequence[tuple[TokenRequest, Generated]],
    vocabulary: Vocabulary,
    device: torch.device,
) -> list[Finished]:
    """What prompts with their answers say; a second pass reads all that lack something in one batch.

    Frames that are whole already, at the head of a span, are its prompt: a voice that the answer continues.
    """
    parsed = [parsed_answer(vocabulary, asked, made.ids, made.frames) for asked, made in answers]
    found = [Finished(outputs=one.outputs) for one in parsed]
    if second is None:
        return found
    places, spans = list[int](), list[CodeSpan]()
    for place, one in enumerate(parsed):
        span = code_span(one, vocabulary, second.pattern)
        if span is None or not (open_frames := (span.codes == ABSENT).any(1)).any():
            continue
        given = int(open_frames.argmax())
        places.append(place)
        spans.append(span.begun(given))
        found[place] = replace(found[place], given=given)
    if not spans:
        return found
    made = second.finish(SpanBatch.of(spans, device=device), greedy).cpu().numpy()
    bounds = np.cumsum([len(one.codes) for one in spans])[:-1]
    for place, part in zip(places, np.split(made, bounds)):
        answer = found[place]
        if second.says_latents:
            found[place] = replace(answer, latents=part)
            continue
        last = answer.outputs[-1]
        codes = np.concatenate([last.content[: answer.given], part])
        found[place] = replace(answer, outputs=(*answer.outputs[:-1], Span(last.kind, codes, last.stream)))
    return found


def speech_from_codes(span: Span, latents: np.ndarray | None, vocoder: Vocoder, codec: AcousticTokenizer) -> np.ndarray:
    """Waveform (S,) of codes, by the latents that stand for them where there are any; InputError for codes that lack
    codebooks."""
    if latents is not None:
        return vocoder.from_latents(latents, codec)
    check_whole(span)
    return vocoder.from_codes(span.content, codec)
