"""A model's tasks: one `answer` to any request, and a name of its own for each that people ask for most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Self

import numpy as np
import torch

from unitok.generation.long_audio import JoinedTranscript
from unitok.generation.sampling import GREEDY, Sampling
from unitok.inputs import Audio, is_tokens, names_a_file, sample_blocks
from unitok.model_directory import read_model
from unitok.placement import Device, DType, resolve_dtype
from unitok.placement import place as place_model
from unitok.requests.joined_results import join_results
from unitok.requests.long_text import answer_text, stream_text
from unitok.requests.prompt_request import PromptRequest, SpokenChunk, Voice
from unitok.requests.request import GenerationConfig, Request, check_request
from unitok.requests.runner import RequestRunner
from unitok.requests.stream import Chunk, stream_request, stream_requests
from unitok.results import Result
from unitok_tokenizers.compute import resolve_device
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span, check_spec
from unitok_tokenizers.grammar.tasks.base import OUT_CODES

PIECES_AT_ONCE = 8
"""Pieces of a long recording that are transcribed together."""
NOTHING = Result(text="", texts=("",))
"""The answer where nothing is spoken."""


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    """What all pieces of a recording are asked with."""

    plan: Callable[..., SequenceSpec]
    """Makes a plan, given its `conditions`."""
    before: tuple[Span, ...] = ()
    """Conditions that stand before the piece: a voice prompt."""
    voice: str | np.ndarray | None = None
    """Voice of the unit vocoder."""
    limit: int | None = None
    """Most ids of an answer."""

    def of(self, span: Span, vectors: torch.Tensor | None) -> PromptRequest:
        """The request about one piece."""
        plan = self.plan(conditions=(*self.before, span))
        return PromptRequest(plan=plan, voice=self.voice, speak=True, vectors=vectors, limit=self.limit)


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
        check_request(request)
        config, spec = request.config, request.spec
        if request.recorded and request.text is None and spec.long_audio:
            return self._listen(request)
        prompt = self.prompt_request(request)
        if spec.reads and not spec.continues and request.text is not None and request.audio is None:
            return answer_text(
                self, prompt, request.text, sampling=config.sampling, beams=config.beams, seed=config.seed
            )
        return self.run([prompt], sampling=config.sampling, beams=config.beams, seed=config.seed)[0]

    def stream(self, request: Request) -> Iterator[Chunk]:
        """`answer` as it comes: chunks of text or audio that joined are its answer; the last has the `result`.

        Raises:
            InputError: as `answer`, when it is called; a search, of which nothing is known before its end.
        """
        check_request(request)
        config, spec = request.config, request.spec
        if config.beams > 1:
            raise InputError("beams search, and a search has nothing to tell before its end; leave them out")
        if request.front_end == "cascade":
            raise InputError("a cascade answers when all of its parts have: it cannot be streamed; ask `answer`")
        if request.recorded and request.text is None and spec.long_audio:
            return self._stream_pieces(request)
        prompt = self.prompt_request(request)
        if spec.reads and not spec.continues and request.text is not None and request.audio is None:
            return stream_text(self, prompt, request.text, sampling=config.sampling, seed=config.seed)
        return stream_request(self, prompt, sampling=config.sampling, seed=config.seed)

    def _stream_pieces(self, request: Request) -> Iterator[Chunk]:
        """A long recording as it is read; what can be told of a request is told before its first chunk."""
        assert request.audio is not None
        rate, config = self.listening_rate(request.front_end), request.config
        for lang in (request.source, *(() if request.target is None else (request.target,))):
            self.vocabulary.language(lang)
        if self._silent(request):
            return iter([Chunk(result=NOTHING)])
        asked = self._asked(request)
        check_spec(asked.plan(conditions=asked.before), prompt=True)
        pieces = self.listener(rate, overlap=False).pieces(sample_blocks(request.audio, rate))
        first = list(islice(pieces, 1))  # a file that cannot be read is told now
        heard = (self.heard([SpokenChunk(one.samples)], request.front_end)[0] for one in chain(first, pieces))
        requests = (asked.of(*one) for one in heard)
        return stream_requests(self, requests, sampling=config.sampling, seed=config.seed)

    def prompt_request(self, request: Request) -> PromptRequest:
        """A request in local ids, what is given read at once; InputError as `answer`."""
        asked, spec = self._asked(request), request.spec
        text = [] if request.text is None else [self.text_span(request.text)]
        heard = [] if request.audio is None else self.heard([request.audio], request.front_end)
        said, vectors = [span for span, _ in heard], next((one for _, one in heard), None)
        if not spec.continues:
            plan = asked.plan(conditions=(*asked.before, *said, *text))  # a question stands behind what it is about
        else:
            spans = text + said
            kinds = spec.output_kinds(request.all_flags(has_codes=self._has_codes))
            if not spec.interleaved and any(span.kind != kinds[0] for span in spans):
                raise InputError(
                    f"task {request.task!r} continues {kinds[0]}; give {'text' if kinds[0] == 'text' else 'audio'}"
                )
            plan = asked.plan(conditions=asked.before, outputs=tuple(spans))
        return PromptRequest(plan=plan, voice=asked.voice, speak=True, vectors=vectors, limit=asked.limit)

    @property
    def _has_codes(self) -> bool:
        return self.vocabulary.main("codes") is not None

    def _asked(self, request: Request) -> _Prompt:
        """What a request says beside what is given: task, languages, flags, voice."""
        flags, voice = request.all_flags(has_codes=self._has_codes), request.voice
        if voice is None and request.spec.speaks and request.spec.long_audio and request.recorded:
            voice = request.audio  # a translation keeps the speaker's
        coded = OUT_CODES in flags
        return _Prompt(
            plan=partial(SequenceSpec, request.task, request.source, request.target, flags),
            before=self.voice_prompt(voice) if coded else (),
            voice=None if coded else self.voice_vector(voice),
            limit=request.config.max_tokens,
        )

    def _silent(self, request: Request) -> bool:
        """Whether nothing is spoken that a voice could say again; InputError for a voice that there is not."""
        self.check_voice(request.voice)
        assert request.audio is not None
        if not request.spec.speaks:
            return False
        return not len(self.spoken(request.audio, self.listening_rate(request.front_end), seconds=0.1))

    def _listen(self, request: Request) -> Result:
        """One answer from the pieces of a recording, each read alone; an empty text where nothing is spoken."""
        assert request.audio is not None
        for lang in (request.source, *(() if request.target is None else (request.target,))):
            self.vocabulary.language(lang)  # an unknown language is told even of silence
        rate, config = self.listening_rate(request.front_end), request.config
        if self._silent(request):
            return NOTHING
        overlap = request.spec.long_audio == "overlap"
        asked, transcript, results = self._asked(request), JoinedTranscript(rate), list[Result]()
        listener = self.listener(rate, overlap=overlap)
        pieces = listener.pieces(sample_blocks(request.audio, rate))
        while group := list(islice(pieces, PIECES_AT_ONCE)):
            given = self.heard([SpokenChunk(piece.samples) for piece in group], request.front_end)
            requests = [asked.of(span, vectors) for span, vectors in given]
            answers = self.run(requests, sampling=config.sampling, beams=config.beams, seed=config.seed)
            for piece, result in zip(group, answers):
                transcript.add(piece, result.text or "", begin=listener.second(piece.start))
            results += answers
        if len(results) < 2:
            return results[0] if results else NOTHING
        joined = replace(join_results(results), trace=tuple(transcript.trace))
        return replace(joined, text=transcript.text, texts=(transcript.text,)) if overlap else joined

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
        return [next(answers) if there else NOTHING for there in said]

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
