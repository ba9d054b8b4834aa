"""Answers as they come: text as soon as its characters are known, speech as soon as its samples are.

All chunks of an output, joined, are that output of `Model.run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.listening.long_audio import join_texts
from unitok.requests.framed_answers import FrameStream, slot_options
from unitok.requests.joined_results import PAUSE_SECONDS, join_results
from unitok.requests.prompt_request import PromptRequest
from unitok.requests.runner import RequestRunner
from unitok.results import Result
from unitok_tokenizers.grammar.tasks.registry import output_kinds, task_spec
from unitok_tokenizers.text.base import TextTokenizer
from unitok_vocoder.streaming import UnitStream

UNITS_AT_ONCE = 8
"""Units that are collected before the vocoder is asked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """A piece of an answer."""

    text: str = ""
    """Characters that follow what came before."""
    output: int = 0
    """Which text of the answer they belong to: a chain gives its transcript first, then the translation."""
    audio: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32), repr=False)
    """(S,) float32 samples that follow what came before."""
    sample_rate: int | None = None
    """Hz of `audio`; None without any."""
    codes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64), repr=False)
    """(F, Q) int64 frames that follow what came before, as soon as all their codes are known: of models that have codes
    beside ids. Codebooks that a second pass fills are -1."""
    result: Result | None = None
    """The whole answer, with the last chunk only."""


