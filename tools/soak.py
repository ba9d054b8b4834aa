"""Kill commands at random moments, repeat them, and compare with a run that nobody disturbed.

    python -m tools.soak --rounds 20 [--seed 0] [--command train] [--signal TERM]

Each round runs one command in a process of its own that is ended by a signal, SIGKILL or another, once or twice: after
a random share of the command's measured time, or just before a random one of its file operations (time alone seldom
hits the moments between two renames). After each kill nothing half-written may stand under a final name; after the
repeat every file equals the undisturbed run's and no draft is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.support.tiny_model import RATE, model_folder, speech, tokenizers
from unitok_tokenizers.audio.io import write_audio

RECORDINGS = 6
ROWS = 24
PART_ROWS = 6
"""Rows of a part: small, so that a kill falls between parts too."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FILE_EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.copyfile", "shutil.rmtree")
TIMINGS = ("seconds", "tokens_per_second")
"""Figures of a training run that are no function of its seed."""
UNSTABLE = ("tensorboard", "metrics.jsonl")
"""Logs with times in them; the metrics are compared apart from those."""
PRELOAD = (
    *(
        "unitok.cli.main",
        "unitok.export",
        "unitok_tokenizers.data.prepare",
        "unitok_training.fitting.tokenizers",
        "unitok_training.train",
    ),
    *("soxr", "torch._dynamo", "torch.utils.tensorboard"),
)
"""What every command would import; the last is optional, and a module that is absent is passed over."""


# -- processes --------------------------------------------------------------------------------------------------


def _kill_before_event(number: int, how: int) -> Callable[[], int]:
    """End this process before its n-th file operation (0: never). Returns a function that tells how many there were."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in FILE_EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            count += 1
            if count == number:
                os.kill(os.getpid(), how)

    sys.addaudithook(hook)
    return lambda: count


def _command(arguments: list[str], log: str, kill_before: int, how: int) -> None:
    """Body of the process: one command of `unitok`, its output in a file."""
    import torch

    import unitok_tokenizers.data.prepare
    from unitok.cli.main import main

    torch.set_num_threads(1)
    unitok_tokenizers.data.prepare.PART_ROWS = PART_ROWS
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    events, begin = _kill_before_event(kill_before, how), time.monotonic()
    try:
        code = main(arguments)
    except KeyboardInterrupt:  # before the command's own handler: what the interpreter makes of it
        os._exit(128 + signal.SIGINT)
    print(f"\n{events()} {time.monotonic() - begin}", flush=True)
    sys.stdout.flush()
    os._exit(code)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a process is killed; neither: it is left alone."""

    seconds: float | None = None
    """After its start."""
    event: int = 0
    """Number of the file operation before which it ends; 0 for none."""
    signal: int = signal.SIGKILL
    """How it is ended."""


def run(arguments: list[str], log: Path, moment: Moment | None = None) -> tuple[int, float] | None:
    """Run `unitok ARGUMENTS`; asserts that it succeeds. Returns its file operations and seconds, None where killed.

    Processes are forked from one that has imported the package, so that a round costs the work and not the imports.
    """
    moment = moment or Moment()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    process = context.Process(target=_command, args=(arguments, str(log), moment.event, moment.signal))
    process.start()
    process.join(moment.seconds if moment.seconds is not None else 300)
    if process.exitcode is None:
        assert moment.seconds is not None, f"unitok {' '.join(arguments)} hangs"
        assert process.pid is not None
        os.kill(process.pid, moment.signal)
        process.join(300)
    if process.exitcode in (-moment.signal, 128 + moment.signal):
        return None
    text = log.read_text(encoding="utf-8", errors="replace")
    assert process.exitcode == 0, f"unitok {' '.join(arguments)} ended with {process.exitcode}:\n{text}"
    events, seconds = text.split()[-2:]
    return int(events), float(seconds)


# -- comparing --------------------------------------------------------------------------------------------------


def digest(folder: Path, *, hidden: bool = True) -> dict[str, str]:
    """Relative path → SHA-256 of every file that is a pure function of the input; with `hidden`, drafts as well."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if parts[0] in UNSTABLE or (not hidden and any(part.startswith(".") for part in parts)):
            continue
        if path.is_file():
            found["/".join(parts)] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not any(path.iterdir()):
            found["/".join(parts)] = "an empty folder"
    return found


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics without its times."""
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def check_all_or_nothing(out: Path, wanted: dict[str, str]) -> None:
    """A folder written at one stroke."""
    assert not out.exists() or digest(out) == wanted, f"{out} is half written"


def check_parts(out: Path, wanted: dict[str, str]) -> None:
    """Shards: every file is whole, and the manifest comes last."""
    found = digest(out, hidden=False)
    assert found.items() <= wanted.items(), sorted(name for name in found if found[name] != wanted.get(name))
    assert "manifest.json" not in found or found == wanted


