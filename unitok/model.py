"""The model as its users meet it: its tasks, the same as a cascade of its parts, and its directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace as with_fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from unitok.inputs import Audio, recording_seconds, refuse_longer
from unitok.model_directory import with_vocoder, write_model
from unitok.new_voice import NewVoice, check_new_name, new_voice
from unitok.pipelines.backends.interfaces import Recognizer
from unitok.pipelines.cascade import Cascade, cascade_of
from unitok.requests.request import Request, check_request
from unitok.results import Result
from unitok.task_model import TaskModel
from unitok_vocoder.vocoder import Vocoder


class Model(TaskModel):
    """Every task of the grammar, by one decoder or as a cascade, and the model directory."""

    def answer(self, request: Request) -> Result:
        """As `TaskModel.answer`; a `front_end` "cascade" makes several requests of one, whose texts and times are the
        result's trace: it recognizes, translates the text and, for s2st, says it."""
        if request.front_end != "cascade":
            return super().answer(request)
        check_request(request)
        assert request.target is not None and request.audio is not None
        if request.synthesizer == "unitok":
            self.check_voice(request.voice)
        for lang in (request.source, request.target):
            self.vocabulary.language(lang)
        refuse_longer(request.audio, self.sample_rate, request.config.max_seconds)
        cascade = self.cascade(recognizer=request.recognizer, synthesizer=request.synthesizer)
        languages = {"source": request.source, "target": request.target}
        if request.spec.speaks:
            result = cascade.translate_speech(request.audio, voice=request.voice, **languages)
        else:
            result = cascade.translate_text(request.audio, **languages)
        return with_fields(result, heard_seconds=recording_seconds(request.audio, self.sample_rate))

    def cascade(self, *, recognizer: str = "unitok", synthesizer: str = "unitok") -> Cascade:
        """This model's tasks one after another, or other backends by name around its translation. A recognizer that is
        read from a folder is kept for the next call."""
        from unitok.pipelines.backends.choose import recognizer_of

        key = (recognizer, str(self.device))
        if key not in self._recognizers and os.path.isdir(recognizer):
            self._recognizers[key] = recognizer_of(recognizer, self)
        hears = self._recognizers.get(key, recognizer)
        return cascade_of(self, recognizer=hears, synthesizer=synthesizer)

    @cached_property
    def _recognizers(self) -> dict[tuple[str, str], Recognizer]:
        """(folder, device) → what was read of it."""
        return {}

    @property
    def fallback(self) -> str:
        """What to say where Griffin-Lim speaks for this model, for want of a trained vocoder; empty elsewhere."""
        return "" if self.vocoder is None else self.vocoder.fallback(self.codec)

    def with_vocoder(self, folder: Path | str) -> Self:
        """This model, speaking with the networks of a vocoder's folder (`unitok train-vocoder`) where it has any.

        Raises:
            InputError: no vocoder, or one that speaks tokens of another tokenizer.
        """
        vocoder = with_vocoder(self.vocoder, Vocoder.load(folder).to(self.device), self.tokenizers)
        return self._again(vocoder=vocoder)

    def with_voice(self, name: str, recordings: Sequence[Audio], *, replace: bool = False) -> Self:
        """This model, knowing the speaker of recordings by a name; nothing is trained.

        Raises:
            InputError: as `new_voice.new_voice`; a name that is known, unless `replace` takes it.
        """
        check_new_name(self, name, replace=replace)  # before everything is heard
        return self.with_known(name, new_voice(self, recordings), replace=replace)

    def with_known(self, name: str, voice: NewVoice, *, replace: bool = False) -> Self:
        """This model with what stands for a speaker (`new_voice.new_voice`); InputError for a name that is known."""
        check_new_name(self, name, replace=replace)
        prompts, vocoder = dict(self.prompts), self.vocoder
        if voice.prompt is not None:
            prompts[name] = voice.prompt
        if vocoder is not None and voice.vector is not None:
            vocoder = vocoder.with_voice(name, voice.vector)
        return self._again(prompts=prompts, vocoder=vocoder)

    def _again(self, **changed: Any) -> Self:
        """This model with other fields, stepping as this one does."""
        made = with_fields(self, **changed)
        made._engine = self._engine
        return made

    def save(self, folder: Path | str) -> None:
        """Write the model directory atomically."""
        write_model(self, folder)