class TextStream:
    """Ids of one text in, characters out; bytes of an unfinished character wait."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.said = ""

    def push(self, ids: Sequence[int]) -> str:
        """Take the next local ids; returns the characters that they complete."""
        self.ids.extend(ids)
        return self._say(self.tokenizer.decode(self.ids).rstrip("\N{REPLACEMENT CHARACTER}"))

    def finish(self) -> str:
        """The rest, unfinished characters included."""
        return self._say(self.tokenizer.decode(self.ids))

    def _say(self, text: str) -> str:
        if not text.startswith(self.said):
            return ""
        fresh = text[len(self.said) :]
        self.said = text
        return fresh


class _Answer:
    """Sorts generated ids into texts and speech."""

    def __init__(self, model: RequestRunner, request: PromptRequest) -> None:
        self.model, self.vocabulary = model, model.vocabulary
        self.text: TextStream | None = None
        self.texts = 0
        kinds = output_kinds(request.plan.task, request.plan.flags)
        # Speech within text is spoken whole, at the end: what follows may be its continuation.
        speaks = request.speak and model.can_speak("units")
        live = [kind for kind in kinds if kind in ("units", "codes")] == ["units"] and request.plan.task != "ilm"
        live = live and "durations" not in kinds  # they are said behind the units that last so long
        self.speech: UnitStream | None = None
        if live and speaks and model.vocoder is not None:
            self.speech = UnitStream(model.vocoder, voice=request.voice)
        self.waiting: list[int] = []
        slots = slot_options(self.vocabulary, request.plan, None)
        self.frames = None if slots is None else FrameStream(self.vocabulary)
        self.around: list[np.ndarray] = []
        """Codes (F, Q) that stand before and behind a stretch that is said anew: part of the answer."""
        if task_spec(request.plan.task).infills:
            self.around = [span.content for span in request.plan.conditions if span.kind == "codes"]
        self.forced = 0
        """Frames to come that a prompt forced: no part of the answer."""
        for span in request.plan.outputs:  # a beginning to continue is part of the answer
            if span.kind == "text":
                self.text = self.text or TextStream(model.tokenizers.text)
                self.text.ids.extend(span.content.tolist())
            elif span.kind == "units":
                self.waiting.extend(span.content.tolist())

    def begin(self, request: PromptRequest) -> Chunk | None:
        """What an answer that begins with codes says already."""
        if self.frames is not None and self.around:
            return Chunk(codes=self.around[0])
        first = request.plan.outputs[0] if request.plan.outputs else None
        if self.frames is None or first is None or first.kind != "codes":
            return None
        self.forced = request.plan.forced
        return self._told(self.frames.begin(first.content[: request.plan.forced or len(first)]))

    def _told(self, codes: np.ndarray) -> Chunk | None:
        """Frames (F, Q) that are known now, those of the answer."""
        dropped = min(self.forced, len(codes))
        self.forced -= dropped
        return Chunk(codes=codes[dropped:]) if len(codes) > dropped else None

    def push(self, token: int, slots: np.ndarray | None) -> Chunk | None:
        """Take one id and the codes (S,) beside it, if any; returns what it adds, if anything can be told yet."""
        if self.frames is not None and len(codes := self.frames.push(token, slots)):
            return self._told(codes)
        meaning = self.vocabulary.describe(token)
        if meaning.block == "text":
            self.text = self.text or TextStream(self.model.tokenizers.text)
            fresh = self.text.push([meaning.local])
            return Chunk(text=fresh, output=self.texts) if fresh else None
        # Where codes carry the units, those are the first codebook's ids.
        if self.speech is not None and meaning.block in ("units", "codes") and meaning.codebook == 0:
            self.waiting.append(meaning.local)
            return self._speak() if len(self.waiting) >= UNITS_AT_ONCE else None
        return self._end_text()

    def _end_text(self) -> Chunk | None:
        if self.text is None:
            return None
        rest, output = self.text.finish(), self.texts
        self.text, self.texts = None, self.texts + 1
        return Chunk(text=rest, output=output) if rest else None

    def _speak(self) -> Chunk | None:
        assert self.speech is not None
        samples = self.speech.push(self.model.units_in(np.asarray(self.waiting, dtype=np.int64)).tolist())
        self.waiting = []
        return self._audio(samples)

    def _audio(self, samples: np.ndarray) -> Chunk | None:
        assert self.model.vocoder is not None
        return Chunk(audio=samples, sample_rate=self.model.vocoder.sample_rate) if len(samples) else None

    def finish(self, result: Result) -> Iterator[Chunk]:
        """What is left, and the result."""
        if (chunk := self._end_text()) is not None:
            yield chunk
        if self.speech is not None:
            for part in (self._speak(), self._audio(self.speech.finish())):
                if part is not None:
                    yield part
        elif result.audio is not None:
            yield Chunk(audio=result.audio, sample_rate=result.sample_rate)
        if self.frames is not None and self.around and result.outputs:
            yield Chunk(codes=self.around[1])
        yield Chunk(result=result, output=max(self.texts - 1, 0))


def stream_request(model: RequestRunner, request: PromptRequest, *, sampling: Sampling, seed: int) -> Iterator[Chunk]:
    """Answer one request in chunks; InputError as `Model.run`, at the first one.

    Speech that the decoder writes as units comes as its units do. Speech of codes comes as one chunk at the end; their
    frames come as they are written, where a layout has codes beside ids.
    """
    asked, batch = model.token_request(request, sampling=sampling, seed=seed), model.engine.batch()
    number, answer = batch.add(asked), _Answer(model, request)
    if (chunk := answer.begin(request)) is not None:
        yield chunk
    while made := batch.step():
        if (chunk := answer.push(made[0][1], batch.slots_of(number))) is not None:
            yield chunk
    yield from answer.finish(model.result(request, asked, batch.take(number)))


def stream_requests(
    model: RequestRunner, requests: Iterable[PromptRequest], *, sampling: Sampling, seed: int
) -> Iterator[Chunk]:
    """Answer the parts of a long request one after another, as if they were one: the last chunk has the joined result.

    Nothing is asked where there are no parts; the answer is then an empty text.
    """
    results: list[Result] = []
    told: dict[int, str] = {}
    """What every output has said so far."""
    for request in requests:
        begun = set[int]()
        pauses = any(one.audio is not None for one in results)
        for chunk in stream_request(model, request, sampling=sampling, seed=seed):
            if chunk.result is not None:
                results.append(chunk.result)
                continue
            if pauses and len(chunk.audio) and chunk.sample_rate:
                silence = np.zeros(round(PAUSE_SECONDS * chunk.sample_rate), dtype=np.float32)
                yield Chunk(audio=silence, sample_rate=chunk.sample_rate)
                pauses = False
            if chunk.text:
                # The space, or none, that the script has between two texts.
                if chunk.output not in begun and (before := told.get(chunk.output, "").strip()):
                    if not chunk.text.strip():
                        continue
                    gap = len(join_texts(before, chunk.text)) - len(before) - len(chunk.text.strip())
                    chunk = replace(chunk, text=" " * gap + chunk.text.lstrip())
                begun.add(chunk.output)
                told[chunk.output] = told.get(chunk.output, "") + chunk.text
            yield chunk
    yield Chunk(result=join_results(results) if results else Result(text="", texts=("",)))
