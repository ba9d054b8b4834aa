"""A model's tasks: one `answer` to any request, and a name of its own for each that people ask for most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Self

import torch

from unitok.generation.sampling import GREEDY, Sampling
from unitok.inputs import Audio, is_tokens, names_a_file, recording_seconds, refuse_longer, sample_blocks
from unitok.model_directory import read_model
from unitok.placement import Device, DType, resolve_dtype
from unitok.placement import place as place_model
from unitok.requests.answer_steps import (
    NOTHING,
    answer_steps,
    check_languages,
    listens,
    piece_request,
    prompt_steps,
    reads,
    silent,
)
from unitok.requests.long_text import stream_text
from unitok.requests.many import answer_many
from unitok.requests.prompt_request import PromptRequest, SpokenChunk, Voice
from unitok.requests.request import GenerationConfig, Request, check_request
from unitok.requests.runner import RequestRunner
from unitok.requests.steps import carry_out
from unitok.requests.stream import Chunk, stream_request, stream_requests
from unitok.results import Result
from unitok_tokenizers.compute import resolve_device
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, check_spec


class TaskModel(RequestRunner):
    """Every task of the grammar, read from a model directory."""

    # -- any request --------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Result:
        """Answer a request: recordings and texts of any length; silence and noise around speech change nothing.

        Long recordings are cut at pauses, or overlap where there is none, to pieces of the lengths that were learned,
        and memory does not grow with the length of a file; texts are read as people write them, sentence by sentence.

        Raises:
            InputError: a task, language, flag or input that the grammar or this model does not have, a character that
                it has not learned, or an option that would change nothing.
        """
        return carry_out(self, answer_steps(self, request))

    def answer_many(
        self, requests: Iterable[Request | None], *, batch: int = 64
    ) -> Iterator[tuple[int, Result | InputError]]:
        """(place of a request, its answer or its error) of any number of requests, in the order in which they end.

        Requests are read ahead in a thread, `many.WINDOW` at a time, encoded together and answered in batches by
        length; no more than two windows are held. Each answer is that of `answer`, up to the rounding of sums, and
        every request draws with its own seed wherever it stands. One that cannot be answered gives its error and
        leaves the others alone.

        Args:
            requests: taken as they are needed, by another thread. None is no request and keeps its place: what is
                asked of the others, and beside which others, stays what it was.
            batch: most sequences at a time; every beam is one.

        Raises:
            InputError: `batch` is less than 1; when it is called.
        """
        return answer_many(self, requests, whole=self.answer, batch=batch)

    def stream(self, request: Request) -> Iterator[Chunk]:
        """`answer` as it comes: chunks of text or audio that joined are its answer; the last has the `result`.

        A recording without pauses that is longer than what is read at once is cut apart here, and its pieces are told
        one by one, without a trace; `answer` reads such pieces with an overlap and compares them.

        Raises:
            InputError: as `answer`, of what the request says when it is called and of what it gives with the first
                chunk; a search, of which nothing is known before its end.
        """
        check_request(request)
        chunks = self._stream(request)
        return self._with_length(chunks, request) if request.recorded else chunks

    def _with_length(self, chunks: Iterator[Chunk], request: Request) -> Iterator[Chunk]:
        """Chunks of an answer to a recording, the last one's result with its length."""
        assert request.audio is not None
        for chunk in chunks:
            if chunk.result is not None:
                seconds = recording_seconds(request.audio, self.listening_rate(request.front_end))
                chunk = replace(chunk, result=replace(chunk.result, heard_seconds=seconds))
            yield chunk

    def _stream(self, request: Request) -> Iterator[Chunk]:
        """What can be told of a request is told before its first chunk."""
        config = request.config
        if config.beams > 1:
            raise InputError("beams search, and a search has nothing to tell before its end; leave them out")
        if request.front_end == "cascade":
            raise InputError("a cascade answers when all of its parts have: it cannot be streamed; ask `answer`")
        if listens(request):
            return self._stream_pieces(request)
        prompt = self.prompt_request(request)
        if reads(request):
            assert request.text is not None
            return stream_text(self, prompt, request.text, sampling=config.sampling, seed=config.seed)
        return stream_request(self, prompt, sampling=config.sampling, seed=config.seed)

    def _stream_pieces(self, request: Request) -> Iterator[Chunk]:
        """A long recording as it is read; what can be told of a request is told before its first chunk."""
        assert request.audio is not None
        rate, config = self.listening_rate(request.front_end), request.config
        check_languages(self, request)
        refuse_longer(request.audio, rate, config.max_seconds)
        if silent(self, request):
            return iter([Chunk(result=NOTHING)])
        asked = piece_request(self, request)
        check_spec(asked.plan(conditions=asked.voice.before), prompt=True)
        pieces = self.listener(rate, overlap=False).pieces(sample_blocks(request.audio, rate))
        first = list(islice(pieces, 1))  # a file that cannot be read is told now
        heard = (self.heard([SpokenChunk(one.samples)], request.front_end)[0] for one in chain(first, pieces))
        requests = (asked.of(*one) for one in heard)
        return stream_requests(self, requests, sampling=config.sampling, seed=config.seed)

    def prompt_request(self, request: Request) -> PromptRequest:
        """A request in local ids, what is given read at once; InputError as `answer`."""
        return carry_out(self, prompt_steps(self, request))

    # -- the tasks ----------------------------------------------------------------------------------------------

    def transcribe(self, audio: Audio, *, lang: str, beams: int = 1, front_end: str | None = None) -> Result:
        """What is said in a recording, and "" where nothing is. `front_end` as in `Request`."""
        config = GenerationConfig(beams=beams)
        return self.answer(Request(task="asr", source=lang, audio=audio, front_end=front_end, config=config))

    def transcribe_batch(
        self, audio: Sequence[Audio], *, lang: str, beams: int = 1, front_end: str | None = None
    ) -> list[Result]:
        """`transcribe` for several short recordings, which are read whole; an empty text where nothing is spoken."""
        self.vocabulary.language(lang)
        rate = self.listening_rate(front_end) if not all(map(is_tokens, audio)) else 0
        given = [one if is_tokens(one) else SpokenChunk(self.spoken(one, rate)) for one in audio]
        said = [not isinstance(one, SpokenChunk) or len(one.samples) > 0 for one in given]
        heard = self.heard([one for one, there in zip(given, said) if there], front_end)
        plans = [(SequenceSpec("asr", lang, conditions=(span,)), vectors) for span, vectors in heard]
        answers = iter(self.run([PromptRequest(plan=plan, vectors=vectors) for plan, vectors in plans], beams=beams))
        found = [next(answers) if there else NOTHING for there in said]
        seconds = [0.0 if is_tokens(one) else recording_seconds(one, rate) for one in audio]
        return [replace(one, heard_seconds=heard) for one, heard in zip(found, seconds)]

    def translate(
        self, source_input: Audio, *, source: str, target: str, beams: int = 1, front_end: str | None = None
    ) -> Result:
        """Speech (a recording or units), or text (a string that names no file), to text in another language.

        A string that looks like the path of a recording is one, also where there is no such file, which is an error;
        `generate("mt", text=…)` takes whatever it is given as text. `front_end` as in `Request`.
        """
        config = GenerationConfig(beams=beams)
        if isinstance(source_input, str) and not names_a_file(source_input):
            return self.answer(
                Request(task="mt", source=source, target=target, text=source_input, front_end=front_end, config=config)
            )
        return self.answer(
            Request(task="s2tt", source=source, target=target, audio=source_input, front_end=front_end, config=config)
        )

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
        """Text to speech, through units (`output="units"`) or units and codes (`output="codes"`), in one voice.

        Raises:
            InputError: a voice, language or output that there is not, or a character that cannot be said.
        """
        config = GenerationConfig(sampling=sampling, seed=seed)
        return self.answer(Request(task="tts", source=lang, text=text, voice=voice, output=output, config=config))

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

        `voice` is the speaker's own where None; `front_end` as in `Request`.
        """
        config = GenerationConfig(sampling=sampling, seed=seed)
        return self.answer(
            Request(
                task="s2st", source=source, target=target, audio=audio, voice=voice, front_end=front_end, config=config,
                chain=None if front_end == "cascade" and chain else chain,
            )
        )  # fmt: skip

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
        config: GenerationConfig | None = None,
    ) -> Result:
        """Any task of the grammar; for lm, slm and ilm, text or speech is a beginning to continue, and may be absent.

        Raises:
            InputError: as `answer`.
        """
        return self.answer(
            Request(
                task=task, source=source, target=target, text=text, audio=audio, voice=voice, flags=tuple(flags),
                config=config or GenerationConfig(),
            )
        )  # fmt: skip

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
