"""A model's tasks, each by a name of its own: transcribe, translate, synthesize, whatever the grammar has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch

from unitok.generation.long_audio import Transcript
from unitok.generation.sampling import GREEDY, Sampling
from unitok.inputs import Audio, is_tokens, names_a_file, sample_blocks
from unitok.model_directory import read_model
from unitok.placement import Device, DType, resolve_dtype
from unitok.placement import place as place_model
from unitok.requests.joined_results import join_results
from unitok.requests.long_text import READS_TEXT, answer_text, stream_text
from unitok.requests.request import Request, SpokenPiece, Voice
from unitok.requests.runner import RequestRunner
from unitok.requests.stream import Chunk, stream_request, stream_requests
from unitok.results import Result
from unitok_tokenizers.compute import resolve_device
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import Plan, Span
from unitok_tokenizers.grammar.tasks.base import CHAIN, OUT_CODES, OUT_UNITS
from unitok_tokenizers.grammar.tasks.registry import output_kinds

PIECES_AT_ONCE = 8
"""Pieces of a long recording that are transcribed together."""


READING = ("asr", "s2tt", "s2st")
"""Tasks that say again what is said in a recording, piece by piece where it is long."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of every piece of a recording."""

    plan: Callable[..., Plan]
    """Makes a plan, given its `conditions`."""
    before: tuple[Span, ...] = ()
    """Conditions that stand before the piece: a voice prompt."""
    sampling: Sampling = GREEDY
    """How ids are chosen."""
    beams: int = 1
    """More than 1 searches."""
    seed: int = 0
    """Of every draw."""
    front_end: str | None = None
    """How speech is read; see `RequestRunner.heard`."""
    voice: str | np.ndarray | None = None
    """Voice of the unit vocoder."""
    speak: bool = False
    """Turn the units or codes into a waveform."""

    def request(self, span: Span, vectors: torch.Tensor | None) -> Request:
        """The request about one piece."""
        plan = self.plan(conditions=(*self.before, span))
        return Request(plan=plan, voice=self.voice, speak=self.speak, vectors=vectors)


