"""From a request to its answer, step by step: what is given is read, asked about piece by piece, and joined.

Recordings and texts of any length; silence and noise around speech change nothing.

S samples.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from unitok.inputs import check_utf8, is_tokens, read_samples, recording_seconds, refuse_longer, sample_blocks
from unitok.listening.long_audio import JoinedTranscript, join_texts
from unitok.requests.joined_results import join_results
from unitok.requests.long_text import text_pieces, text_steps
from unitok.requests.prompt_request import PromptRequest, SpokenChunk, around_cut
from unitok.requests.request import Request, check_request
from unitok.requests.runner import RequestRunner
from unitok.requests.steps import AnswerSteps, Steps, encode_speech, run_prompts
from unitok.results import Result
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span

PIECES_AT_ONCE = 8
"""Pieces of a long recording that are transcribed together."""
NOTHING = Result(text="", texts=("",))
"""The answer where nothing is spoken."""


@dataclass(frozen=True, kw_only=True)
class RequestVoice:
    """The voice of an answer, as its codes and its units take it."""

    before: tuple[Span, ...] = ()
    """Conditions that stand before everything else: a voice prompt."""
    vocoder: str | np.ndarray | None = None
    """Voice of the unit vocoder."""
    begins: tuple[Span, ...] = ()
    """Codes that the answer begins with: a voice prompt that it continues."""
    transcript: str = ""
    """What they say, as the model reads it."""


Voices = dict[tuple[str | Path, bool, str | None, str], RequestVoice]
"""Voices that were read already, by (name or path, whether speech goes through codes, what is said in it, in which
language): many requests share one."""
MOST_VOICES = 64
"""Voices that are kept: the first that was read goes where there are more."""
LONGEST_BEGINNING = 15.0
"""Seconds of the longest recording that an answer continues."""


@dataclass(frozen=True, kw_only=True)
class PieceRequest:
    """What all pieces of a request are asked with."""

    plan: Callable[..., SequenceSpec]
    """Makes a plan, given its `conditions`."""
    voice: RequestVoice
    limit: int | None = None
    """Most ids of an answer."""

    def of(self, span: Span, vectors: torch.Tensor | None) -> PromptRequest:
        """The request about one piece."""
        plan = self.plan(conditions=(*self.voice.before, span))
        return PromptRequest(plan=plan, voice=self.voice.vocoder, speak=True, vectors=vectors, limit=self.limit)


def has_codes(model: RequestRunner) -> bool:
    """Whether a model knows codes."""
    return model.vocabulary.main("codes") is not None


def listens(request: Request) -> bool:
    """Whether a recording of any length is answered piece by piece."""
    return request.recorded and request.text is None and bool(request.spec.long_audio)


def reads(request: Request) -> bool:
    """Whether a text of any length is answered piece by piece."""
    return request.spec.reads and not request.spec.continues and request.text is not None and request.audio is None


def piece_request(model: RequestRunner, request: Request, voices: Voices | None = None) -> PieceRequest:
    """What a request says beside what is given: task, languages, flags, voice."""
    flags, voice = request.all_flags(has_codes=has_codes(model)), request.voice
    if voice is None and request.spec.speaks and request.spec.long_audio and request.recorded:
        voice = request.audio  # a translation keeps the speaker's
    coded, said = "codes" in request.spec.output_kinds(flags), request.voice_text
    key = (voice, coded, said, request.source) if isinstance(voice, str | Path) and voice is request.voice else None
    known = None if voices is None or key is None else voices.get(key)
    if known is None and said is not None:
        known = _continued(model, request, said)
    if known is None:
        known = RequestVoice(
            before=model.voice_prompt(voice) if coded else (), vocoder=None if coded else model.voice_vector(voice)
        )
    if request.voice is not None and known.vocoder is None and not (known.before or known.begins):
        raise InputError(
            "voice changes nothing here: nothing of this model speaks its units in a voice; leave it out, or name a "
            "place for audio where the model has a vocoder for them"
        )
    if request.spec.voiced and not known.before:
        raise InputError(f"there are no codes of voice {voice!r}, and task {request.task} needs them; give a recording")
    if voices is not None and key is not None:
        voices[key] = known
        if len(voices) > MOST_VOICES:
            del voices[next(iter(voices))]
    plan = partial(SequenceSpec, request.task, request.source, request.target, flags)
    return PieceRequest(plan=plan, voice=known, limit=request.config.max_tokens)


def _continued(model: RequestRunner, request: Request, said: str) -> RequestVoice:
    """A voice that the answer continues, and what is said in it.

    Raises:
        InputError: a known speaker, whose words nobody knows; too long a recording; a text that cannot be said.
    """
    voice = request.voice
    model.check_voice(voice)
    if isinstance(voice, str) and voice in model.voices:
        raise InputError(f"voice_text says what is said in a recording, and {voice!r} is a known speaker: leave it out")
    if voice is not None and not is_tokens(voice):
        check_utf8(said)
        seconds = recording_seconds(voice, model.sample_rate)
        if seconds > LONGEST_BEGINNING:
            raise InputError(
                f"voice lasts {seconds:.1f} s: an answer continues {LONGEST_BEGINNING:g} s at most; cut the recording, "
                "and voice_text with it"
            )
    parts = text_pieces(model, said, request.source)
    begins = tuple(Span("codes", one.content) for one in model.voice_prompt(voice, seconds=LONGEST_BEGINNING))
    return RequestVoice(begins=begins, transcript=reduce(join_texts, (part.text for part in parts)))


def check_languages(model: RequestRunner, request: Request) -> None:
    """InputError for a language that the model does not know, also where nothing is spoken."""
    for lang in (request.source, *(() if request.target is None else (request.target,))):
        model.vocabulary.language(lang)


def silent(model: RequestRunner, request: Request) -> bool:
    """Whether nothing is spoken that a voice could say again; InputError for a voice that there is not."""
    model.check_voice(request.voice)
    assert request.audio is not None
    if not request.spec.speaks:
        return False
    return not len(model.spoken(request.audio, model.listening_rate(request.front_end), seconds=0.1))


def answer_steps(model: RequestRunner, request: Request, voices: Voices | None = None) -> AnswerSteps:
    """The steps to the answer of any request that is no cascade.

    Raises:
        InputError: a task, language, flag or input that the grammar or this model does not have, a character that it
            has not learned, or an option that would change nothing.
    """
    check_request(request)
    if listens(request):
        result = yield from _listen(model, request, voices)
    else:
        prompt = yield from prompt_steps(model, request, voices)
        if reads(request):
            assert request.text is not None
            result = yield from text_steps(model, prompt, request.text, request.config)
        else:
            (result,) = yield from run_prompts([prompt], request.config)
    if not request.recorded:
        return result
    assert request.audio is not None
    rate = model.listening_rate(request.front_end)
    return replace(result, heard_seconds=recording_seconds(request.audio, rate))


def prompt_steps(model: RequestRunner, request: Request, voices: Voices | None = None) -> Steps[PromptRequest]:
    """The steps to a request in local ids, what is given read at once; InputError as `answer_steps`."""
    asked, spec = piece_request(model, request, voices), request.spec
    text = [] if request.text is None else [model.text_span(_as_said(model, request))]
    heard = yield from encode_speech(_given(model, request), "codes" if spec.reads_codes else request.front_end)
    said, vectors = [span for span, _ in heard], next((one for _, one in heard), None)
    before = asked.voice.before
    if spec.reads_codes:
        return replace(_remade(model, request, said, (*before, *text)), limit=asked.limit)
    if not spec.continues:
        begins = asked.voice.begins
        plan = asked.plan(  # a question stands behind what it is about
            conditions=(*before, *said, *text), outputs=begins, forced=sum(len(one) for one in begins)
        )
    else:
        spans = text + said
        kinds = spec.output_kinds(request.all_flags(has_codes=has_codes(model)))
        if not spec.interleaved and any(span.kind != kinds[0] for span in spans):
            raise InputError(
                f"task {request.task!r} continues {kinds[0]}; give {'text' if kinds[0] == 'text' else 'audio'}"
            )
        plan = asked.plan(conditions=before, outputs=tuple(spans))
    return PromptRequest(
        plan=plan, voice=asked.voice.vocoder, speak=True, vectors=vectors, limit=asked.limit,
        transcript=asked.voice.transcript,
    )  # fmt: skip


def _as_said(model: RequestRunner, request: Request) -> str:
    """A request's text, its accents composed as rows have them; of one that says what is in a recording, in characters
    that the model has learned."""
    assert request.text is not None
    if not request.spec.reads_codes:
        return unicodedata.normalize("NFC", request.text)
    parts = text_pieces(model, request.text, request.source)
    return reduce(join_texts, (part.text for part in parts))


def _remade(model: RequestRunner, request: Request, said: Sequence[Span], others: Sequence[Span]) -> PromptRequest:
    """The request to say codes again: what is given, in the order of the task's row."""
    spec, stream = request.spec, model.vocabulary.main("codes")
    if request.cut is not None:
        rate = None if stream is None else stream.frame_rate
        if rate is None:
            raise InputError("the model's codes have no frame rate, by which a cut is measured")
        (whole,) = said
        said = around_cut(whole, request.cut, rate)
    given = sorted((*others, *said), key=lambda span: spec.conditions.index(span.kind))
    flags = request.all_flags(has_codes=True)
    return PromptRequest(
        plan=SequenceSpec(request.task, request.source, None, flags, conditions=tuple(given)), speak=True
    )


