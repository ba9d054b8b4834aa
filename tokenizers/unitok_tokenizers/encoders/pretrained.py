"""Encoders from local folders of other projects and of our own, by what kind a folder is said to be.

hubert:FOLDER@6     the sixth block's output; @0 is what enters the first
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.folders.whisper import is_ct2_folder
from unitok_tokenizers.encoders.registry import load_encoder
from unitok_tokenizers.encoders.speech_models import SPEECH_MODELS, SpeechModelEncoder
from unitok_tokenizers.encoders.whisper import WhisperEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json

OWN = "unitok"
"""Kind of a folder that `FrameEncoder.save` or `unitok systems run hubert` wrote, or of the units of tokenizers."""


def _speech_model(folder: Path) -> FrameEncoder:
    return SpeechModelEncoder.from_folder(folder)


def _whisper(folder: Path) -> FrameEncoder:
    return WhisperEncoder.from_folder(folder)


def _said(folder: Path) -> FrameEncoder:
    return WhisperEncoder.from_folder(folder, padded=False)


def _own(folder: Path) -> FrameEncoder:
    inside = folder / "encoder"
    return load_encoder(inside if (inside / "config.json").exists() else folder)


KINDS: dict[str, Callable[[Path], FrameEncoder]] = {
    **dict.fromkeys(SPEECH_MODELS, _speech_model),
    "whisper": _whisper,
    "whisper_unpadded": _said,
    OWN: _own,
}
"""Kind → what opens a folder of it."""


def kind_of(folder: Path) -> str:
    """The kind of a folder of Hugging Face or CTranslate2. InputError for another kind of model."""
    if is_ct2_folder(folder):
        return "whisper"
    with intact(folder, "give a local folder of a speech encoder"):
        found = str(read_json(folder / "config.json").get("model_type"))
    if found not in KINDS:
        raise InputError(
            f"{folder}: model_type {found!r} is no speech encoder; known: {', '.join(SPEECH_MODELS)}, whisper"
        )
    return found


def pretrained_encoder(folder: Path | str) -> FrameEncoder:
    """The encoder of another project's folder, whatever kind it is; InputError for another kind of model."""
    root = Path(folder)
    return KINDS[kind_of(root)](root).eval()


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """An encoder that a folder holds, and which of its layers is meant."""

    kind: str
    """One of `KINDS`."""
    folder: Path
    """Where it is."""
    layer: int | None = None
    """Hidden layer, 0 to the number of blocks; what an adapter reads where None."""

    @staticmethod
    def read(text: str) -> EncoderSource:
        """`KIND:FOLDER@LAYER`; the layer may be left out. InputError where it is not written so."""
        kind, colon, rest = text.partition(":")
        place, at, number = rest.rpartition("@")
        if not at:
            place, number = rest, ""
        if kind not in KINDS or not colon or not place or (at and not number.isdecimal()):
            raise InputError(
                f"encoder {text!r}: write KIND:FOLDER@LAYER, such as hubert:path/to/hubert@6; kinds: {', '.join(KINDS)}"
            )
        return EncoderSource(kind=kind, folder=Path(place), layer=int(number) if number else None)

    def open(self) -> FrameEncoder:
        """The encoder. InputError for a folder that is not of the kind, or has no such layer."""
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder; give a local folder of a {self.kind} encoder")
        if self.kind != OWN and (found := kind_of(self.folder)) != self.kind.removesuffix("_unpadded"):
            raise InputError(f"{self.folder} holds a {found} encoder, not {self.kind}; write {found}:{self.folder}")
        with intact(self.folder, "copy the folder again"):
            encoder = KINDS[self.kind](self.folder).eval()
        if self.layer is not None and self.layer >= encoder.depth:
            raise InputError(
                f"{self.folder} has layers 0 to {encoder.depth - 1}, not {self.layer}; 0 is what enters the first block"
            )
        return encoder
