"""Blocks of the documents: found, told apart, and run as a reader would run them.

Blocks are fenced with a language, or indented; an indented one is shell or Python by what it holds. A comment before a
block says more: `<!-- slow -->` runs in `make docs-check` only, `<!-- shown -->` is to be read, not run.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from unitok.cli.main import main
from unitok_training.evaluation.ears.find import QUALITY, SPEAKER, WHISPER, package_folder

ROOT = Path(__file__).resolve().parents[2]
HEADS = ("unitok", "python", "torchrun", "make", "pip", "git", "cd")
MARK = re.compile(r"<!--\s*(slow|shown)\s*-->")
SHELL, PYTHON = ("sh", "bash", "shell", "console"), ("python", "py")

LATENT = "train.steps=2 train.log_every=1 train.window=8 train.pack_size=1024 train.precision=fp32".split()
LATENT_SHAPE = "encoder.width=16 encoder.layers=1 encoder.heads=2 encoder.inner=16 decoder.width=32".split()
TINY = {
    "train-latent": "--limit 2 --set " + " --set ".join([*LATENT, *LATENT_SHAPE, "text_pieces=300"]),
    "adapters": "--kinds linear pooling --set " + " --set ".join(LATENT),
    "probe": "--limit 1",
    "systems list": "",
    "systems run": "--sentences 20 --test-sentences 2 --limit 2 --set " + " --set ".join([*LATENT, *LATENT_SHAPE]),
    "systems run prosody": "--sentences 10 --test-sentences 1 --set encoder_steps=1 --set steps=2",
    "systems run prosody_tokens": "--sentences 60 --test-sentences 2 --set clusters=8",
    "systems run coordinator": "--sentences 6 --test-sentences 2 --set questions=2 --set steps=2 --set clusters=8",
    "systems run routing": "--sentences 20 --test-sentences 5 --set steps=2",
    "fit-tokenizers": "--encoder-steps 1 --codec-steps 2 --clusters 8",
    "fit-tokenizers --codec": "--encoder-steps 1 --clusters 8",
    "fit-tokenizers --encoder": "--clusters 8",
    "fit-tokenizers --units": "",
    "tokbench": "--limit 2 --train-limit 4 --probe-steps 1 --synthesizer-steps 1",
    "train-vocoder": "--set steps=2 batch=2 crop=0.2 vocos.width=16 vocos.blocks=1 hifigan.width=16 hifigan.fields=1"
    " width=16 judges.begin=0 judges.lead=1 judges.width=2 precision=fp32",
    "train-vocoder --start": "--set steps=2 batch=2 crop=0.2 judges.begin=0 judges.lead=1 judges.width=2"
    " precision=fp32",
    "score-voice": "--limit 2",
    "train-codec": "--set codec.steps=2 codec.batch=2 codec.crop=8 codec.cardinality=8 units.encoder_steps=2"
    " units.clusters=8 precision=fp32",
    "fit-tokenizers my/with-codec": "",
    "train": "--set train.steps=2 train.log_every=1 train.compile=false train.packs_per_step=1 train.window=256"
    " train.pack_size=4096 train.precision=fp32 train.optim.warmup_steps=1 decoder.width=32 decoder.layers=1"
    " decoder.heads=2 decoder.kv_heads=1",
    "score-lm": "",
    "evaluate": "--limit 2",
    "evaluate --safety": "--safety 12",
    "evaluate --text-evals": "",
    "nbest": "--limit 2 --size 2 --beams 2",
    "correct": "--steps 2 --size 2",
    "rescore": "--masked 1 --head 1",
    "correction-experiment": "--set train_lists=6 test_lists=2 dev_draws=1 size=2 beams=2 read=2 steps=1 lora_rank=2"
    " masked_steps=1 head_steps=1 shots=1",
}
"""Command, or with its first words or an option → options that make it take seconds; its subject stays as it is."""


@dataclass(frozen=True)
class Block:
    """A block of a document."""

    document: str
    line: int
    language: str
    """sh, python, or another language that is not run."""
    text: str
    mark: str
    """slow, shown or nothing."""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """README and everything under docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path) -> list[Block]:
    """All blocks of a document, in order."""
    lines = path.read_text(encoding="utf-8").split("\n")
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    found: list[Block] = []
    mark, number = "", 0
    while number < len(lines):
        line = lines[number]
        start = number + 1
        if match := MARK.fullmatch(line.strip()):
            mark = match.group(1)
        elif fence := re.match(r"\s*```(\w*)\s*$", line):
            body = []
            number += 1
            while not lines[number].strip().startswith("```"):
                body.append(lines[number])
                number += 1
            language = fence.group(1)
            kind = "sh" if language in SHELL else "python" if language in PYTHON else language or "text"
            found.append(Block(name, start, kind, "\n".join(body), mark))
            mark = ""
        elif line.startswith("    ") and (number == 0 or not lines[number - 1].strip()):
            body = []
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                body.append(lines[number][4:])
                number += 1
            text = "\n".join(body).strip("\n")
            found.append(Block(name, start, guess(text), text, mark))
            mark = ""
            continue
        elif line.strip():
            mark = ""
        number += 1
    return found


