"""Where a run comes from, beside its recipe: with it a checkpoint is opened as the model that the run became there.

Places are absolute, so that they mean the same from any working directory; what a run has made itself lies inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitok.many.results_file import model_fingerprint
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder, fingerprint, intact, read_json, write_json
from unitok_training.checkpoint.files import list_checkpoints

ORIGIN = "origin.json"
"""File of a run."""
RECIPE = "recipe.json"
"""The recipe beside it."""
START = "start"
"""What `--allow-change` calls the model that a run begins from."""
TOKENIZERS = "tokenizers"
"""Folder of a latent run that has made its own."""


@dataclass(frozen=True, kw_only=True)
class TokenOrigin:
    """Of a run on token shards, which stand in a file of their own (`shard_set.RECORD`)."""

    tokenizers: str | None = None
    """Folder of the tokenizers; those of the start where None."""
    start: str | None = None
    """Model directory or checkpoint."""
    streams: Mapping[str, str] = field(default_factory=dict)
    """Kind → which stream it stands for, where that was chosen."""
    start_weights: str | None = None
    """Identifies the start's weights, "" where there is no start; None in runs of earlier versions."""

    @staticmethod
    def of(tokenizers: Path | str | None, start: Path | str | None, streams: Mapping[str, str] | None) -> TokenOrigin:
        """With the paths that a user gave."""
        return TokenOrigin(
            tokenizers=place(tokenizers), start=place(start), streams=dict(streams or {}),
            start_weights=weights_of(start),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "format": 1, "learns_from": "shards", "tokenizers": self.tokenizers, "start": self.start,
            "streams": dict(self.streams), "start_weights": self.start_weights,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LatentOrigin:
    """Of a run on a manifest: enough to do without it."""

    start: str | None = None
    """Model directory or checkpoint; None where the run has made its own tokenizers."""
    manifest: str | None = None
    """The manifest, for people; None where rows were made in memory."""
    languages: tuple[str, ...] = ()
    """Language codes of its rows, sorted."""
    text_per_vector: float = 1.0
    """Longest answer of its rows, in pieces per vector."""
    encoder: str | None = None
    """Folder that `encoder.folder` of the recipe names."""
    beside: str | None = None
    """Folder that `encoder.beside` of the recipe names."""
    start_weights: str | None = None
    """As of `TokenOrigin`."""
    encoder_weights: str | None = None
    """Identifies what is in the encoder's folder, "" where none is named; None in runs of earlier versions."""
    beside_weights: str | None = None
    """The same of the folder of the encoder beside it."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "format": 1, "learns_from": "recordings", "tokenizers": TOKENIZERS if self.start is None else None,
            "start": self.start, "manifest": self.manifest, "languages": list(self.languages),
            "text_per_vector": self.text_per_vector, "encoder": self.encoder, "beside": self.beside,
            "start_weights": self.start_weights, "encoder_weights": self.encoder_weights,
            "beside_weights": self.beside_weights,
        }  # fmt: skip


def weights_of(folder: Path | str | None) -> str:
    """Identifies the weights of a model directory, or all of another folder; "" of none."""
    if folder is None or not (root := Path(folder)).exists():
        return ""
    parts = [root / name for name in ("core", "modules") if (root / name).is_dir()] or [root]
    return fingerprint([model_fingerprint(part) for part in parts])


def check_same_origin(run: Path, origin: TokenOrigin | LatentOrigin, allow_change: Sequence[str] = ()) -> None:
    """InputError where a run that has checkpoints was begun from other weights: it would go on with those, and what
    does not move, and is in no checkpoint, would be of these. `allow_change` may name "start"."""
    if START in allow_change or not (run / ORIGIN).is_file() or not list_checkpoints(run / "checkpoints"):
        return
    with intact(run / ORIGIN, "copy the run again"):
        before = dict(read_json(run / ORIGIN))
    now = origin.to_json()
    for key, named in (("start_weights", START), ("encoder_weights", "encoder"), ("beside_weights", "beside")):
        if before.get(key) is not None and before[key] != now.get(key):
            raise InputError(
                f"{run} was begun with other weights of its {named} ({before.get(named) or 'none'}) than those of "
                f"{now.get(named) or 'none'}: choose another folder with -o, or give the same again (--allow-change "
                f"{START} goes on all the same)"
            )


def check_start(origin: TokenOrigin | LatentOrigin) -> None:
    """InputError where a run's start has other weights than when the run was begun."""
    now = weights_of(origin.start)  # "" of one that is gone, which whoever opens it says
    if origin.start_weights and now and now != origin.start_weights:
        raise InputError(
            f"{origin.start} has other weights than when this run was begun from it: copy it back, or name the run's "
            "own model directory"
        )


def check_run_folder(run: Path, *, tokenizers: bool = False) -> None:
    """InputError where a run's folder cannot be written, or holds what a training would write over and none has begun;
    `tokenizers` says that this one makes some."""
    ensure_folder(run)
    if (run / ORIGIN).exists() or list_checkpoints(run / "checkpoints"):
        return
    names = ("model", RECIPE, "metrics.jsonl", *((TOKENIZERS,) if tokenizers else ()))
    if there := next((name for name in names if (run / name).exists()), None):
        raise InputError(f"{run} is no run of this command and has {there}, which would be lost; choose another folder")


def place(path: Path | str | None) -> str | None:
    """A path that means the same from any working directory."""
    return None if path is None else str(Path(path).absolute())


def write_origin(run: Path, origin: TokenOrigin | LatentOrigin) -> None:
    """Keep where a run comes from."""
    write_json(run / ORIGIN, origin.to_json())


def read_origin(run: Path, asked: Path | str) -> TokenOrigin | LatentOrigin:
    """What `write_origin` wrote; InputError for a folder that is no run, naming the path that was `asked` for."""
    if not (run / ORIGIN).is_file() or not (run / RECIPE).is_file():
        raise InputError(
            f"{asked}: beside its checkpoints a run of `unitok train` or `unitok train-latent` has {RECIPE} and "
            f"{ORIGIN}, and {run} has not; name a model directory, or a checkpoint where its run has written it"
        )
    with intact(run / ORIGIN, "copy the run again"):
        found = read_json(run / ORIGIN)
        kind = found.get("learns_from", "shards")  # an earlier version wrote it for runs on shards alone
        if kind == "shards":
            return TokenOrigin(
                tokenizers=found["tokenizers"], start=found["start"], streams=found["streams"],
                start_weights=found.get("start_weights"),
            )  # fmt: skip
        if kind == "recordings":
            return LatentOrigin(
                start=found["start"], manifest=found["manifest"], languages=tuple(found["languages"]),
                text_per_vector=float(found["text_per_vector"]), encoder=found["encoder"], beside=found["beside"],
                start_weights=found.get("start_weights"), encoder_weights=found.get("encoder_weights"),
                beside_weights=found.get("beside_weights"),
            )  # fmt: skip
    raise InputError(f"{run / ORIGIN}: a run that learns from {kind!r} is of a later version; install that to open it")
