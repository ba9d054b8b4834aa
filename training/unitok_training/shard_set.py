"""Several folders of shards that one run trains on: which, how often each is drawn from, and for which tasks.

    unitok train PRESET --shards A=3 B:asr,mt

Folders have nothing to do with each other beside their streams: rows are paired, answered and prompted by voices within
a folder, because the names of groups, rows and speakers mean something only there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint, intact, read_json, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary

RECORD = "shards.json"
"""File of a run that says what it is trained on."""
FOLDER = re.compile(r"(?P<path>[^=:]+)(=(?P<weight>[^=:]*))?(:(?P<tasks>[^=:]*))?")


@dataclass(frozen=True, kw_only=True)
class ShardFolder:
    """A folder of shards among those of a run."""

    shards: Shards
    """The folder, opened."""
    weight: float = 1.0
    """How often an example of a task comes from here, beside the weights of the other folders that the task has."""
    tasks: tuple[str, ...] = ()
    """Keys of the mixture that it is for, each with languages or without; all where empty."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise InputError(f"{self.name}: its weight is {self.weight}; give a number above 0, or leave it out")

    @property
    def name(self) -> str:
        """The folder's path, as it was given."""
        return str(self.shards.folder)

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits of what is in it, wherever it stands."""
        return fingerprint([[part.get("sha256"), part["rows"]] for part in self.shards.manifest["files"]])

    def serves(self, key: str) -> bool:
        """Whether it is for a key of the mixture."""
        return not self.tasks or key in self.tasks or key.partition("@")[0] in self.tasks

    def to_json(self) -> dict[str, Any]:
        """As a run records it."""
        return {
            "path": self.name, "absolute": str(self.shards.folder.absolute()), "rows": len(self.shards),
            "identity": self.identity, "weight": self.weight, "tasks": list(self.tasks),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShardSet:
    """What a run is trained on."""

    folders: tuple[ShardFolder, ...]
    """One at least; in the order of their identities, so that the order in which they are given changes nothing."""
    notes: tuple[str, ...] = ()
    """What a run says of them when it begins."""

    @staticmethod
    def of(given: Shards | ShardSet | Sequence[ShardFolder]) -> ShardSet:
        """One folder or several. InputError for the same one twice, or for streams that do not agree."""
        if isinstance(given, ShardSet):
            return given
        folders = [ShardFolder(shards=given)] if isinstance(given, Shards) else list(given)
        folders.sort(key=lambda one: one.identity)
        for one, other in zip(folders, folders[1:]):
            if one.identity == other.identity:
                raise InputError(f"{one.name} and {other.name} hold the same rows; give them once, with a weight")
        found = ShardSet(folders=tuple(folders))
        found._check_streams()
        return found

    def _check_streams(self) -> None:
        """InputError where two folders have a stream of one name and not the same one."""
        for number, folder in enumerate(self.folders):
            for name, stream in folder.shards.streams.items():
                for other in self.folders[:number]:
                    theirs = other.shards.streams.get(name, stream)
                    if theirs != stream:
                        raise InputError(
                            f"{other.name} and {folder.name} have {name!r} of two kinds, {said(theirs)} and "
                            f"{said(stream)}: prepare one with the tokenizers of the other, or train on one of them"
                        )

    def check(self, vocabulary: Vocabulary, owner: str = "the vocabulary") -> None:
        """InputError where a folder's streams are not the vocabulary's, or stand there instead of its main ones."""
        for folder in self.folders:
            vocabulary.check_all(folder.shards.streams, folder.name, owner)

    def for_keys(self, keys: Iterable[str]) -> ShardSet:
        """The folders that are for some of these keys of a mixture, and for what else they are for no longer."""
        known = {name for key in keys for name in (key, key.partition("@")[0])}
        found = [replace(one, tasks=tuple(name for name in one.tasks if name in known)) for one in self.folders]
        return replace(self, folders=tuple(now for now, one in zip(found, self.folders) if now.tasks or not one.tasks))

    @property
    def alone(self) -> bool:
        """Whether it is one folder, whose examples come in the order that they always had."""
        return len(self.folders) == 1

    @property
    def name(self) -> str:
        """The folders' paths, for messages."""
        return " and ".join(folder.name for folder in self.folders)

    @cached_property
    def streams(self) -> dict[str, StreamInfo]:
        """The streams of all folders by name."""
        return {name: stream for folder in self.folders for name, stream in folder.shards.streams.items()}

    def holder(self, stream: str) -> str:
        """Path of a folder that has a stream."""
        return next(folder.name for folder in self.folders if stream in folder.shards.streams)

    @cached_property
    def languages(self) -> list[str]:
        """Language codes that occur, sorted."""
        return sorted({code for folder in self.folders for code in folder.shards.languages})


def said(stream: StreamInfo) -> str:
    """A stream in few words."""
    runs = ", runs stored once" if stream.deduplicated else ""
    return f"{stream.fingerprint} ({list(stream.cardinalities)} ids, {stream.frame_rate or 'no'} frames/s{runs})"


