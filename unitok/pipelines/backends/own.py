"""unitok's own model as recognizer, translator and synthesizer of a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok.pipelines.backends.interfaces import SpokenText, Transcript, Voice
from unitok.requests.long_text import answer_text
from unitok.requests.prompt_request import PromptRequest
from unitok.results import Result, SaidText
from unitok.task_model import TaskModel
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span


def n_best_of(model: TaskModel, plan: SequenceSpec, *, beams: int, n_best: int) -> list[Transcript]:
    """Distinct texts that answer a plan with one text output, the most probable first.

    The list is ordered by the sum of log-probabilities, as rescoring wants it: with λ = 0 its first entry wins.
    Hypotheses with the same text (other pieces, same letters) are one: the most probable.
    """
    asked = model.token_request(PromptRequest(plan=plan))
    found = model.engine.search(asked, beams=beams, length_penalty=0.0)
    heard: dict[str, Transcript] = {}
    for one in sorted(found, key=lambda one: -one.logprob):
        outputs = parse(np.concatenate([asked.prompt, one.ids]), model.vocabulary).outputs
        text = model.tokenizers.text.decode(outputs[-1].content.tolist()).strip()
        heard.setdefault(" ".join(text.split()), Transcript(text=text, logprob=one.logprob, tokens=len(one.ids)))
    return list(heard.values())[:n_best]


@dataclass
class UnitokRecognizer:
    """The `<asr>` line of a model, greedy for one hypothesis and by beam search for several."""

    model: TaskModel
    beams: int | None = None
    """Beams of the search; as many as hypotheses are asked for by default."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that the model takes."""
        return self.model.sample_rate

    def recognize(self, audio: Sequence[np.ndarray], *, lang: str, n_best: int = 1) -> list[list[Transcript]]:
        """As `Recognizer.recognize`; long recordings are cut where one hypothesis is asked for."""
        if n_best == 1 and self.beams is None:
            results = [self.model.transcribe(samples, lang=lang) for samples in audio]
            return [[_heard(one)] for one in results]
        plans = [SequenceSpec("asr", lang, conditions=(Span("units", units),)) for units in self.model.units_of(audio)]
        return [n_best_of(self.model, plan, beams=self.beams or n_best, n_best=n_best) for plan in plans]


@dataclass
class UnitokTranslator:
    """The `<mt>` line of a model."""

    model: TaskModel
    beams: int = 1
    """More than 1 searches."""

    def __call__(self, text: str, source: str, target: str) -> str:
        """Text in `source`, of any length → text in `target`; an empty text stays empty."""
        if not text.strip():
            return ""
        plan = SequenceSpec("mt", source, target, conditions=(self.model.text_span(text),))
        found = answer_text(self.model, PromptRequest(plan=plan), text, beams=self.beams)
        return SaidText(found.text or "", found.finish_reason)


@dataclass
class UnitokSynthesizer:
    """The `<tts>` line of a model with its vocoder."""

    model: TaskModel
    output: str = "units"
    """What it speaks through: units or codes."""

    def speak(self, texts: Sequence[str], *, lang: str, voice: Voice = None) -> list[SpokenText]:
        """As `Synthesizer.speak`; a voice is a known speaker or the path of a recording."""
        if self.model.vocoder is None:
            raise InputError("this model has no vocoder; it cannot speak")
        results = [self.model.synthesize(text, lang=lang, voice=voice, output=self.output) for text in texts]
        return [_spoken(result) for result in results]


def _heard(one: Result) -> Transcript:
    return Transcript(
        text=one.text or "", logprob=one.score, tokens=max(len(one.ids), 1), finish_reason=one.finish_reason
    )


def _spoken(one: Result) -> SpokenText:
    if one.audio is None or one.sample_rate is None:
        raise InputError("this model's vocoder cannot speak that output; choose units or codes")
    return SpokenText(samples=one.audio, sample_rate=one.sample_rate, finish_reason=one.finish_reason)
