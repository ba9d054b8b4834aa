"""What a run writes down to go on from: checkpoints of its parts, and which one is continued.

All processes take the checkpoint that the first one names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import sole_writer
from unitok_training.checkpoint.background import BackgroundSaver
from unitok_training.checkpoint.shard_files import SHARDS, Share
from unitok_training.checkpoint.state import Checkpoint, latest_checkpoint, random_states, read_checkpoint
from unitok_training.data.packing import DataState
from unitok_training.trainer.config import FREE_TO_CHANGE, TrainConfig, completed, differences
from unitok_training.trainer.distributed import World
from unitok_training.trainer.fsdp import ShardedMasterWeights, local_slices
from unitok_training.trainer.parts import Part
from unitok_training.trainer.setup import LOSS, Score

NONE_FOUND, NONE_WHOLE = -1, -2
"""What the first process tells the others where there is no checkpoint, or none that can be read."""


def written_alone(folder: Path, world: World) -> AbstractContextManager[None]:
    """Keep other runs out of a run's folder, from before its checkpoints are looked at; see `sole_writer`. The first
    process does so for all, which wait for what it finds there."""
    return sole_writer(folder) if world.is_main else nullcontext()


OTHER_EXAMPLES = (
    "goes on with other shards", "rows ", "mixture", "plans", "train.pack_size", "train.window", "train.seed",
)  # fmt: skip
"""How what is said of a change begins that may change held-out examples."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Updates done."""
    data: DataState = DataState()
    """Where the stream of batches stands."""
    best_step: int = 0
    """Step of the best validation; 0 before the first."""
    best_loss: float | None = None
    """Its loss."""
    best_by: str = LOSS.name
    """What it is the best by."""
    best_score: float | None = None
    """Its value of that, where that is not the loss."""
    worse: int = 0
    """Validations since then."""

    def to_json(self) -> dict[str, Any]:
        """What `state.json` holds of it; the step stands there anyway."""
        found: dict[str, Any] = {"data": asdict(self.data)}
        if self.best_loss is not None:
            found["best"] = {"step": self.best_step, "loss": self.best_loss, "worse": self.worse}
            if self.best_by != LOSS.name:
                found["best"] |= {"by": self.best_by, "score": self.best_score}
        return found

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Progress:
        """The inverse of `to_json`."""
        found = Progress(step=int(state["step"]), data=DataState(**state["data"]))
        if (best := state.get("best")) is None:
            return found
        return replace(
            found, best_step=best["step"], best_loss=best["loss"], worse=best["worse"],
            best_by=best.get("by", LOSS.name), best_score=best.get("score"),
        )  # fmt: skip

    def validated(self, loss: float, by: Score = LOSS, score: float | None = None) -> Progress:
        """After a validation of this loss, and of this value of what the best is told by where that is another one.

        A value that is not finite is the worst.
        """
        old, new = (self.best_loss, loss) if by == LOSS else (self.best_score, score)
        known = new if new is not None and math.isfinite(new) else None
        old = old if old is not None and math.isfinite(old) else None
        better = known is not None and (old is None or (known > old if by.higher else known < old))
        if better or self.best_loss is None:
            return replace(
                self, best_step=self.step, best_loss=loss, best_by=by.name,
                best_score=None if by == LOSS else known, worse=0,
            )  # fmt: skip
        return replace(self, worse=self.worse + 1)

    def sought(self, by: Score, found: Checkpoint, config: TrainConfig, messages: list[str]) -> Progress:
        """As a run goes on that takes the best by this; `found` is what it continues, `messages` say what has changed.

        A best by something else, or of other examples, is none; that is said then.
        """
        if self.best_loss is None:
            return self
        before, counted = found.state["settings"]["train"], "eval_batches" if by == LOSS else "eval_examples"
        was, now = before.get(counted, getattr(type(config)(), counted)), getattr(config, counted)
        changed = [one for one in messages if one.startswith(OTHER_EXAMPLES)]
        if self.best_by != by.name:
            why = f"train.best_by was {self.best_by!r} and is {by.name!r}"
        elif was != now:
            why = f"train.{counted} was {was} and is {now}"
        elif changed:
            why = f"what is held out may be another ({changed[0]})"
        else:
            return self
        messages.append(f"{why}: the best validation is sought anew from here")
        return Progress(step=self.step, data=self.data)


