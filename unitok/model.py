"""The model as its users meet it: load it, then transcribe, translate, synthesize.

S samples, N units, F frames, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unitok.beam import beam_search
from unitok.decoder import Decoder
from unitok.generation import Generated, generate
from unitok.inputs import Audio, check_tokens, is_tokens, names_a_file, read_samples, sample_blocks
from unitok.latent import LatentFrontEnd
from unitok.limits import Limits
from unitok.long_audio import Piece, Transcript, cut, is_silent
from unitok.prompt_vectors import PromptVectors, placed
from unitok.results import Result
from unitok.sampling import GREEDY, Sampling
from unitok.stepping import Stepper, steppable
from unitok.streaming import Chunk, stream_request
from unitok_tokenizers.automaton import Automaton
from unitok_tokenizers.bundle import TokenizerSet
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar import Plan, Span, output_kinds, parse, render_prompt
from unitok_tokenizers.units import deduplicate
from unitok_tokenizers.vocabulary import Vocabulary
from unitok_vocoder.vocoder import Vocoder

if TYPE_CHECKING:
    from unitok.cascade import Cascade

Voice = Audio | None
"""A known speaker's name or a recording; None leaves the choice to the model."""

PIECES_AT_ONCE = 8
"""Pieces of a long recording that are transcribed together."""
OUT_UNITS, OUT_CODES, CHAIN = "<out:units>", "<out:codes>", "<chain>"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to generate, in tokens."""

    plan: Plan
    voice: str | np.ndarray | None = None
    """Voice of the unit vocoder: a known speaker or a voice vector."""
    speak: bool = False
    """Turn the units or codes into a waveform."""
    vectors: torch.Tensor | None = None
    """(N, C) of the plan's `lat` spans, in their order."""


def _batch_seed(seed: int, start: int) -> int:
    """Seed of the batch that begins at request `start`: equal requests in two batches are drawn apart."""
    return int(np.random.SeedSequence([seed, start]).generate_state(1)[0]) if start else seed


