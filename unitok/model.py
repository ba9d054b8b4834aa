"""The model as its users meet it: its tasks, the same as a cascade of its parts, and its directory."""

from __future__ import annotations

from pathlib import Path

from unitok.generation.sampling import GREEDY, Sampling
from unitok.inputs import Audio, names_a_file
from unitok.model_directory import write_model
from unitok.pipelines.cascade import Cascade, cascade_of
from unitok.requests.request import Voice
from unitok.results import Result
from unitok.task_model import TaskModel


class Model(TaskModel):
    """Every task of the grammar, by one decoder or as a cascade, and the model directory."""

    def translate(
        self, source_input: Audio, *, source: str, target: str, beams: int = 1, front_end: str | None = None
    ) -> Result:
        """Speech (a recording or units), or text (a string that names no file), to text in another language.

        As `TaskModel.translate`; a `front_end` "cascade" recognizes, then translates the text.
        """
        if front_end == "cascade" and not (isinstance(source_input, str) and not names_a_file(source_input)):
            return self.cascade().translate_text(source_input, source=source, target=target)
        return super().translate(source_input, source=source, target=target, beams=beams, front_end=front_end)

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

        As `TaskModel.translate_speech`; a `front_end` "cascade" makes three requests, whose texts and times are the
        result's trace.
        """
        if front_end == "cascade":
            return self.cascade().translate_speech(audio, source=source, target=target, voice=voice)
        return super().translate_speech(
            audio, source=source, target=target, chain=chain, voice=voice, sampling=sampling, seed=seed,
            front_end=front_end,
        )  # fmt: skip

    def cascade(self, *, recognizer: str = "unitok", synthesizer: str = "unitok") -> Cascade:
        """This model's lines one after another, or other backends by name around its translation."""
        return cascade_of(self, recognizer=recognizer, synthesizer=synthesizer)

    def save(self, folder: Path | str) -> None:
        """Write the model directory atomically."""
        write_model(self, folder)
