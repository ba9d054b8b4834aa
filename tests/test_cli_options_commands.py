"""Every option of the other commands: read by what the command does, refused where idle, and heeded."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import commands, refused, unitok, works
from tests.support.tiny_model import RATE, model_folder, speech
from unitok.nbest.lists import NBest, distinct, write_lists
from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.audio.io import write_audio


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changed")
    model_folder(folder / "m")
    write_audio(folder / "a.wav", speech(0.9, seed=3), RATE)
    return folder


IDLE = {
    "fit-tokenizers m t --encoder mfcc --encoder-steps 3": "--encoder-steps",
    "prepare m s --tokenizers t --joined-share 0 --seed 3": "--seed",
    "prepare m s --tokenizers t --world 2 --workers 1": "--workers",
    "fit-tokenizers m t --codec mel_rvq:c --clusters 8": "--clusters",
    "fit-tokenizers m t --codec mel_rvq:c --units hubert:h@1": "--units",
    "fit-tokenizers m t --codec mel_rvq:c --invariant 3": "--invariant",
    "mix m o --talkers --no-noise --noise-snr 0 5": "--noise-snr",
    "inspect s --rows 3": "--rows",
    "inspect s --html p --vocoder v": "--vocoder",
    "evaluate m s --safety 5 --judge j": "--judge",
    "evaluate m s --safety 5 --ears auto": "--ears",
    "evaluate m s --safety --limit 5": "--limit",
    "demo --manifest m.jsonl --languages en": "--languages",
    "compare m.jsonl --languages en": "--languages",
    "nbest m s --temperature 0.5 --beams 4": "--beams",
    "nbest m s --seed 4": "--seed",
    "nbest m s --recognizer j --temperature 0.8": "--temperature",
    "rescore m l --seed 4": "--seed",
    "rescore m l --train-split dev": "--train-split",
    "correct m l --steps 0 --lora 4": "--lora",
    "correct m l --steps 0 --lr 1": "--lr",
    "correct m l --steps 0 --experts 2": "--experts",
    "correct m l --steps 0 --noise-vectors 2": "--noise-vectors",
    "correct m l --steps 0 --hear j": "--hear",
    "correct m l --steps 0 --seed 2": "--seed",
    "correct m l --steps 0 --precision bf16": "--precision",
    "systems run hubert --limit 4": "--limit",
    "systems run prosody --limit 4": "--limit",
}
"""Command lines with an option that something else on them makes idle → that option."""


@pytest.mark.parametrize("line", IDLE)
def test_an_option_that_another_makes_idle_is_refused_before_anything_is_read(line: str) -> None:
    ended = unitok(*line.split())
    assert ended.code == 2 and f"{IDLE[line]} changes nothing" in ended.err and "Traceback" not in ended.err


def test_every_option_of_every_command_is_read_by_what_the_command_does() -> None:
    """Static, and complete: no option is declared and forgotten. What it then changes, each command's tests say."""
    for name, parser in commands():
        run = parser.get_default("run")
        source = inspect.getsource(sys.modules[run.__module__])
        beside = sorted(set(re.findall(r"(?m)^from (unitok\.cli(?:\.\w+)+) import", source)))
        read = names_read([source, *(inspect.getsource(sys.modules[one]) for one in beside)], run.__name__)
        declared = {action.dest for action in parser._actions} - {"help"}
        assert declared <= read, f"{name}: {sorted(declared - read)} are declared and never looked at"


def names_read(sources: list[str], function: str) -> set[str]:
    """Attributes of `options`, and functions, that a function and those it calls in these files name."""
    trees = [ast.parse(source) for source in reversed(sources)]  # the command's own file has the last word
    bodies = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    waiting, seen, found = [function], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(bodies[name]):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Name):
                found.add(node.id)
                waiting += [node.id] if node.id in bodies else []
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)  # getattr(options, name)
    return found


def changed(place: Path, *words: object) -> tuple[str, str]:
    """What a command prints, and the file or the folder's manifest that it writes, if any."""
    out, folder = place / "out.jsonl", place / "made"
    out.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    ended = unitok(*words)
    assert ended.code == 0, ended
    written = [path for path in (out, folder / "manifest.json") if path.exists()]
    return ended.out, "".join(path.read_text("utf-8") for path in written)


def some_list(seed: int) -> NBest:
    """A reference, and what a recognizer made of it that drops words."""
    random = np.random.default_rng(seed)
    words = random.choice(["the", "green", "house", "stands", "here", "today"], 5).tolist()
    texts = [" ".join(word for word in words if random.random() > 0.4) or "the" for _ in range(6)]
    heard = [Transcript(text=text, logprob=float(-random.uniform(1, 9)), tokens=len(text)) for text in texts]
    split = ("train", "dev", "test")[seed % 3]
    return NBest(id=f"l{seed}", lang="en", hypotheses=distinct(heard), reference=" ".join(words), split=split)