def guess(text: str) -> str:
    """Language of an indented block."""
    if all(words[0] in HEADS for words in commands(text)) and commands(text):
        return "sh"
    try:
        ast.parse(text)
    except SyntaxError:
        return "text"
    return "python"


def commands(text: str) -> list[list[str]]:
    """Words of every command of a shell block, comments and line continuations resolved; paths to a venv dropped."""
    found = []
    for line in text.replace("\\\n", " ").split("\n"):
        for part in re.split(r"\s&&\s", line):
            try:
                words = shlex.split(part.removeprefix("$ "), comments=True)
            except ValueError:
                words = [part]
            if words:
                found.append([words[0].removeprefix(".venv/bin/"), *words[1:]])
    return found


def run_block(block: Block, folder: Path, *, tiny: bool) -> str:
    """Run a block in `folder` and return what it printed; AssertionError where it fails or is not understood."""
    if block.language == "python":
        return run_python(block, folder)
    assert block.language == "sh", f"{block}: neither shell nor Python; mark it <!-- shown --> or give it a language"
    return "".join(run_command(words, folder, str(block), tiny=tiny) for words in commands(block.text))


def run_python(block: Block, folder: Path) -> str:
    """A Python block, in this process and the given folder."""
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    return out.getvalue()


def run_command(words: list[str], folder: Path, where: str, *, tiny: bool) -> str:
    """One command. `unitok` runs in this process; with `tiny` it is given options that make it quick."""
    head, *rest = words
    if head == "unitok":
        return run_unitok(rest, folder, where, tiny=tiny)
    if head == "make":
        return run_make(rest, where)
    if head == "pip":
        return check_pip(rest, where)
    if head in ("git", "cd"):
        return ""
    assert head in HEADS, f"{where}: {head!r} is not a command that the documents' test knows"
    command = [sys.executable, *(["-m", "torch.distributed.run"] if head == "torchrun" else []), *rest]
    if tiny and "train" in rest:
        command += TINY["train"].split()
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "tokenizers", "training", "vocoder"))
    place = ROOT if "pytest" in rest else folder
    done = subprocess.run(
        command, cwd=place, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{where}: {shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_unitok(arguments: list[str], folder: Path, where: str, *, tiny: bool) -> str:
    """A `unitok` command in this process."""
    if tiny:
        assert arguments[:1] != ["demo"], f"{where}: the demo takes minutes; mark the block <!-- slow -->"
        arguments = [*arguments, *_tiny_options(arguments)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    said = f"{where}: unitok {shlex.join(arguments)}\n{out.getvalue()}{err.getvalue()}"
    if "--ears" in arguments and all(package_folder(place[0]) is None for place in (WHISPER, SPEAKER, QUALITY)):
        # `make install` brings no weights: the reader who skipped the line above is told which command does.
        assert code == 2 and "make install-real" in err.getvalue(), said
        return out.getvalue()
    assert code == 0, said
    return out.getvalue()


def _tiny_options(arguments: list[str]) -> list[str]:
    """What to add to a command; overrides one by one, since `--set` takes one at a time."""
    named = [" ".join(arguments[:count]) for count in (3, 2)] + [f"{arguments[0]} {one}" for one in arguments[1:]]
    extra = next((TINY[name] for name in [*named, arguments[0]] if name in TINY), "").split()
    if extra[:1] == ["--set"]:
        return [word for value in extra[1:] for word in ("--set", value)]
    return extra


def run_make(targets: list[str], where: str) -> str:
    """`make`: a dry run, which fails on an unknown target; `make docs-check` has run the demo before."""
    command = ["make", "--dry-run", *targets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where}: make {shlex.join(targets)}\n{done.stdout}{done.stderr}"
    return done.stdout


def check_pip(words: list[str], where: str) -> str:
    """`pip install` is not run; the extras and packages that it names must be those of the project."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + (ROOT / "constraints.txt").read_text("utf-8")
    for word in words[1:]:
        match = re.fullmatch(r"(?:\.|unitok)\[([\w,-]+)\]", word)
        given = word.startswith("-") or word == "." or (ROOT / word).is_file()
        names = match.group(1).split(",") if match else [] if given else [word]
        for name in names:
            known = f"\n{name} = [" in project if match else re.search(rf"(?m)^\W*{re.escape(name)}\b", project)
            assert known, f"{where}: pip install names {name!r}, which the project does not"
    return ""