def _given(model: RequestRunner, request: Request) -> list[SpokenChunk | np.ndarray]:
    """What is given as speech: a recording read whole, tokens as they are, or nothing."""
    audio = request.audio
    if audio is None:
        return []
    if isinstance(audio, np.ndarray) and is_tokens(audio):
        return [audio]
    if request.spec.reads_codes:
        rate, audio = model.codec.sample_rate if model.codec is not None else model.sample_rate, model.with_rate(audio)
        refuse_longer(audio, rate, request.config.max_seconds)
        return [SpokenChunk(read_samples(audio, rate))]  # silence and noise too: as long as it was
    rate = model.listening_rate(request.front_end)
    refuse_longer(audio, rate, request.config.max_seconds)
    return [SpokenChunk(model.worth_reading(audio, rate))]


def _listen(model: RequestRunner, request: Request, voices: Voices | None) -> AnswerSteps:
    """One answer from the pieces of a recording, each read alone; an empty text where nothing is spoken."""
    assert request.audio is not None
    check_languages(model, request)
    rate, config = model.listening_rate(request.front_end), request.config
    refuse_longer(request.audio, rate, config.max_seconds)
    if silent(model, request):
        return NOTHING
    overlap = request.spec.long_audio == "overlap"
    asked, transcript, results = piece_request(model, request, voices), JoinedTranscript(rate), list[Result]()
    listener = model.listener(rate, overlap=overlap)
    pieces = listener.pieces(sample_blocks(request.audio, rate))
    while group := list(islice(pieces, PIECES_AT_ONCE)):
        given = yield from encode_speech([SpokenChunk(piece.samples) for piece in group], request.front_end)
        # Only their lengths are needed from here on: many recordings wait for their answers together.
        group = [replace(piece, samples=np.broadcast_to(np.float32(0), len(piece.samples))) for piece in group]
        answers = yield from run_prompts([asked.of(span, vectors) for span, vectors in given], config)
        for piece, result in zip(group, answers):
            transcript.add(piece, result.text or "", begin=listener.second(piece.start))
        results += answers
    if len(results) < 2:
        return results[0] if results else NOTHING
    joined = replace(join_results(results), trace=tuple(transcript.trace))
    return replace(joined, text=transcript.text, texts=(transcript.text,)) if overlap else joined