class TaskModel(RequestRunner):
    """Every task of the grammar by a name of its own, read from a model directory."""

    # -- the tasks ----------------------------------------------------------------------------------------------

    def transcribe(self, audio: Audio, *, lang: str, beams: int = 1, front_end: str | None = None) -> Result:
        """What is said in a recording of any length; silence and noise around it change nothing, and alone give "".

        Long recordings are cut at pauses, or overlap where there is none, to pieces of the lengths that were learned.
        Memory does not grow with the length of a file. `front_end` as in `heard`.
        """
        if is_tokens(audio):
            return self.transcribe_batch([audio], lang=lang, beams=beams, front_end=front_end)[0]
        plan = partial(Plan, "asr", lang)
        return self._listen(audio, Asked(plan=plan, beams=beams, front_end=front_end), overlap=True)

    def _listen(self, audio: Audio, asked: Asked, *, overlap: bool = False) -> Result:
        """One answer from the pieces of a recording, each read alone; an empty text where nothing is spoken."""
        plan = asked.plan(conditions=())
        for lang in (plan.source, *(() if plan.target is None else (plan.target,))):
            self.vocabulary.language(lang)  # an unknown language is told even of silence
        rate = self.listening_rate(asked.front_end)
        listener, transcript, results = self.listener(rate, overlap=overlap), Transcript(rate), list[Result]()
        pieces = listener.pieces(sample_blocks(audio, rate))
        while group := list(islice(pieces, PIECES_AT_ONCE)):
            given = self.heard([SpokenPiece(piece.samples) for piece in group], asked.front_end)
            requests = [asked.request(span, vectors) for span, vectors in given]
            answers = self.run(requests, sampling=asked.sampling, beams=asked.beams, seed=asked.seed)
            for piece, result in zip(group, answers):
                transcript.add(piece, result.text or "", begin=listener.second(piece.start))
            results += answers
        if len(results) < 2:
            return results[0] if results else Result(text="", texts=("",))
        joined = replace(join_results(results), trace=tuple(transcript.trace))
        return replace(joined, text=transcript.text, texts=(transcript.text,)) if overlap else joined

    def transcribe_batch(
        self, audio: Sequence[Audio], *, lang: str, beams: int = 1, front_end: str | None = None
    ) -> list[Result]:
        """`transcribe` for several short recordings, which are read whole; an empty text where nothing is spoken."""
        rate = self.listening_rate(front_end) if not all(map(is_tokens, audio)) else 0
        given = [one if is_tokens(one) else SpokenPiece(self.spoken(one, rate)) for one in audio]
        said = [not isinstance(one, SpokenPiece) or len(one.samples) > 0 for one in given]
        heard = self.heard([one for one, there in zip(given, said) if there], front_end)
        plans = [(Plan("asr", lang, conditions=(span,)), vectors) for span, vectors in heard]
        answers = iter(self.run([Request(plan=plan, vectors=vectors) for plan, vectors in plans], beams=beams))
        return [next(answers) if there else Result(text="", texts=("",)) for there in said]

    def translate(
        self, source_input: Audio, *, source: str, target: str, beams: int = 1, front_end: str | None = None
    ) -> Result:
        """Speech (a recording or units), or text (a string that names no file), to text in another language.

        A string that looks like the path of a recording is one, also where there is no such file, which is an error;
        `generate("mt", text=…)` takes whatever it is given as text.
        Texts of any length are read as people write them, sentence by sentence; InputError for a character that the
        model has not learned and for which it knows no other (`unitok.requests.long_text`).

        `front_end` as in `heard`: how speech is read.
        """
        if isinstance(source_input, str) and not names_a_file(source_input):
            return self.generate("mt", source=source, target=target, text=source_input, beams=beams)
        asked = Asked(plan=partial(Plan, "s2tt", source, target), beams=beams, front_end=front_end)
        return self._answer(source_input, asked)

    def _answer(self, audio: Audio, asked: Asked) -> Result:
        """A recording of any length, or tokens as they are."""
        if not is_tokens(audio):
            return self._listen(audio, asked)
        ((span, vectors),) = self.heard([audio], asked.front_end)
        request = asked.request(span, vectors)
        return self.run([request], sampling=asked.sampling, beams=asked.beams, seed=asked.seed)[0]

    def synthesize(
        self,
        text: str,
        *,
        lang: str,
        voice: Voice = None,
        output: str = "codes",
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> Result:
        """Text to speech, through units (`output="units"`) or units and codes (`output="codes"`).

        Texts of any length are read as people write them, numbers and abbreviations in words, sentence by sentence in
        one voice.

        Raises:
            InputError: a voice, language or output that there is not, or a character that cannot be said.
        """
        request = self.synthesis_request(text, lang=lang, voice=voice, output=output)
        return answer_text(self, request, text, sampling=sampling, seed=seed)

    def synthesis_request(self, text: str, *, lang: str, voice: Voice, output: str) -> Request:
        """The request behind `synthesize`, for a text as it is, read at once."""
        if output not in ("units", "codes"):
            raise InputError(f"output is {output!r}; choose units or codes")
        if output == "codes" and "codes" not in self.vocabulary.streams:
            output = "units"
        flag = OUT_CODES if output == "codes" else OUT_UNITS
        prompt = self.voice_prompt(voice) if output == "codes" else ()
        plan = Plan("tts", lang, flags=(flag,), conditions=(*prompt, self.text_span(text)))
        vector = self.voice_vector(voice) if output == "units" else None
        return Request(plan=plan, voice=vector, speak=True)

    def translate_speech(
        self,
        audio: Audio,
        *,
        source: str,
        target: str,
        chain: bool = True,
        voice: Voice = None,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        front_end: str | None = None,
    ) -> Result:
        """Speech to speech in another language, through both texts (`chain=True`) or directly.

        `front_end` as in `heard`: how speech is read.
        """
        plan = partial(Plan, "s2st", source, target, (CHAIN,) if chain else (OUT_UNITS,))
        asked = Asked(plan=plan, sampling=sampling, seed=seed, front_end=front_end, speak=True)
        if voice is None and not is_tokens(audio):
            if not len(self.spoken(audio, self.sample_rate, seconds=0.1)):
                return Result(text="", texts=("",))
            voice = audio
        return self._answer(audio, replace(asked, voice=self.voice_vector(voice)))

    def generate(
        self,
        task: str,
        *,
        source: str,
        target: str | None = None,
        text: str | None = None,
        audio: Audio | None = None,
        voice: Voice = None,
        flags: Sequence[str] = (),
        sampling: Sampling = GREEDY,
        beams: int = 1,
        seed: int = 0,
    ) -> Result:
        """Any line of the grammar. For lm, slm and ilm, text or speech is a beginning to continue, and may be absent.

        Raises:
            InputError: a task, language, flag or input that the grammar or this model does not have.
        """
        if task in READING and audio is not None and text is None and not is_tokens(audio):
            plan = partial(Plan, task, source, target, tuple(flags))
            prompt = self.voice_prompt(voice) if OUT_CODES in flags else ()
            vector = None if OUT_CODES in flags else self.voice_vector(voice)
            asked = Asked(plan=plan, before=prompt, sampling=sampling, beams=beams, seed=seed, voice=vector)
            asked = replace(asked, speak=self.vocoder is not None)
            return self._listen(audio, asked, overlap=task == "asr")
        request = self.request(task, source=source, target=target, text=text, audio=audio, voice=voice, flags=flags)
        if task in READS_TEXT and text is not None and audio is None:
            return answer_text(self, request, text, sampling=sampling, beams=beams, seed=seed)
        return self.run([request], sampling=sampling, beams=beams, seed=seed)[0]

    def stream(
        self,
        task: str,
        *,
        source: str,
        target: str | None = None,
        text: str | None = None,
        audio: Audio | None = None,
        voice: Voice = None,
        flags: Sequence[str] = (),
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> Iterator[Chunk]:
        """`generate` as it comes: chunks of text or audio that joined are its answer; the last has the `result`.

        Raises:
            InputError: as `generate`, when it is called.
        """
        request = self.request(task, source=source, target=target, text=text, audio=audio, voice=voice, flags=flags)
        if task in READS_TEXT and text is not None and audio is None:
            return stream_text(self, request, text, sampling=sampling, seed=seed)
        if task not in READING or audio is None or text is not None or is_tokens(audio):
            return stream_request(self, request, sampling=sampling, seed=seed)
        pieces = self.listener(self.sample_rate, overlap=False).pieces(sample_blocks(audio, self.sample_rate))
        spans = (self.heard([SpokenPiece(piece.samples)])[0][0] for piece in pieces)
        before = request.plan.conditions[:-1]
        requests = (replace(request, plan=replace(request.plan, conditions=(*before, span))) for span in spans)
        return stream_requests(self, requests, sampling=sampling, seed=seed)

    def request(
        self,
        task: str,
        *,
        source: str,
        target: str | None = None,
        text: str | None = None,
        audio: Audio | None = None,
        voice: Voice = None,
        flags: Sequence[str] = (),
    ) -> Request:
        """The request behind `generate` and `stream`; InputError as there."""
        given = [self.text_span(text)] if text is not None else []
        if audio is not None:
            given += self.speech_of([audio])
        continues = task in ("lm", "slm", "ilm")
        if continues and task != "ilm" and any(span.kind != output_kinds(task)[0] for span in given):
            raise InputError(
                f"task {task!r} continues {output_kinds(task)[0]}; give {'text' if task == 'lm' else 'audio'}"
            )
        prompt = self.voice_prompt(voice) if OUT_CODES in flags else ()
        spans = tuple(given)
        plan = Plan(
            task, source, target, tuple(flags), prompt + (() if continues else spans), spans if continues else ()
        )
        if not continues and not given:
            raise InputError(f"task {task!r} needs text or audio to answer")
        vector = None if OUT_CODES in flags else self.voice_vector(voice)
        return Request(plan=plan, voice=vector, speak=self.vocoder is not None)

    # -- files --------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.decoder.embedding.device

    def to(self, device: Device = None, dtype: DType = None) -> Self:
        """Move everything that computes to a device, and the decoder to a type of weights; returns the model itself.

        Args:
            device: "cpu", "cuda", "cuda:1" …; "auto" is the first GPU where there is one. None leaves it where it is.
            dtype: a floating type, or a precision as in `load`; None leaves it as it is.

        Raises:
            InputError: a device that is unknown or not there, or no type of weights.
        """
        there = self.device if device is None else resolve_device(device)
        place_model(self, there, None if dtype is None else resolve_dtype(dtype, there))
        return self

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: Device = None,
        dtype: DType = None,
        int8: bool = False,
        compiled: bool = False,
    ) -> Self:
        """Read a model directory.

        `device` is where it answers: "cpu", "cuda", "cuda:1" …; None and "auto" are the first GPU where there is one,
        and the processor elsewhere. `dtype` is that of the decoder's weights: float32 where None, as they were trained;
        another type; or a precision, "fp32", "bf16", or "auto" for bfloat16 where the device multiplies it natively.

        `int8` rounds the weights of decoding steps to int8, one scale per row: the quickest on a processor, and not
        quite the same model. Prompts are read with the weights of `dtype`; bfloat16 goes well with it.

        `compiled` steps single requests on a processor through one C++ function, at about twice the rate. The first
        process of a machine compiles it, in two seconds, and keeps it in the user's cache folder. Without a C++
        compiler a warning says so, and nothing else changes.

        Raises:
            InputError: no such directory, another format, or parts that do not belong together; a device that is
                unknown or not there; a type that weights are not held in.
        """
        place = resolve_device(device)
        if int8 and place.type != "cpu":
            raise InputError(f"int8 weights speed up decoding on processors only; leave them out on {place}")
        model = cls(**read_model(Path(folder), resolve_dtype(dtype, place)))
        place_model(model, place)
        if int8 or compiled:
            model.hasten(int8=int8, compiled=compiled)
        return model
