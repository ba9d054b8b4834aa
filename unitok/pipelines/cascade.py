"""Cascades: recognizer → translation → synthesizer as one call, every intermediate text and time in the trace.

What the survey calls text-based integration. Errors add up from stage to stage and so do times; `Result.trace` shows
where. The parts are any backends; by default all three are lines of one unitok model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from unitok.inputs import Audio, is_tokens, read_samples
from unitok.pipelines.backends.interfaces import Recognizer, SpokenText, Synthesizer, Voice
from unitok.pipelines.backends.own import UnitokSynthesizer, UnitokTranslator
from unitok.pipelines.tools import Registry, Step, Tool, ToolPlan, Use
from unitok.results import Result, SaidText, Stage
from unitok.task_model import TaskModel
from unitok_tokenizers.errors import InputError

Translate = Callable[[str, str, str], str]
"""(text, source language, target language) → text."""


@dataclass(frozen=True)
class Cascade:
    """Recognize, translate, speak."""

    recognizer: Recognizer
    """Speech to text."""
    translate: Translate
    """Text to text."""
    synthesizer: Synthesizer | None = None
    """Text to speech; None where only text is wanted."""

    @cached_property
    def registry(self) -> Registry:
        """The three stages as tools, for plans of your own."""
        tools = [
            Tool(
                name="recognise",
                description="what is said in a recording",
                inputs={"audio": "audio", "lang": "word"},
                output="text",
                function=self._recognize,
            ),
            Tool(
                name="translate",
                description="a text in another language",
                inputs={"text": "text", "source": "word", "target": "word"},
                output="text",
                function=self.translate,
            ),
        ]
        if self.synthesizer is not None:
            speak = Tool(
                name="speak",
                description="a text as speech",
                inputs={"text": "text", "lang": "word", "voice": "word"},
                output="audio",
                function=self._speak,
            )
            tools.append(speak)
        return Registry(tools)

    def _recognize(self, audio: Audio, lang: str) -> str:
        if is_tokens(audio):
            raise InputError("a cascade begins with sound; units or codes are for front_end='tokens'")
        samples = read_samples(audio, self.recognizer.sample_rate)
        found = self.recognizer.recognize([samples], lang=lang)[0][0]
        return SaidText(found.text, found.finish_reason)

    def _speak(self, text: str, lang: str, voice: Voice) -> SpokenText:
        assert self.synthesizer is not None
        if not text.strip():  # nothing was understood, so nothing is said
            return SpokenText(samples=np.zeros(0, dtype=np.float32), sample_rate=self.recognizer.sample_rate)
        return self.synthesizer.speak([text], lang=lang, voice=voice)[0]

    def translate_text(self, audio: Audio, *, source: str, target: str) -> Result:
        """Speech to text in another language (S2TT)."""
        return self._run(text_steps(source, target), audio)

    def translate_speech(self, audio: Audio, *, source: str, target: str, voice: Voice = None) -> Result:
        """Speech to speech in another language (S2ST)."""
        if self.synthesizer is None:
            raise InputError("this cascade has no synthesizer; give one to translate into speech")
        said = Step(id="speech", tool="speak", inputs={"text": Use("translation"), "lang": target, "voice": voice})
        return self._run([*text_steps(source, target), said], audio)

    def _run(self, steps: list[Step], audio: Audio) -> Result:
        return result_of(ToolPlan(steps, self.registry, {"audio": "audio"}).run({"audio": audio}))


def result_of(stages: tuple[Stage, ...]) -> Result:
    """What a run of tools says: its texts in order, the last speech, and the stages as trace. It was cut where one of
    them was: what follows a cut text is missing something too."""
    texts = tuple(str(stage.output) for stage in stages if isinstance(stage.output, str))
    ended = next((stage.finish_reason for stage in stages if stage.finish_reason != "eos"), "eos")
    result = Result(text=texts[-1] if texts else None, texts=texts, trace=stages, finish_reason=ended)
    for stage in reversed(stages):
        if isinstance(stage.output, SpokenText):
            return replace(result, audio=stage.output.samples, sample_rate=stage.output.sample_rate)
    return result


def text_steps(source: str, target: str) -> list[Step]:
    """Recognition, and the translation of what was recognized."""
    inputs = {"text": Use("transcript"), "source": source, "target": target}
    return [
        Step(id="transcript", tool="recognise", inputs={"audio": Use("audio"), "lang": source}),
        Step(id="translation", tool="translate", inputs=inputs),
    ]


def cascade_of(model: TaskModel, *, recognizer: str | Recognizer = "unitok", synthesizer: str = "unitok") -> Cascade:
    """A cascade around a model: its own lines, or recognizer and synthesizer by name (`backends.choose`).

    A model without a vocoder translates into text only.
    """
    from unitok.pipelines.backends.choose import recognizer_of, synthesizer_of

    mute = synthesizer == "unitok" and model.vocoder is None
    hears = recognizer_of(recognizer, model) if isinstance(recognizer, str) else recognizer
    if synthesizer == "unitok":
        speaks: Synthesizer | None = None if mute else UnitokSynthesizer(model, output=_own_output(model))
    else:
        speaks = synthesizer_of(synthesizer, model)
    return Cascade(hears, UnitokTranslator(model), speaks)


def _own_output(model: TaskModel) -> str:
    """Units where the vocoder speaks them: half the steps of codes."""
    return "units" if model.can_speak("units") else "codes"