def open_shards(given: Sequence[Path | str] | Path | str, *, check: bool = False) -> ShardSet:
    """Open `FOLDER[=WEIGHT][:TASK,…]`, one or several.

    Args:
        given: folders; the name of one that exists is taken as it is, whatever signs it has.
        check: verify the checksum of every file; of several processes one needs to.

    Raises:
        InputError: what is no folder of shards, a weight or tasks that are none, or folders that do not fit together.
    """
    texts = [given] if isinstance(given, str | Path) else list(given)
    if not texts:
        raise InputError("no shards: give the folder that `unitok prepare` wrote")
    return ShardSet.of([_folder(str(text), check) for text in texts])


def _folder(text: str, check: bool) -> ShardFolder:
    match = None if Path(text).exists() else FOLDER.fullmatch(text)
    if match is None:
        return ShardFolder(shards=Shards.open(text, check=check))
    weight, tasks = match["weight"], match["tasks"]
    try:
        share = 1.0 if weight is None else float(weight)
    except ValueError:
        raise InputError(f"--shards {text}: weight {weight!r} is no number; write FOLDER=3") from None
    names = () if tasks is None else tuple(dict.fromkeys(name.strip() for name in tasks.split(",")))
    if not all(names):
        raise InputError(f"--shards {text}: a task without a name; write FOLDER:asr,mt")
    return ShardFolder(shards=Shards.open(match["path"], check=check), weight=share, tasks=names)


def continued(run: Path, data: ShardSet, *, may_change: bool = False) -> ShardSet:
    """The shards of a run that may have begun already, with a note of what has changed since.

    Args:
        run: the run's folder; without a checkpoint, or without a record of its shards, there is nothing to compare.
        data: what it is to be trained on from here.
        may_change: whether that may be something else than before.

    Raises:
        InputError: other rows, weights or tasks than those the run was trained on, where that was not asked for.
    """
    if not (run / RECORD).exists() or not any((run / "checkpoints").glob("step_*")):
        return data
    with intact(run / RECORD, "remove it to continue on the shards that are given now"):
        before = {one["identity"]: one for one in read_json(run / RECORD)["folders"]}
        now = {one.identity: one.to_json() for one in data.folders}
        gone = {one["path"]: one["rows"] for name, one in before.items() if name not in now}
        new = {one["path"]: one["rows"] for name, one in now.items() if name not in before}
        found = [f"{path} is gone" for path in gone if path not in new]
        for path, rows in new.items():
            grown = f"has other rows now ({rows}, before {gone[path]})" if path in gone else f"is new ({rows} rows)"
            found.append(f"{path} {grown}")
        for name in [name for name in now if name in before]:
            for field in ("weight", "tasks"):
                old, new = before[name][field], now[name][field]
                if old != new:
                    found.append(f"{field} of {now[name]['path']}: {old or 'all'}, now {new or 'all'}")
    if not found:
        return data
    what = "; ".join(found)
    if not may_change:
        raise InputError(
            f"{run} was trained on other shards: {what}. Continue with those that it had, choose another output "
            "folder, or take the change with --allow-change shards: examples then come in another order"
        )
    note = f"goes on with other shards ({what}): examples come in another order from here"
    return replace(data, notes=(*data.notes, note))


def record(run: Path, data: ShardSet) -> None:
    """Write what a run is trained on."""
    write_json(run / RECORD, {"format": 1, "folders": [folder.to_json() for folder in data.folders]})


def reopened(run: Path) -> ShardSet:
    """What a run is trained on, from any working directory.

    Raises:
        InputError: shards that are no longer where they were.
    """
    with intact(run / RECORD, "copy the run again"):
        noted = [
            (one["path"], one.get("absolute"), one["identity"], float(one["weight"]), tuple(one["tasks"]))
            for one in read_json(run / RECORD)["folders"]
        ]
    return ShardSet.of(
        [
            ShardFolder(shards=_found_again(run, path, absolute, identity), weight=weight, tasks=tasks)
            for path, absolute, identity, weight, tasks in noted
        ]
    )


def _found_again(run: Path, path: str, absolute: str | None, identity: str) -> Shards:
    """The same rows where a run had them, or where the path that was given leads from a folder above the run, which has
    moved together with them; else what stands now where the run had them."""
    first = Path(absolute or path)
    for place in (first, Path(path), *(above / path for above in run.absolute().parents)):
        if (place / "manifest.json").is_file():
            shards = Shards.open(place)
            if ShardFolder(shards=shards).identity == identity:
                return shards
    if (first / "manifest.json").is_file():
        return Shards.open(first)
    raise InputError(
        f"{run} was trained on the shards {path}, which are no longer at {first.absolute()}: put them back, or write "
        f'where they are now as "absolute" into {run / RECORD}'
    )
