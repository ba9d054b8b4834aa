"""Backends by the name that a user gives: unitok, pocketsphinx, espeak, or a folder of a model, CTC or transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from unitok.pipelines.backends.ctc import CtcRecogniser, ctc_folder
from unitok.pipelines.backends.hugging_face import PipelineRecogniser, PipelineSynthesiser, local_pipeline
from unitok.pipelines.backends.interfaces import Recogniser, Synthesiser
from unitok.pipelines.backends.own import UnitokRecogniser, UnitokSynthesiser
from unitok.pipelines.backends.whisper import WhisperRecogniser
from unitok.task_model import TaskModel
from unitok_tokenizers.encoders.whisper_folder import is_ct2_folder
from unitok_tokenizers.errors import InputError


def _sphinx(model: TaskModel) -> Recogniser:
    from unitok.pipelines.backends.sphinx import SphinxRecogniser

    return SphinxRecogniser()


def _espeak(model: TaskModel) -> Synthesiser:
    from unitok.pipelines.backends.espeak import EspeakSynthesiser

    return EspeakSynthesiser()


RECOGNISERS: Mapping[str, Callable[[TaskModel], Recogniser]] = {"unitok": UnitokRecogniser, "pocketsphinx": _sphinx}
SYNTHESISERS: Mapping[str, Callable[[TaskModel], Synthesiser]] = {"unitok": UnitokSynthesiser, "espeak": _espeak}


def recogniser_of(name: str, model: TaskModel, *, beams: int | None = None) -> Recogniser:
    """The recogniser of a name: unitok (of `model`), pocketsphinx, or a folder: a model, a judge, transformers, or
    Whisper of CTranslate2.

    `beams` are those of a CTC network's search.
    """
    if name in RECOGNISERS:
        return RECOGNISERS[name](model)
    if not Path(name).is_dir():
        raise InputError(f"unknown recogniser {name!r}: choose {', '.join(RECOGNISERS)}, or a local folder")
    if (Path(name) / "unitok.json").exists():
        return UnitokRecogniser(TaskModel.load(name, device=model.device))
    if ctc_folder(name) is not None:
        found = CtcRecogniser.load(name)
        found.encoder.to(model.device)
        return found if beams is None else replace(found, beams=beams)
    if is_ct2_folder(name):
        return WhisperRecogniser.load(name, device=model.device)
    return PipelineRecogniser(local_pipeline("automatic-speech-recognition", name, model.device))


def synthesiser_of(name: str, model: TaskModel) -> Synthesiser:
    """The synthesiser of a name: unitok (of `model`), espeak, or a local transformers folder."""
    if name in SYNTHESISERS:
        return SYNTHESISERS[name](model)
    if not Path(name).is_dir():
        raise InputError(f"unknown synthesiser {name!r}: choose {', '.join(SYNTHESISERS)}, or a local folder")
    if (Path(name) / "unitok.json").exists():
        return UnitokSynthesiser(TaskModel.load(name, device=model.device))
    return PipelineSynthesiser(local_pipeline("text-to-speech", name, model.device))
