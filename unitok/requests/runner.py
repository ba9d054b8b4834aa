"""The parts of a model at work: recordings, texts and voices become conditions, requests become answers.

S samples, N units, F frames, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from unitok.decoder.model import Decoder
from unitok.frontends.base import LatentFrontEnd
from unitok.frontends.prompt_vectors import PromptVectors, placed
from unitok.generation.beam_search import Hypothesis
from unitok.generation.engine import Engine
from unitok.generation.length_limits import Limits, within_positions
from unitok.generation.sampling import GREEDY, Sampling
from unitok.generation.token_request import Generated, TokenRequest
from unitok.inputs import Audio, is_tokens, names_a_file, read_samples, sample_blocks, without_tokenizer
from unitok.layouts.base import CodebookLayout
from unitok.listening.listener import Listener, first_spoken
from unitok.listening.long_audio import Cutting
from unitok.requests.finished_answers import Finished, finish_answers, latents_around, speech_from_codes
from unitok.requests.framed_answers import most_ids, parsed_answer, sizes_within, slot_options
from unitok.requests.merged_units import stream_ids
from unitok.requests.prompt_request import (
    PromptRequest,
    SpokenChunk,
    Voice,
    behind_prompt,
    check_codes,
    codes_heard,
    text_span,
    unguided_prompt,
)
from unitok.requests.voices import PROMPT_SECONDS, voice_prompt, voice_vector, voices_of
from unitok.results import Result
from unitok.second_passes.base import SecondPass
from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.audio.speech_activity import SpeechDetector, Trimming
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.render import rendered_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.progress import advance_aside
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_vocoder.vocoder import Vocoder


@dataclass
class RequestRunner:
    """A decoder with its vocabulary, tokenizers, vocoder and known voices: reads what is given, answers requests."""

    decoder: Decoder
    vocabulary: Vocabulary
    tokenizers: TokenizerSet
    vocoder: Vocoder | None = None
    prompts: dict[str, np.ndarray] = field(default_factory=dict)
    """Known speakers: codes (F, Q) of a piece of their training audio."""
    limits: Limits = field(default_factory=Limits)
    characters: dict[str, str] = field(default_factory=dict)
    """Language → the characters of its training texts; empty for models that did not keep them."""
    info: dict[str, Any] = field(default_factory=dict)
    """What training recorded: tasks, checkpoint hash."""
    latent: LatentFrontEnd | None = None
    """Reads recordings as vectors instead of units."""
    parts: dict[str, nn.Module] = field(default_factory=dict)
    """What else was trained with the decoder, by the names of `unitok.model_parts.PARTS`."""
    _engine: Engine | None = field(default=None, init=False, repr=False)

    @property
    def engine(self) -> Engine:
        """What continues ids, with the decoder that is there now."""
        made = self._engine
        if made is None or made.decoder is not self.decoder or made.layout is not self.layout:
            self.hasten(int8=made is not None and made.int8, compiled=made is not None and made.compiled)
            made = self._engine
        assert made is not None
        return made

    def hasten(self, *, int8: bool, compiled: bool) -> None:
        """Take decoding steps with int8 weights, or single ones in one C++ function; see `Engine`."""
        self._engine = Engine(self.decoder, int8=int8, compiled=compiled, layout=self.layout)

    @property
    def layout(self) -> CodebookLayout | None:
        """What gives the codes beside ids; None where ids say everything."""
        return cast(CodebookLayout | None, self.parts.get("layout"))

    @property
    def second_pass(self) -> SecondPass | None:
        """What finds the codes that the layout leaves open."""
        return cast(SecondPass | None, self.parts.get("second_pass"))

    @property
    def voices(self) -> list[str]:
        """Known speakers."""
        return sorted(set(self.prompts) | set(self.vocoder.voices if self.vocoder else {}))

    def voices_of(self, kind: str) -> list[str]:
        """Known speakers who can speak through units, or codes."""
        return voices_of(self, kind)

    @property
    def languages(self) -> tuple[str, ...]:
        """Known languages."""
        return self.vocabulary.languages

    @property
    def sample_rate(self) -> int:
        """Hz of the audio that the tokenizers take."""
        for tokenizer in self.tokenizers.speech.values():
            return tokenizer.sample_rate
        if self.latent is not None:
            return self.latent.sample_rate
        if self.elsewhere:
            raise InputError(without_tokenizer(next(iter(self.elsewhere.values()))))
        raise InputError("this model has no speech tokenizer: it reads text only")

    @property
    def elsewhere(self) -> dict[str, StreamInfo]:
        """Streams that were made elsewhere: the model knows their ids, and has no tokenizer that makes them."""
        return {name: one for name, one in self.vocabulary.streams.items() if name not in self.tokenizers.streams}

    def made_elsewhere(self, kind: str) -> StreamInfo | None:
        """The main stream of a kind, where no tokenizer here makes it."""
        main = self.vocabulary.main(kind)
        return None if main is None or main.name in self.tokenizers.streams else main

    @property
    def unit_tokenizer(self) -> UnitTokenizer | None:
        """What makes the main stream of units."""
        main = self.vocabulary.main("units")
        return None if main is None else cast(UnitTokenizer | None, self.tokenizers.streams.get(main.name))

    @property
    def codec(self) -> AcousticTokenizer | None:
        """What makes the main stream of codes."""
        main = self.vocabulary.main("codes")
        return None if main is None else cast(AcousticTokenizer | None, self.tokenizers.streams.get(main.name))

    def can_speak(self, kind: str) -> bool:
        """Whether units or codes become a waveform here."""
        if self.vocoder is None or self.made_elsewhere(kind) is not None:
            return False
        return self.vocoder.units is not None if kind == "units" else self.codec is not None

    @property
    def detector(self) -> SpeechDetector | None:
        """What knows speech from other sounds: the recognizer behind the units, where they have one."""
        return self.tokenizers.detector

    def listening_rate(self, front_end: str | None = None) -> int:
        """Hz of the samples that a front end takes; see `heard`."""
        if front_end == "latent" or (front_end is None and self.unit_tokenizer is None):
            return self.latent.sample_rate if self.latent is not None else self.sample_rate
        return self.sample_rate

    def listener(self, rate: int, *, overlap: bool) -> Listener:
        """Cuts a recording into pieces of what is spoken, as long as this model has learned to read."""
        cutting = Cutting.of(self.limits.longest_seconds, overlap=overlap)
        return Listener(rate, self.detector, cutting, whole_seconds=self.limits.whole_seconds)

    def spoken(
        self, audio: Audio, rate: int, *, seconds: float | None = None, trimming: Trimming | None = None
    ) -> np.ndarray:
        """(S,) float32 at `rate` Hz: what is spoken in a recording, of one level; at most the first `seconds` of it."""
        listener = Listener(rate, self.detector, trimming=trimming)
        return first_spoken(listener.spoken(sample_blocks(audio, rate)), rate, seconds)

    def units_of(self, audio: Sequence[Audio | SpokenChunk]) -> list[np.ndarray]:
        """Units (N,) of what is spoken in recordings, of all of one where nothing is, or that were made elsewhere;
        deduplicated and merged where the model's are."""
        stream = self.vocabulary.main("units")
        if stream is None:
            raise InputError("this model has no units; it cannot read speech")
        given = [is_tokens(one) for one in audio]
        tokenizer = self.unit_tokenizer
        if tokenizer is None and not all(given):
            raise InputError(without_tokenizer(stream))
        sounds = [self.worth_reading(one, self.sample_rate) for one, tokens in zip(audio, given) if not tokens]
        encoded = iter([] if tokenizer is None else tokenizer.encode_batch(sounds))
        return stream_ids(audio, encoded, stream, tokenizer)

    def units_in(self, ids: np.ndarray) -> np.ndarray:
        """The deduplicated units (M,) that ids (N,) of the main stream of units stand for, which the vocoder speaks."""
        return ids if self.unit_tokenizer is None else self.unit_tokenizer.expanded(ids)

    def speech_of(self, audio: Sequence[Audio | SpokenChunk]) -> list[Span]:
        """A condition of each recording (its units), or of units (N,) or codes (F, Q) that were made elsewhere."""
        stream = self.vocabulary.main("codes")
        of_codes = [isinstance(one, np.ndarray) and is_tokens(one) and one.ndim == 2 for one in audio]
        if stream is None and any(of_codes):
            raise InputError(f"codes (F, Q) are given, and this model knows {', '.join(self.vocabulary.streams)} alone")
        others = [one for one, codes in zip(audio, of_codes) if not codes]
        units = iter(self.units_of(others) if others else ())
        return [
            Span("codes", check_codes(np.asarray(one), stream))
            if codes and stream is not None
            else Span("units", next(units))
            for one, codes in zip(audio, of_codes)
        ]

    def worth_reading(self, audio: Audio | SpokenChunk, rate: int) -> np.ndarray:
        """(S,) float32 at `rate` Hz: what is spoken in a recording, all of it where nothing is; a chunk as it is."""
        if isinstance(audio, SpokenChunk):
            return audio.samples
        found = self.spoken(audio, rate)
        return found if len(found) else read_samples(audio, rate)

    def heard(
        self, audio: Sequence[Audio | SpokenChunk], front_end: str | None = None
    ) -> list[tuple[Span, torch.Tensor | None]]:
        """(condition, its vectors (N, C) where it is `lat`) of recordings, or of tokens that were made elsewhere.

        `front_end` is "tokens", "latent", or "codes" for all that is heard; None takes tokens where the model can make
        them, or is given them. InputError for another one.
        """
        vectors = self.unit_tokenizer is None and self.latent is not None and not all(map(is_tokens, audio))
        chosen = front_end or ("latent" if vectors else "tokens")
        if chosen == "tokens":
            return [(span, None) for span in self.speech_of(audio)]
        if chosen == "codes":
            return [(codes_heard(one, self.codec, self.vocabulary.main("codes")), None) for one in audio]
        if chosen != "latent":
            raise InputError(f"front_end is {front_end!r}; choose tokens or latent")
        if self.latent is None:
            raise InputError("this model has no latent front end; train one with `unitok train-latent`")
        if any(is_tokens(one) for one in audio):
            raise InputError("units are given to a latent front end; give recordings, or front_end='tokens'")
        samples = [self.worth_reading(one, self.latent.sample_rate) for one in audio]
        return [(Span("lat", np.zeros(len(found))), found) for found in self.latent.encode(samples)]

    def with_rate(self, audio: Audio) -> Audio:
        """Samples alone with the rate that they are at, that of the model's tokenizers; anything else as it is."""
        alone = isinstance(audio, np.ndarray) and audio.dtype.kind == "f"
        return (audio, self.sample_rate) if alone else audio  # type: ignore[return-value]

    def text_span(self, text: str) -> Span:
        """A text condition; InputError where there is nothing in it."""
        return text_span(text, self.tokenizers.text)

    def check_voice(self, voice: Voice) -> None:
        """InputError where a voice is neither a known speaker nor a recording."""
        if isinstance(voice, str) and voice not in self.voices and not names_a_file(voice):
            known = ", ".join(self.voices) or "none"
            raise InputError(f"unknown voice {voice!r}; known: {known}; or give a recording")

    def voice_prompt(self, voice: Voice, seconds: float = PROMPT_SECONDS) -> tuple[Span, ...]:
        """The `<voice>` condition of a known speaker, of what is spoken first in a recording, or of codes; or none."""
        return voice_prompt(self, voice, seconds)

    def voice_vector(self, voice: Voice) -> str | np.ndarray | None:
        """What the unit vocoder takes for the same `voice`."""
        return voice_vector(self, voice)

    # -- generation ---------------------------------------------------------------------------------------------

    def run(
        self,
        requests: Sequence[PromptRequest],
        *,
        sampling: Sampling = GREEDY,
        beams: int = 1,
        seed: int = 0,
        batch: int = 64,
    ) -> list[Result]:
        """Answer requests; each result is the same alone as in a batch, up to the rounding of sums.

        Args:
            requests: plans without outputs (or with a prefix to continue).
            sampling: how ids are chosen where `beams` is 1.
            beams: more than 1 searches instead and fills `nbest`.
            seed: of the draws of every request that has no `seed` of its own: equal requests give equal answers.
            batch: most sequences at a time; every beam is one.
        """
        if beams < 1 or batch < 1:
            raise InputError(f"beams is {beams}, batch {batch}: give 1 or more")
        results: list[Result] = []
        together = max(1, batch // (beams * (1 + sampling.guides)))
        for start in range(0, len(requests), together):
            results += self._run_batch(requests[start : start + together], sampling, beams, seed)
            advance_aside("answer", len(results), len(requests))
        return results

    def token_request(self, request: PromptRequest, *, sampling: Sampling = GREEDY, seed: int = 0) -> TokenRequest:
        """A request in ids: its prompt, what may follow and how long; InputError where there is no room for one."""
        prompt = (rendered := rendered_prompt(request.plan, self.vocabulary)).ids
        limit = within_positions(request.limit or self.token_limit(request.plan), len(prompt), self.decoder.config)
        chosen, outputs = request.sampling or sampling, sizes_within(limit, self.vocabulary, self.limits, request.plan)
        try:
            automaton = Automaton(
                self.vocabulary, prompt, max_new_tokens=limit, output_limits=outputs, aligned=True, banned=chosen.ban
            )
        except InputError as error:  # the grammar's name for it is not the request's
            raise InputError(str(error).replace("max_new_tokens", "max_tokens")) from error
        return TokenRequest(
            prompt=prompt, limit=limit, automaton=automaton, sampling=chosen, seed=request.drawn_with(seed),
            vectors=self.prompt_vectors(prompt, request.vectors), frames=rendered.frames,
            slots=slot_options(self.vocabulary, request.plan, request.given),
            without=unguided_prompt(request, chosen.guidance_drop, self.vocabulary) if chosen.guides else None,
        )  # fmt: skip

    def prompt_vectors(self, prompt: np.ndarray, vectors: torch.Tensor | None) -> PromptVectors | None:
        """What stands in for embedding rows of a prompt; None where nothing does."""
        return None if vectors is None else placed(prompt, self.vocabulary.control("<lat>"), vectors)

    def _run_batch(self, requests: Sequence[PromptRequest], sampling: Sampling, beams: int, seed: int) -> list[Result]:
        asked = [self.token_request(request, sampling=sampling, seed=seed) for request in requests]
        if beams > 1:
            return [self.searched(*one) for one in zip(requests, asked, self.engine.search_all(asked, beams=beams))]
        made = self.engine.run(asked)
        return [self.result(*one) for one in zip(requests, asked, made, self.finished(list(zip(asked, made))))]

    def finished(self, answers: Sequence[tuple[TokenRequest, Generated]]) -> list[Finished]:
        """What answers say; those that are given together share the second pass, where the model has one."""
        return finish_answers(self.second_pass, answers, self.vocabulary, self.decoder.embedding.device)

    def token_limit(self, plan: SequenceSpec) -> int:
        """Most ids that an answer to a plan may take, marks and the end of sequence included."""
        return most_ids(self.vocabulary, self.limits, plan)

    def searched(self, request: PromptRequest, asked: TokenRequest, found: Sequence[Hypothesis]) -> Result:
        """What the hypotheses of a search mean, best first: the answer is the first, `nbest` has all."""
        assert asked.automaton is not None
        best = found[0]
        made = Generated(best.ids, np.asarray([best.logprob], dtype=np.float32), "eos")
        for token in best.ids.tolist():
            asked.automaton.advance(token)  # the search followed copies
        result = self.result(request, asked, made)
        outputs = [parsed_answer(self.vocabulary, asked, one.ids).outputs for one in found]
        texts = [self._texts(one) for one in outputs]
        return replace(result, nbest=tuple((text[-1] if text else "", one.score) for text, one in zip(texts, found)))

    def _texts(self, outputs: Sequence[Span]) -> list[str]:
        return [self.tokenizers.text.decode(span.content.tolist()) for span in outputs if span.kind == "text"]

    def result(
        self, request: PromptRequest, asked: TokenRequest, made: Generated, done: Finished | None = None
    ) -> Result:
        """What generated ids mean.

        The automaton has followed them: it closes what a limit cuts, so that their last id says nothing of it.
        """
        assert asked.automaton is not None
        done = done or self.finished([(asked, made)])[0]
        outputs = behind_prompt(done.outputs, request.plan)
        latents = latents_around(done.latents_behind(request.plan.forced, self.codec), request.plan, self.codec)
        texts, audio = self._texts(outputs), self.speak(outputs, request.voice, latents) if request.speak else None
        rate = self.vocoder.sample_rate if audio is not None and self.vocoder is not None else None
        cut = asked.automaton.cut and made.finish_reason != "loop"
        return Result(
            text=texts[-1] if texts else None, audio=audio, sample_rate=rate, ids=made.ids, score=made.score,
            finish_reason="length" if cut else made.finish_reason, outputs=outputs, texts=tuple(texts), latents=latents,
        )  # fmt: skip

    def speak(
        self, outputs: Sequence[Span], voice: str | np.ndarray | None = None, latents: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Waveform (S,) of the last speech among outputs, or None where there is none or its tokens are the answer.
        Units between texts, of an interleaved answer, are all said, one after another."""
        units = [span for span in outputs if span.kind == "units"]
        if len(units) > 1 and self.vocoder is not None and self.made_elsewhere("units") is None:
            said = [self.vocoder.from_units(self.units_in(span.content), voice=voice) for span in units]
            heard = [one for one in said if one is not None]
            return np.concatenate(heard) if heard else None
        for span in reversed(outputs if self.vocoder is not None else ()):
            assert self.vocoder is not None
            if span.kind == "codes" and self.codec is not None:
                return speech_from_codes(span, latents, self.vocoder, self.codec)
            if span.kind == "units" and self.made_elsewhere("units") is None:
                lasting = self.tokenizers.lasting(outputs)
                return self.vocoder.from_units(self.units_in(span.content), voice=voice, durations=lasting)
        return None
