"""Backends by the name that a user gives: unitok, pocketsphinx, espeak, a voice of Piper, or a folder of a model, CTC
or transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from unitok.pipelines.backends.ctc import CtcRecognizer, ctc_folder
from unitok.pipelines.backends.hugging_face import PipelineRecognizer, PipelineSynthesizer, local_pipeline
from unitok.pipelines.backends.interfaces import Recognizer, Synthesizer
from unitok.pipelines.backends.own import UnitokRecognizer, UnitokSynthesizer
from unitok.pipelines.backends.piper import PiperSynthesizer, piper_file
from unitok.pipelines.backends.whisper import WhisperRecognizer
from unitok.task_model import TaskModel
from unitok_tokenizers.encoders.folders.whisper import is_whisper_folder
from unitok_tokenizers.errors import InputError


def _sphinx(model: TaskModel, beams: int | None) -> Recognizer:
    from unitok.pipelines.backends.sphinx import SphinxRecognizer

    return SphinxRecognizer()


def _espeak(model: TaskModel) -> Synthesizer:
    from unitok.pipelines.backends.espeak import EspeakSynthesizer

    return EspeakSynthesizer()


RECOGNISERS: Mapping[str, Callable[[TaskModel, int | None], Recognizer]] = {
    "unitok": UnitokRecognizer, "pocketsphinx": _sphinx,
}  # fmt: skip
SYNTHESISERS: Mapping[str, Callable[[TaskModel], Synthesizer]] = {"unitok": UnitokSynthesizer, "espeak": _espeak}


def recognizer_of(name: str, model: TaskModel, *, beams: int | None = None) -> Recognizer:
    """The recognizer of a name: unitok (of `model`), pocketsphinx, or a folder: a model, a judge, Whisper of either
    kind, or another of transformers.

    `beams` are those of a model's or a CTC network's search.
    """
    if name in RECOGNISERS:
        return RECOGNISERS[name](model, beams)
    if not Path(name).is_dir():
        raise InputError(f"unknown recognizer {name!r}: choose {', '.join(RECOGNISERS)}, or a local folder")
    if (Path(name) / "unitok.json").exists():
        return UnitokRecognizer(TaskModel.load(name, device=model.device), beams=beams)
    if ctc_folder(name) is not None:
        found = CtcRecognizer.load(name)
        found.encoder.to(model.device)
        return found if beams is None else replace(found, beams=beams)
    if is_whisper_folder(name):
        return WhisperRecognizer.load(name, device=model.device)
    return PipelineRecognizer(local_pipeline("automatic-speech-recognition", name, model.device))


def searches(name: str) -> bool:
    """Whether the recognizer of a name takes a number of beams."""
    return name == "unitok" or (Path(name) / "unitok.json").exists() or ctc_folder(name) is not None


def synthesizer_of(name: str, model: TaskModel) -> Synthesizer:
    """The synthesizer of a name: unitok (of `model`), espeak, a voice of Piper, or a local transformers folder."""
    if name in SYNTHESISERS:
        return SYNTHESISERS[name](model)
    if voice := piper_file(name):
        return PiperSynthesizer.load(voice)
    if not Path(name).is_dir():
        raise InputError(
            f"unknown synthesizer {name!r}: choose {', '.join(SYNTHESISERS)}, a voice of Piper (VOICE.onnx with "
            "VOICE.onnx.json), or a local folder"
        )
    if (Path(name) / "unitok.json").exists():
        return UnitokSynthesizer(TaskModel.load(name, device=model.device))
    return PipelineSynthesizer(local_pipeline("text-to-speech", name, model.device))