def check_run(out: Path, wanted: dict[str, str]) -> None:
    """A training run: checkpoints that read back with their checksums, a result that is whole or absent."""
    from unitok_training.checkpoint.state import list_checkpoints, read_checkpoint

    for path in list_checkpoints(out / "checkpoints"):
        read_checkpoint(path)
    found = digest(out, hidden=False)
    for part in ("recipe.json", "model/", "vocoder/", "codec/", "units/"):
        own = {name: value for name, value in found.items() if name.startswith(part)}
        assert not own or own == {name: value for name, value in wanted.items() if name.startswith(part)}, own


# -- jobs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that makes a folder."""

    name: str
    arguments: tuple[str, ...]
    """Of `unitok`; `OUT` stands for the folder."""
    check: Callable[[Path, dict[str, str]], None]
    """What must hold after a kill."""
    replaces: bool = False
    """Every other round finds a finished folder and makes it anew."""


@dataclass(kw_only=True)
class Report:
    """What was done to a command."""

    name: str
    seconds: float
    """Of the undisturbed run."""
    events: int
    """File operations of the undisturbed run."""
    kills: int = 0
    moments: list[str] = field(default_factory=list)


class Workshop:
    """A tiny corpus with tokenizers, shards and a model, and the jobs that start from them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.manifest = write_corpus(root / "corpus")
        tokenizers().save(root / "tokenizers")
        model_folder(root / "model")

    def fit_tokenizers(self, seed: int = 0) -> Job:
        sizes = ("--text-pieces", "300", "--clusters", "16", "--encoder-steps", "2", "--codec-steps", "2")
        arguments = ("fit-tokenizers", str(self.manifest), "OUT", *sizes, "--seed", str(seed))
        return Job(name="fit-tokenizers", arguments=arguments, check=check_all_or_nothing, replaces=True)

    def prepare(self) -> Job:
        arguments = ("prepare", str(self.manifest), "OUT", "--tokenizers", str(self.root / "tokenizers"))
        return Job(name="prepare", arguments=arguments, check=check_parts)

    def train(self, seed: int = 0) -> Job:
        """Needs the shards that `prepare` makes."""
        shards = self.root / "shards"
        if not shards.exists():
            run(_placed(self.prepare(), shards), self.root / "log")
        given = ("--shards", str(shards), "--tokenizers", str(self.root / "tokenizers"), "-o", "OUT")
        changes = ("steps=12", "log_every=2", "checkpoint_every=2", "window=48", f"seed={seed}")
        overrides = [part for change in changes for part in ("--set", f"train.{change}")]
        overrides += ["--set", "mixture.tts.codes=1", "--set", "mixture.lm=1"]
        return Job(name="train", arguments=("train", "tiny", *given, *overrides), check=check_run)

    def train_latent(self, seed: int = 0) -> Job:
        changes = ("steps=8", "log_every=2", "checkpoint_every=2", "window=24", "augment=true", f"seed={seed}")
        overrides = [part for change in changes for part in ("--set", f"train.{change}")]
        arguments = ("train-latent", "tiny", str(self.manifest), "-o", "OUT", "--limit", "1", *overrides)
        return Job(name="train-latent", arguments=arguments, check=check_run)

    def train_vocoder(self, seed: int = 0) -> Job:
        changes = ("steps=6", "batch=2", "crop=0.2", "width=16", "hifigan.width=16", "hifigan.fields=1")
        changes += ("judges.width=2", "judges.begin=0", "judges.lead=1")
        changes += ("keeping.log_every=1", "keeping.checkpoint_every=2")
        overrides = [part for change in (*changes, f"seed={seed}") for part in ("--set", change)]
        given = ("--from", "units", "--kind", "hifigan", "--tokenizers", str(self.root / "tokenizers"))
        arguments = ("train-vocoder", str(self.manifest), "-o", "OUT", *given, *overrides)
        return Job(name="train-vocoder", arguments=arguments, check=check_run)

    def train_codec(self, seed: int = 0) -> Job:
        changes = ("steps=12", "batch=2", "crop=8", "cardinality=8", f"seed={seed}")
        overrides = [part for change in changes for part in ("--set", f"codec.{change}")]
        for change in ("units.encoder=mfcc", "units.clusters=8", "keeping.log_every=2", "keeping.checkpoint_every=4"):
            overrides += ["--set", change]
        arguments = ("train-codec", str(self.manifest), "-o", "OUT", *overrides)
        return Job(name="train-codec", arguments=arguments, check=check_run)

    def export(self) -> Job:
        arguments = ("export", str(self.root / "model"), "OUT")
        return Job(name="export", arguments=arguments, check=check_all_or_nothing, replaces=True)

    def jobs(self) -> dict[str, Callable[[], Job]]:
        """Command → its job."""
        return {
            "fit-tokenizers": self.fit_tokenizers,
            "prepare": self.prepare,
            "train": self.train,
            "train-latent": self.train_latent,
            "train-vocoder": self.train_vocoder,
            "train-codec": self.train_codec,
            "export": self.export,
        }


def write_corpus(folder: Path) -> Path:
    """A few synthetic recordings, said to be many rows; returns the manifest."""
    folder.mkdir(parents=True)
    words = "the green house stands here today we buy two books now she sings".split()
    draw = random.Random(0)
    rows = []
    for index in range(ROWS):
        wav = f"{index % RECORDINGS}.wav"
        if index < RECORDINGS:
            write_audio(folder / wav, speech(0.5 + 0.1 * index, seed=index), RATE)
        text = " ".join(draw.choices(words, k=5))
        split = "train" if index < ROWS - 4 else "test"
        speaker = ("anna", "ben")[index % 2]
        rows.append({"audio": wav, "text": text, "lang": "en", "speaker": speaker, "group": str(index), "split": split})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


def _placed(job: Job, out: Path) -> list[str]:
    return [str(out) if part == "OUT" else part for part in job.arguments]


def _moment(draw: random.Random, report: Report, turn: int, how: int) -> Moment:
    if turn % 2:
        return Moment(event=draw.randint(1, report.events), signal=how)
    return Moment(seconds=draw.uniform(0.0, report.seconds), signal=how)


def ends(found: dict[str, str]) -> dict[str, str]:
    """Files without the checkpoints before the last: a run that is asked to stop saves one more."""
    steps = sorted({part for name in found for part in name.split("/") if part.startswith("step_")})
    return {name: value for name, value in found.items() if not set(name.split("/")) & set(steps[:-1])}


def soak(job: Job, folder: Path, *, rounds: int, seed: int = 0, how: int = signal.SIGKILL) -> Report:
    """Kill and repeat a job `rounds` times. AssertionError where anything differs from the undisturbed run."""
    folder.mkdir(parents=True, exist_ok=True)
    log, undisturbed = folder / "log", folder / "undisturbed"
    cost = run(_placed(job, undisturbed), log)
    assert cost is not None
    report = Report(name=job.name, events=cost[0], seconds=cost[1])
    wanted, wanted_metrics = digest(undisturbed), metrics(undisturbed)
    draw = random.Random(f"{seed} {job.name}")
    for number in range(rounds):
        place = folder / f"round_{number:03d}"
        out = place / "out"
        place.mkdir()
        if job.replaces and draw.random() < 0.5:
            shutil.copytree(undisturbed, out)
        for turn in range(number, number + draw.randint(1, 2)):
            moment = _moment(draw, report, turn, how)
            report.moments.append(f"{moment.seconds:.2f} s" if moment.seconds is not None else f"#{moment.event}")
            if run(_placed(job, out), log, moment) is None:
                report.kills += 1
            job.check(out, wanted)
        run(_placed(job, out), log)
        context = f"{job.name}, seed {seed}, round {number}, killed at {report.moments[-2:]}"
        found = digest(place)
        expected = {f"out/{name}": value for name, value in wanted.items()}
        found = {name: value for name, value in found.items() if name.split("/")[1] not in UNSTABLE}
        if how != signal.SIGKILL:
            found, expected = ends(found), ends(expected)
        names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        told = metrics(out)
        apart = next((pair for pair in zip_longest(told, wanted_metrics) if pair[0] != pair[1]), None)
        assert not names, f"{context}: differs in {names}; metrics differ first in {apart}"
        assert told == wanted_metrics, f"{context}: the metrics differ first in {apart}"
        shutil.rmtree(place)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="kill commands at random moments and compare what a repeat makes")
    parser.add_argument("--rounds", type=int, default=20, help="of each command (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="append", help="only this command")
    parser.add_argument("--signal", default="KILL", choices=("KILL", "TERM", "INT"), help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder) / "workshop")
        for name, job in workshop.jobs().items():
            if options.command and name not in options.command:
                continue
            begin = time.monotonic()
            report = soak(
                job(),
                Path(folder) / name,
                rounds=options.rounds,
                seed=options.seed,
                how=getattr(signal, f"SIG{options.signal}"),
            )
            print(
                f"{name}: {options.rounds} rounds, {report.kills} kills, all repeats identical "
                f"(undisturbed {report.seconds:.1f} s and {report.events} file operations; "
                f"{time.monotonic() - begin:.0f} s in all)",
                flush=True,
            )


if __name__ == "__main__":
    main()
