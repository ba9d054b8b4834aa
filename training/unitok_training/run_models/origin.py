"""Where a run comes from, beside its recipe: with it a checkpoint is opened as the model that the run became there.

Places are absolute, so that they mean the same from any working directory; what a run has made itself lies inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json, write_json

ORIGIN = "origin.json"
"""File of a run."""
RECIPE = "recipe.json"
"""The recipe beside it."""
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

    @staticmethod
    def of(tokenizers: Path | str | None, start: Path | str | None, streams: Mapping[str, str] | None) -> TokenOrigin:
        """With the paths that a user gave."""
        return TokenOrigin(tokenizers=place(tokenizers), start=place(start), streams=dict(streams or {}))

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "format": 1, "learns_from": "shards", "tokenizers": self.tokenizers, "start": self.start,
            "streams": dict(self.streams),
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

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "format": 1, "learns_from": "recordings", "tokenizers": TOKENIZERS if self.start is None else None,
            "start": self.start, "manifest": self.manifest, "languages": list(self.languages),
            "text_per_vector": self.text_per_vector, "encoder": self.encoder, "beside": self.beside,
        }  # fmt: skip


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
            return TokenOrigin(tokenizers=found["tokenizers"], start=found["start"], streams=found["streams"])
        if kind == "recordings":
            return LatentOrigin(
                start=found["start"], manifest=found["manifest"], languages=tuple(found["languages"]),
                text_per_vector=float(found["text_per_vector"]), encoder=found["encoder"], beside=found["beside"],
            )  # fmt: skip
    raise InputError(f"{run / ORIGIN}: a run that learns from {kind!r} is of a later version; install that to open it")