@dataclass
class Model:
    """A decoder with its vocabulary, tokenizers, vocoder and known voices."""

    decoder: Decoder
    vocabulary: Vocabulary
    tokenizers: TokenizerSet
    vocoder: Vocoder | None = None
    prompts: dict[str, np.ndarray] = field(default_factory=dict)
    """Known speakers: codes (F, Q) of a piece of their training audio."""
    limits: Limits = field(default_factory=Limits)
    info: dict[str, Any] = field(default_factory=dict)
    """What training recorded: tasks, checkpoint hash."""
    latent: LatentFrontEnd | None = None
    """Reads recordings as vectors instead of units."""
    stepper: Stepper | None = None
    """Takes the decoding steps, for instance with int8 weights; made from the decoder at its first use where None."""

    # -- what it knows ------------------------------------------------------------------------------------------

    @property
    def voices(self) -> list[str]:
        """Known speakers."""
        return sorted(set(self.prompts) | set(self.vocoder.voices if self.vocoder else {}))

    @property
    def languages(self) -> tuple[str, ...]:
        """Known languages."""
        return self.vocabulary.languages

    @property
    def sample_rate(self) -> int:
        """Hz of the audio that the tokenizers take."""
        for tokenizer in (self.tokenizers.units, self.tokenizers.codes):
            if tokenizer is not None:
                return tokenizer.sample_rate
        if self.latent is not None:
            return self.latent.sample_rate
        raise InputError("this model has no speech tokenizer: it reads text only")

    # -- reading input ------------------------------------------------------------------------------------------

    def samples(self, audio: Audio) -> np.ndarray:
        """(S,) float32 at `sample_rate` of a recording."""
        return read_samples(audio, self.sample_rate)

    def units_of(self, audio: Sequence[Audio]) -> list[np.ndarray]:
        """Deduplicated units (N,) of recordings, or of units that were made elsewhere."""
        if self.tokenizers.units is None:
            raise InputError("this model has no units; it cannot read speech")
        given = [is_tokens(one) for one in audio]
        sounds = [self.samples(one) for one, tokens in zip(audio, given) if not tokens]
        encoded = iter(self.tokenizers.units.encode_batch(sounds))
        sizes = (self.tokenizers.units.cardinality,)
        frames = [
            check_tokens(np.asarray(one), sizes, "units") if tokens else next(encoded)
            for one, tokens in zip(audio, given)
        ]
        return [deduplicate(one)[0] for one in frames]

    def heard(self, audio: Sequence[Audio], front_end: str | None = None) -> list[tuple[Span, torch.Tensor | None]]:
        """(condition, its vectors (N, C) where it is `lat`) of recordings, or of units that were made elsewhere.

        `front_end` is "tokens" or "latent"; None takes tokens where the model has units. InputError for another one.
        """
        chosen = front_end or ("latent" if self.tokenizers.units is None and self.latent is not None else "tokens")
        if chosen == "tokens":
            return [(Span("units", units), None) for units in self.units_of(audio)]
        if chosen != "latent":
            raise InputError(f"front_end is {front_end!r}; choose tokens or latent")
        if self.latent is None:
            raise InputError("this model has no latent front end; train one with `unitok train-latent`")
        if any(is_tokens(one) for one in audio):
            raise InputError("units are given to a latent front end; give recordings, or front_end='tokens'")
        samples = [read_samples(one, self.latent.sample_rate) for one in audio]
        return [(Span("lat", np.zeros(len(found))), found) for found in self.latent.encode(samples)]

    def text_span(self, text: str) -> Span:
        """A text condition; InputError where there is nothing in it."""
        ids = self.tokenizers.text.encode(text)
        if not ids:
            raise InputError("the text is empty; give at least one character")
        return Span("text", np.asarray(ids))

    def check_voice(self, voice: Voice) -> None:
        """InputError where a voice is neither a known speaker nor a recording."""
        if isinstance(voice, str) and voice not in self.voices and not names_a_file(voice):
            known = ", ".join(self.voices) or "none"
            raise InputError(f"unknown voice {voice!r}; known: {known}; or give a recording")

    def voice_prompt(self, voice: Voice) -> tuple[Span, ...]:
        """The `<voice>` condition of a known speaker or of the first two seconds of a recording, or none."""
        self.check_voice(voice)
        codec = self.tokenizers.codes
        if voice is None or codec is None:
            return ()
        if isinstance(voice, str) and voice in self.voices:
            return (Span("voice", self.prompts[voice]),) if voice in self.prompts else ()
        return (Span("voice", codec.encode(read_samples(voice, codec.sample_rate)[: 2 * codec.sample_rate])),)

    def voice_vector(self, voice: Voice) -> str | np.ndarray | None:
        """What the unit vocoder takes for the same `voice`."""
        self.check_voice(voice)
        if voice is None or self.vocoder is None or self.vocoder.units is None:
            return None
        if isinstance(voice, str) and voice in self.voices:
            return voice if voice in self.vocoder.voices else None
        return self.vocoder.voice_of(read_samples(voice, self.vocoder.sample_rate))

    # -- generation ---------------------------------------------------------------------------------------------

    def run(
        self,
        requests: Sequence[Request],
        *,
        sampling: Sampling = GREEDY,
        beams: int = 1,
        seed: int = 0,
        batch: int = 64,
    ) -> list[Result]:
        """Answer requests; each result is the same alone as in a batch.

        Args:
            requests: plans without outputs (or with a prefix to continue).
            sampling: how ids are chosen where `beams` is 1.
            beams: more than 1 searches instead and fills `nbest`.
            seed: seed of the draws.
            batch: most sequences at a time.
        """
        results: list[Result] = []
        for start in range(0, len(requests), batch):
            results += self._run_batch(requests[start : start + batch], sampling, beams, _batch_seed(seed, start))
        return results

    def steps(self) -> Stepper | None:
        """What takes the decoding steps: made once, and again if the weights have changed since."""
        if self.stepper is not None and self.stepper.fits(self.decoder):
            return self.stepper
        int8 = self.stepper is not None and self.stepper.int8
        self.stepper = Stepper(self.decoder, packed=True, int8=int8) if steppable(self.decoder) else None
        return self.stepper

    def prepare(self, requests: Sequence[Request]) -> tuple[list[np.ndarray], list[Automaton], list[int]]:
        """(prompts, automata, most ids) of requests; InputError where a prompt leaves no room for an answer."""
        prompts = [render_prompt(request.plan, self.vocabulary) for request in requests]
        automata, limits = [], []
        for request, prompt in zip(requests, prompts):
            limit = min(self.token_limit(request.plan), self.decoder.config.max_positions - len(prompt))
            if limit < 8:
                raise InputError(
                    f"the input takes {len(prompt)} of {self.decoder.config.max_positions} positions; shorten it"
                )
            outputs = self.limits.of(request.plan)
            automaton = Automaton(self.vocabulary, prompt, max_new_tokens=limit, output_limits=outputs, aligned=True)
            automata.append(automaton)
            limits.append(limit)
        return prompts, automata, limits

    def vectors_of(
        self, requests: Sequence[Request], prompts: Sequence[np.ndarray]
    ) -> list[PromptVectors | None] | None:
        """What stands in for embedding rows in each prompt; None where nothing does."""
        if all(request.vectors is None for request in requests):
            return None
        hole = self.vocabulary.control("<lat>")
        return [
            None if request.vectors is None else placed(prompt, hole, request.vectors)
            for request, prompt in zip(requests, prompts)
        ]

    def _run_batch(self, requests: Sequence[Request], sampling: Sampling, beams: int, seed: int) -> list[Result]:
        prompts, automata, limits = self.prepare(requests)
        if beams > 1:
            vectors = self.vectors_of(requests, prompts) or [None] * len(requests)
            return [self._search(*one, beams) for one in zip(requests, prompts, automata, vectors)]
        made = generate(
            self.decoder, prompts, automata=automata, sampling=sampling, max_new_tokens=limits, seed=seed,
            stepper=self.steps(), vectors=self.vectors_of(requests, prompts),
        )  # fmt: skip
        return [self.result(*one) for one in zip(requests, prompts, made, automata)]

    def token_limit(self, plan: Plan) -> int:
        """Most ids that an answer to a plan may take, marks and the end of sequence included."""
        widths = {"codes": len(self.tokenizers.codes.cardinalities) if self.tokenizers.codes else 1}
        kinds = output_kinds(plan.task, plan.flags)
        sizes = self.limits.of(plan)
        return sum(size * widths.get(kind, 1) + 3 for kind, size in zip(kinds, sizes)) + 1 if kinds else 256

    def _search(
        self, request: Request, prompt: np.ndarray, automaton: Automaton, vectors: PromptVectors | None, beams: int
    ) -> Result:
        found = beam_search(
            self.decoder, prompt, automaton, beams=beams, n_best=beams, stepper=self.steps(), vectors=vectors
        )
        best = found[0]
        made = Generated(best.ids, np.asarray([best.logprob], dtype=np.float32), "eos")
        for token in best.ids.tolist():
            automaton.advance(token)  # the search followed copies
        result = self.result(request, prompt, made, automaton)
        texts = [self._texts(parse(np.concatenate([prompt, one.ids]), self.vocabulary).outputs) for one in found]
        return replace(result, nbest=tuple((text[-1] if text else "", one.score) for text, one in zip(texts, found)))

    def _texts(self, outputs: Sequence[Span]) -> list[str]:
        return [self.tokenizers.text.decode(span.content.tolist()) for span in outputs if span.kind == "text"]

    def result(self, request: Request, prompt: np.ndarray, made: Generated, automaton: Automaton) -> Result:
        """What generated ids mean.

        `automaton` has followed them: it closes what a limit cuts, so that their last id says nothing of it.
        """
        parsed = parse(np.concatenate([prompt, made.ids]), self.vocabulary)
        texts = self._texts(parsed.outputs)
        audio = self.speak(parsed.outputs, request.voice) if request.speak else None
        rate = self.vocoder.sample_rate if audio is not None and self.vocoder is not None else None
        return Result(
            text=texts[-1] if texts else None,
            audio=audio,
            sample_rate=rate,
            ids=made.ids,
            score=made.score,
            finish_reason="length" if automaton.cut else made.finish_reason,
            outputs=parsed.outputs,
            texts=tuple(texts),
        )

    def speak(self, outputs: Sequence[Span], voice: str | np.ndarray | None = None) -> np.ndarray | None:
        """Waveform (S,) of the last speech among outputs, or None."""
        for span in reversed(outputs):
            if span.kind == "codes" and self.tokenizers.codes is not None and self.vocoder is not None:
                return self.vocoder.from_codes(span.content, self.tokenizers.codes)
            if span.kind == "units" and self.vocoder is not None:
                return self.vocoder.from_units(span.content, voice=voice)
        return None

    # -- the tasks ----------------------------------------------------------------------------------------------

    def transcribe(self, audio: Audio, *, lang: str, beams: int = 1, front_end: str | None = None) -> Result:
        """Speech to its text, of any length: long recordings are cut at pauses, or overlap where there is none.

        Memory does not grow with the length of a file. Silence gives an empty text. `front_end` as in `heard`.
        """
        if is_tokens(audio):
            return self.transcribe_batch([audio], lang=lang, beams=beams, front_end=front_end)[0]
        self.vocabulary.language(lang)  # an unknown language is told even of silence
        transcript, results = Transcript(self.sample_rate), list[Result]()
        pieces = cut(sample_blocks(audio, self.sample_rate), self.sample_rate)
        while group := list(islice(pieces, PIECES_AT_ONCE)):
            heard = self._transcribe_pieces(group, lang, beams, front_end)
            for piece, result in zip(group, heard):
                transcript.add(piece, result.text or "")
            results += heard
        if len(results) == 1:
            return results[0]
        return replace(
            results[0],
            text=transcript.text,
            texts=(transcript.text,),
            trace=tuple(transcript.trace),
            nbest=(),
            ids=np.concatenate([result.ids for result in results]),
            outputs=tuple(span for result in results for span in result.outputs),
            score=sum(result.score for result in results),
            finish_reason=next((one.finish_reason for one in results if one.finish_reason != "eos"), "eos"),
        )

    def _transcribe_pieces(self, pieces: Sequence[Piece], lang: str, beams: int, front_end: str | None) -> list[Result]:
        """A result per piece; silent ones are not worth asking, and a decoder would make words up."""
        heard = [not is_silent(piece.samples, self.sample_rate) for piece in pieces]
        spoken = [(piece.samples, self.sample_rate) for piece, loud in zip(pieces, heard) if loud]
        answers = iter(self.transcribe_batch(spoken, lang=lang, beams=beams, front_end=front_end))
        return [next(answers) if loud else Result(text="", texts=("",)) for loud in heard]

    def transcribe_batch(
        self, audio: Sequence[Audio], *, lang: str, beams: int = 1, front_end: str | None = None
    ) -> list[Result]:
        """`transcribe` for several short recordings."""
        return self.run(
            [
                Request(plan=Plan("asr", lang, conditions=(span,)), vectors=vectors)
                for span, vectors in self.heard(audio, front_end)
            ],
            beams=beams,
        )

    def translate(
        self, source_input: Audio, *, source: str, target: str, beams: int = 1, front_end: str | None = None
    ) -> Result:
        """Speech (a recording or units), or text (a string that names no file), to text in another language.

        `front_end` as in `heard`, or "cascade" (recognise, then translate the text); it says how speech is read.
        """
        if isinstance(source_input, str) and not names_a_file(source_input):
            request = Request(plan=Plan("mt", source, target, conditions=(self.text_span(source_input),)))
        else:
            if front_end == "cascade":
                return self.cascade().translate_text(source_input, source=source, target=target)
            span, vectors = self.heard([source_input], front_end)[0]
            request = Request(plan=Plan("s2tt", source, target, conditions=(span,)), vectors=vectors)
        return self.run([request], beams=beams)[0]

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
        """Text to speech, through units (`output="units"`) or units and codes (`output="codes"`)."""
        request = self.synthesis_request(text, lang=lang, voice=voice, output=output)
        return self.run([request], sampling=sampling, seed=seed)[0]

    def synthesis_request(self, text: str, *, lang: str, voice: Voice, output: str) -> Request:
        """The request behind `synthesize`."""
        if output not in ("units", "codes"):
            raise InputError(f"output is {output!r}; choose units or codes")
        if output == "codes" and self.tokenizers.codes is None:
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
        front_end: str | None = None,
    ) -> Result:
        """Speech to speech in another language, through both texts (`chain=True`) or directly.

        `front_end` as in `heard`, or "cascade": three requests, whose texts and times are the result's trace.
        """
        if front_end == "cascade":
            return self.cascade().translate_speech(audio, source=source, target=target, voice=voice)
        flags = (CHAIN,) if chain else (OUT_UNITS,)
        span, vectors = self.heard([audio], front_end)[0]
        plan = Plan("s2st", source, target, flags=flags, conditions=(span,))
        own = None if is_tokens(audio) else audio
        vector = self.voice_vector(voice if voice is not None else own)
        return self.run([Request(plan=plan, voice=vector, speak=True, vectors=vectors)], sampling=sampling)[0]

    def cascade(self, *, recogniser: str = "unitok", synthesiser: str = "unitok") -> Cascade:
        """This model's lines one after another, or other backends by name around its translation."""
        from unitok.cascade import cascade_of

        return cascade_of(self, recogniser=recogniser, synthesiser=synthesiser)

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
        request = self.request(task, source=source, target=target, text=text, audio=audio, voice=voice, flags=flags)
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
        return stream_request(self, request, sampling=sampling, seed=seed)

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
            given.append(Span("units", self.units_of([audio])[0]))
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

    def save(self, folder: Path | str) -> None:
        """Write the model directory atomically."""
        from unitok.model_files import write_model

        write_model(self, folder)

    @staticmethod
    def load(folder: Path | str, *, dtype: torch.dtype = torch.float32, int8: bool = False) -> Model:
        """Read a model directory.

        `int8` rounds the weights of decoding steps to int8, one scale per row: the quickest on a processor, and not
        quite the same model. Prompts are read with the weights of `dtype`; bfloat16 goes well with it.

        Raises:
            InputError: no such directory, another format, or parts that do not belong together.
        """
        from unitok.model_files import read_model

        model = read_model(Path(folder), dtype)
        if int8:
            model.stepper = Stepper(model.decoder, int8=True)
        return model