MUST_CHANGE: dict[str, tuple[str, ...]] = {
    "cost demo --device a100": (  # a device as stated: what is measured here is never the same twice
        "--device h100", "--vocabulary 9000", "--document 100", "--set decoder.width=128",
    ),
    "cost demo --device a100 --set train.packs_per_step=2": ("--processes 2",),
    "nbest {m} {s} -o {out} --snr 10": (
        "--size 2", "--beams 6", "--temperature 1", "--limit 1", "--split test", "--snr 0", "--seed 5",
    ),
    "evaluate {m} {s}": ("--split train", "--limit 1", "--safety 2"),
    "manifest {table} -o {out}": ("--lang de", "--test-share 0.9", "--columns text=spoken"),
    "systems list": ("--json",),
    "prepare {bare} {made} --tokenizers {m}/tokenizers --joined-share 0.5": (
        "--lang de", "--columns text=spoken", "--max-seconds 0.1", "--joined-share 0",
    ),
    "correct {m} {lists} --texts {out} --steps 2 --lr 0.05": (
        "--steps 3", "--lora 2", "--noise-vectors 2", "--experts 2", "--lr 0.1", "--train-split dev",
        "--split dev", "--size 1", "--seed 5",
    ),
    "rescore {m} {lists}": (
        "--dev train", "--split train", "--masked 2", "--head 2", "--source-lm {m}", "--lengths 1", "--words 9",
    ),
    "rescore {m} {lists} --masked 20": ("--train-split dev",),
}  # fmt: skip
"""Command line → options that must change what it prints or writes."""


@pytest.mark.parametrize("line", MUST_CHANGE)
def test_an_option_that_must_work_changes_what_comes_out(line: str, place: Path) -> None:
    if not (place / "s").exists():
        table = [{"audio": "a.wav", "text": "we buy two books", "spoken": "she sings", "lang": "en", "split": split}
                 for split in ("train", "train", "train", "test", "test")]  # fmt: skip
        (place / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
        rows = [{key: row[key] for key in ("audio", "text", "spoken")} for row in table]
        (place / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]), encoding="utf-8")
        (place / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        tokenizers = ("--tokenizers", place / "m/tokenizers")
        assert unitok("prepare", place / "m.jsonl", place / "s", *tokenizers, "--joined-share", "0").code == 0
        write_lists(place / "lists.jsonl", [some_list(seed) for seed in range(18)])
    names = {key: place / f"{key}.jsonl" for key in ("out", "table", "bare", "lists")}
    names |= {key: place / key for key in ("m", "s", "made")}

    def made(words: str) -> tuple[str, str]:
        return changed(place, *(word.format(**names) for word in words.split()))

    plain = made(line)
    for option in MUST_CHANGE[line]:
        assert made(f"{line} {option}") != plain, option


@pytest.mark.parametrize(
    "line",
    [
        "evaluate m s --limit -1", "nbest m s --limit -1", "train-latent p m --limit -1", "probe m t --limit -1",
        "systems run hubert --limit -1", "tokbench m --tokenizers t --limit -3", "score-lm m s --limit -1",
        "tokbench m --tokenizers t --train-limit -2", "score-voice m a --texts t --limit -1",
        "evaluate m s --limit some",
    ],
)  # fmt: skip
def test_how_many_is_a_number(line: str) -> None:
    refused(*line.split(), saying=(line.split()[-1], "whole number"))


@pytest.mark.parametrize("line", ["systems run expressive --limit 0", "probe m t --limit 0"])
def test_nothing_is_not_how_many(line: str) -> None:
    refused(*line.split(), saying="--limit is 0")


@pytest.mark.parametrize(
    "option", ["--max-seconds inf", "--max-seconds nan", "--max-seconds -1", "--joined-share nan", "--joined-share -1"]
)
def test_preparing_takes_numbers_that_can_be(option: str, tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"text": "the house"}\n{"text": "a house"}\n', encoding="utf-8")
    works("fit-tokenizers", manifest, tmp_path / "t", "--text-pieces", "266")
    refused("prepare", manifest, tmp_path / "s", "--tokenizers", tmp_path / "t", *option.split(),
            saying=tuple(option.split()))  # fmt: skip
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("option", ["--cluster-recordings 0", "--cluster-recordings -5", "--clusters 0"])
def test_fitting_takes_numbers_that_can_be(option: str, tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"text": "the house"}\n', encoding="utf-8")
    refused("fit-tokenizers", manifest, tmp_path / "t", *option.split(), saying=tuple(option.split()))
