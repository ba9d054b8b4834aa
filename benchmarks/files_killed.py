"""Ten thousand short recordings through one command: undisturbed, and killed again and again until it is done.

What is checked: every recording has one answer, and the answers are those of the undisturbed command, byte for byte.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import material
from benchmarks.arms import Arm, interleave, ratio
from benchmarks.context import Context
from benchmarks.files import RATE, ROOT, model_of, tone
from benchmarks.results import Outcome
from unitok_tokenizers.audio.io import write_audio

FILES, QUICK_FILES = 10_000, 24
"""Recordings."""
DISTINCT = 500
"""Recordings that differ; the others are links to them, so that a run needs no gigabytes."""
SIZES = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 1}
"""Of the decoder: small, since what is looked at is who is answered, and how often."""
KILLS = 5
"""Times that the command is killed; a quick one twice."""


class Command:
    """`unitok generate` of a list, in a process of its own."""

    def __init__(self, folder: Path, listed: Path) -> None:
        self.folder, self.listed = folder, listed
        paths = os.pathsep.join(str(ROOT / part) for part in (".", "tokenizers", "vocoder", "training"))
        self.environment = {**os.environ, "PYTHONPATH": paths}

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        words = ["generate", str(self.folder / "model"), str(self.listed), "--task", "asr", "--lang", "en"]
        command = [sys.executable, "-m", "unitok", *words, "-o", str(out), "--device", "cpu"]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )


def answers(out: Path, count: int) -> dict[str, str]:
    """Id → its whole line. Every recording has one, and none has failed."""
    lines = out.read_text(encoding="utf-8").splitlines()
    found = {str(json.loads(line)["id"]): line for line in lines}
    assert len(lines) == len(found) == count, f"{len(lines)} lines, {len(found)} of them different, of {count}"
    assert not any("error" in json.loads(line) for line in lines)
    return found


def run(context: Context) -> Outcome:
    """Ratios `files_killed.*`."""
    count, kills = (QUICK_FILES, 2) if context.quick else (FILES, KILLS)
    folder = context.folder / "files_killed"
    model_of(SIZES, context.seed).save(folder / "model")
    listed = _recordings(folder, count, context)
    command, random = Command(folder, listed), np.random.default_rng(context.seed)
    whole: dict[str, str] = {}
    took = [0.0]
    struck: list[int] = []

    def undisturbed() -> float:
        out = folder / "whole.jsonl"
        out.unlink(missing_ok=True)
        begin = time.perf_counter()
        assert command.start(out).wait() == 0
        took[0] = time.perf_counter() - begin
        whole.update(answers(out, count))
        return count / took[0]

    def killed() -> float:
        out = folder / "killed.jsonl"
        for left in folder.glob("killed.jsonl*"):
            left.unlink()
        begin = time.perf_counter()
        for _ in range(kills):
            process = command.start(out)
            try:
                process.wait(random.uniform(0.1, 2.0 / (kills + 1)) * took[0])
            except subprocess.TimeoutExpired:
                struck.append(sum(path.stat().st_size for path in folder.glob("killed.jsonl*")))
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert command.start(out).wait() == 0
        assert answers(out, count) == whole, "a command that was killed and continued answers otherwise"
        return count / (time.perf_counter() - begin)

    arms = [
        Arm(name="undisturbed", run=undisturbed, unit="files/s", settings={"files": count}),
        Arm(name="killed", run=killed, unit="files/s", settings={"files": count, "kills": kills}),
    ]
    found, failed = interleave(arms, context.rounds, context.report)
    behind = sum(written > 0 for written in struck)
    said = f"{count} recordings, {len(struck)} times SIGKILL, {behind} of them behind a first answer, then to the end"
    return Outcome(
        arms=found,
        ratios={"files_killed.vs_undisturbed": ratio(found, "killed", "undisturbed")},
        notes={
            "files_killed.vs_undisturbed": f"{said}; all lines equal",
            **{f"files_killed.{name}": reason for name, reason in failed.items()},
        },
    )


def _recordings(folder: Path, count: int, context: Context) -> Path:
    """The list of recordings, of which `DISTINCT` are written."""
    seconds, _ = material.durations(min(count, DISTINCT), seed=context.seed)
    random = np.random.default_rng(context.seed)
    paths = [folder / "audio" / f"{number:05d}.wav" for number in range(count)]
    for number, path in enumerate(paths):
        first = paths[number % len(seconds)]
        if path.exists():
            continue
        if path is first:
            write_audio(path, tone(min(float(seconds[number]), 0.8 if context.quick else 10.0), random), RATE)
        else:
            path.symlink_to(first.resolve())
    listed = folder / "list.txt"
    listed.write_text("".join(f"{path.absolute()}\n" for path in paths), encoding="utf-8")
    return listed