def measure_of(config: TrainConfig, scores: Sequence[Score]) -> Score:
    """What the best validation is told by; InputError where a run that has these scores cannot say it."""
    if config.eval_examples and not scores:
        raise InputError("train.eval_examples is set, and nothing here scores them: train with `train_model`")
    known = {one.name: one for one in (LOSS, *scores)}
    if config.best_by not in known:
        raise InputError(f"train.best_by is {config.best_by!r}; this run has {', '.join(known)}")
    return known[config.best_by]


def newest_checkpoint(folder: Path, world: World, messages: list[str]) -> Checkpoint | None:
    """The newest whole checkpoint, in all processes the one that the first has found; None where there is none."""
    found, problem = None, None
    if world.is_main:
        try:
            found = latest_checkpoint(folder, report=messages.append)
        except InputError as error:
            problem = error
    step = NONE_WHOLE if problem is not None else NONE_FOUND if found is None else int(found.state["step"])
    step = world.agree(step)
    if problem is not None:
        raise problem
    if step == NONE_WHOLE:
        raise InputError(f"the first process can read no checkpoint in {folder}; see what it says")
    if step == NONE_FOUND or world.is_main:
        return found
    path = folder / f"step_{step:08d}"
    # Files that several processes have written lie where all see them: the first has checked them for the others.
    return read_checkpoint(path, check=not (path / SHARDS).is_dir())


def check_settings(
    found: Checkpoint, settings: Mapping[str, Any], defaults: Mapping[str, Any], allowed: Sequence[str]
) -> list[str]:
    """What to say of settings that differ from those of the run that is continued.

    `allowed` names dotted keys that may differ, or their beginnings. InputError where another one does.
    """
    said = []
    for name, old, new in differences(completed(found.state["settings"], dict(defaults)), dict(settings)):
        if name in FREE_TO_CHANGE:
            continue
        if any(name == key or name.startswith(f"{key}.") for key in allowed):
            said.append(f"{name} was {old!r} and is {new!r} from here on")
            continue
        raise InputError(
            f"{found.path} was trained with {name} = {old!r} and this run has {new!r}: choose another output folder, "
            f"or the same settings to continue (--allow-change {name} continues with the new one)"
        )
    return said


def save_parts(
    saver: BackgroundSaver, folder: Path, parts: Sequence[Part], state: Mapping[str, Any], world: World, *,
    step: int, keep: int, last: bool,
) -> None:  # fmt: skip
    """Have a checkpoint written beside training, the `last` or not; all processes call it. The saver's `wait` waits."""
    if any(part.sharded for part in parts):
        slices, offsets = _slices(parts, world)
        mark = f"save-{world.agree(time.time_ns())}"
        share = Share(rank=world.rank, size=world.size, mark=mark, offsets=offsets)
        tensors = {"slices": slices, **({"rng": random_states()} if world.is_main else {})}
        saver.save_share(folder, tensors, state, share, step=step, keep=keep, last=last)
    elif world.is_main:
        model, optimizer = dict[str, Tensor](), dict[str, Tensor]()
        for part in parts:
            model |= part.tensors()
            optimizer |= part.optimizer_tensors()
        checkpoint = Checkpoint(model=model, optimizer=optimizer, rng=random_states(), state=state)
        saver.save(folder, checkpoint, step=step, keep=keep, last=last)


def _slices(parts: Sequence[Part], world: World) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """(what this process saves, where each tensor begins in the whole one); whole tensors are the first one's."""
    slices, offsets = dict[str, Tensor](), dict[str, list[int]]()
    for part in parts:
        if isinstance(part.masters, ShardedMasterWeights):
            state = {name: value for group in part.groups for name, value in group.optimizer.tensors().items()}
            # A decoder alone keeps all of its weights; of a model's parts the start has what does not move.
            own, places = local_slices(part.masters, state, world, still=not part.name)
            for full, value in own.items():
                kind, _, name = full.partition("|")
                slices[f"{kind}|{part.key(name)}"], offsets[f"{kind}|{part.key(name)}"] = value, places[full]
        elif world.is_main:
            for kind, tensors in (("model", part.tensors()), ("optimizer", part.optimizer_tensors())):
                for name, value in tensors.items():
                    slices[f"{kind}|{name}"], offsets[f"{kind}|{name}"] = value, [0] * value.ndim
    return slices, offsets
