"""Running `unitok` inside the test's process, and what every refusal has in common."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tiny_model import RATE, model_folder, speech, tokenizers
from unitok.cli.main import build_parser, main
from unitok_tokenizers.audio.io import write_audio

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("we buy two books now", "the green house stands here today")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, nested ones too."""
    waiting: list[tuple[str, argparse.ArgumentParser]] = [("unitok", build_parser())]
    while waiting:
        name, parser = waiting.pop()
        nested = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        for action in nested:
            waiting += [(f"{name} {key}", one) for key, one in action.choices.items()]
        if not nested:
            yield name, parser


def unitok(*arguments: object) -> Ended:
    """Run one command; what it raises beyond a refusal is raised here too."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse stops by itself
            code = stop.code if isinstance(stop.code, int) else 1
    return Ended(code=code, out=out.getvalue(), err=err.getvalue())


def check_refusal(ended: Ended, *needles: object) -> str:
    """Exit code 2 and, after whatever was reported of the work so far, one message that holds every needle."""
    *before, message = ended.err.strip("\n").split("\n")
    assert ended.code == 2, ended
    assert message.startswith("unitok ") and "Traceback" not in ended.err, ended.err
    assert not [line for line in before if line.startswith("unitok ")], ended.err
    assert len(message) < 600, f"a message of {len(message)} characters: {message}"
    for needle in needles:
        assert str(needle) in message, (needle, message)
    if log := os.environ.get("UNITOK_MESSAGES"):
        with open(log, "a", encoding="utf-8") as file:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].partition(" ")[0]
            file.write(f"{test}\t{message}\n")
    return message


def refused(*arguments: object, saying: object = ()) -> str:
    """The message with which a command is refused."""
    return check_refusal(unitok(*arguments), *(saying if isinstance(saying, tuple) else (saying,)))


def works(*arguments: object) -> str:
    """What a command that succeeds prints."""
    ended = unitok(*arguments)
    assert ended.code == 0, ended
    return ended.out


def environment() -> dict[str, str]:
    """For processes of their own: this package, on one thread."""
    paths = [str(ROOT / folder) for folder in (".", "tokenizers", "training", "vocoder")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


COMMAND = (sys.executable, "-m", "unitok")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


class Workshop:
    """A sound corpus with tokenizers, shards, a model and a finished training run, for tests that damage copies."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for index in range(4):
            write_audio(root / f"{index}.wav", speech(0.5, seed=index), RATE)
        rows = [
            {"audio": f"{i}.wav", "text": TEXTS[i % 2], "lang": "en", "speaker": "anna", "split": s}
            for i, s in enumerate(("train", "train", "train", "test"))
        ]
        self.manifest = write_rows(root / "manifest.jsonl", rows)
        self.tokenizers, self.shards, self.model = root / "tokenizers", root / "shards", root / "model"
        tokenizers().save(self.tokenizers)
        model_folder(self.model)
        works("prepare", self.manifest, self.shards, "--tokenizers", self.tokenizers)
        self.run = root / "run"
        works(*self.train(self.run))

    def train(self, out: Path, *more: object, recipe: object = "tiny") -> tuple[object, ...]:
        """Arguments of a training run of two steps; of what `more` repeats, the last one counts."""
        small = [part for change in ("steps=2", "pack_size=256", "window=64") for part in ("--set", f"train.{change}")]
        given = ("--shards", self.shards, "--tokenizers", self.tokenizers, "-o", out)
        return ("train", recipe, *given, *small, *more)
