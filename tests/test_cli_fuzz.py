"""Generated bad manifests, recordings and recipes, thrown at the commands: success or one message, and never a hang.

The suite runs a share of the cases; `UNITOK_FUZZ_CASES=2000` runs that many. A case is a pure function of its number.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from tests.support.command import Workshop, check_refusal, unitok
from tests.support.tiny_model import RATE, speech
from unitok_training.recipes.decoder import PRESETS

CASES = int(os.environ.get("UNITOK_FUZZ_CASES", "198"))
LONGEST = 120
"""Seconds after which a command hangs, on a machine that others use as well."""

# -- values that nobody means ---------------------------------------------------------------------------------------

NUMBERS: tuple[Any, ...] = (0, -1, 1, 2, 3, 7, 64, 0.5, 1e-300, 1e300, 2**31, 2**64, 10**400, -0.0)
PLAIN: tuple[Any, ...] = (0, 1, 2, 3, 7, 64, 0.25, 1.0, True, False, None)
STRANGE: tuple[Any, ...] = (
    None, True, False, float("nan"), float("inf"), -float("inf"), "", " ", "x", "0", "1e9", "nan", "\x00", "\u202e",
    "\n", "\t", "../../x", "/", "/dev/null", "~", "a" * 5000, "\ud800", "😀", "<asr>", "</s>", "null", [], {}, [[]],
    [None], [1, [2]], [-1], ["a", "b"], [[1, 2], [3]], {"a": {"b": None}}, [["w", 0, "x"]], [["w", 2, 1]], [1e308] * 3,
)  # fmt: skip
COLUMNS = (
    *("audio", "text", "lang", "id", "group", "speaker", "split", "words", "offset", "duration", "extras"),
    *("units", "codes", "nonsense"),
)


def strange(draw: random.Random, depth: int = 2) -> Any:
    """Some value of JSON, or nearly."""
    choice = draw.random()
    if choice < 0.35:
        return draw.choice(NUMBERS)
    if choice < 0.85 or not depth:
        return draw.choice(STRANGE)
    if choice < 0.93:
        return [strange(draw, depth - 1) for _ in range(draw.randint(0, 4))]
    return {str(strange(draw, 0)): strange(draw, depth - 1) for _ in range(draw.randint(0, 3))}


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Bytes cut, flipped, doubled, overwritten or replaced."""
    content = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(min(len(content), draw.choice((64, 1 << 30))) + 1)
        size = draw.choice((1, 2, 4, 16, 200))
        match draw.randrange(6):
            case 0:
                del content[place:]
            case 1:
                del content[place : place + size]
            case 2:
                content[place:place] = content[place : place + size]
            case 3:
                content[place : place + size] = draw.randbytes(min(size, len(content) - place))
            case 4:
                content[place : place + 4] = draw.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 99)).to_bytes(4, "little")
            case _:
                content += draw.randbytes(size)
    return bytes(content)


# -- the cases ------------------------------------------------------------------------------------------------------

Command = tuple[object, ...]


def bad_manifest(draw: random.Random, shop: Workshop, place: Path) -> Command:
    """Rows of which some value, key or byte is wrong; now and then none."""
    rows = []
    for index in range(draw.randint(1, 4)):
        row: dict[str, Any] = {"audio": f"{shop.root}/{index % 4}.wav", "text": "we buy two books", "lang": "en"}
        for _ in range(draw.choice((0, 1, 1, 2))):
            row[draw.choice(COLUMNS)] = strange(draw)
        if draw.random() < 0.2:
            del row[draw.choice(list(row))]
        rows.append(row)
    if draw.random() < 0.25:
        path = place / "m.tsv"
        keys = draw.sample(COLUMNS, draw.randint(1, 4))
        lines = ["\t".join(keys), *("\t".join(str(row.get(key, "")) for key in keys) for row in rows)]
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
    else:
        path = place / "m.jsonl"
        ascii_only = draw.random() < 0.5
        text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
        data = text.encode("utf-8", "surrogatepass")
    path.write_bytes(damaged(draw, data) if draw.random() < 0.3 else data)
    if draw.random() < 0.04:
        small = ("--encoder", "mfcc", "--codec-steps", 0, "--clusters", 2, "--text-pieces", 300)
        return ("fit-tokenizers", path, place / "out", *small)
    keep = ("--keep-going",) if draw.random() < 0.3 else ()
    return ("prepare", path, place / "out", "--tokenizers", shop.tokenizers, *keep)


FORMATS = (
    *(("wav", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM")),
    *(("flac", "PCM_16"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III"), ("aiff", "PCM_16")),
    *(("au", "PCM_16"), ("w64", "PCM_16"), ("caf", "PCM_16"), ("rf64", "FLOAT")),
)


def bad_recording(draw: random.Random, shop: Workshop, place: Path) -> Command:
    """A file of some format, damaged, or of samples that are no sound."""
    suffix, subtype = draw.choice(FORMATS)
    path = place / f"a.{suffix}"
    samples = speech(draw.choice((0.01, 0.3, 1.0)), seed=draw.randrange(4))
    if draw.random() < 0.3 and subtype in ("FLOAT", "DOUBLE"):  # some other encoders end the process there
        samples = samples * draw.choice((0.0, 1e30, np.nan, np.inf, 1e-40))
    if draw.random() < 0.2:
        samples = np.stack([samples] * draw.choice((2, 3, 8)), axis=1)
    # opus and mp3 know a few rates only
    rate = draw.choice((8000, RATE, 48000)) if suffix in ("ogg", "mp3") else draw.choice((1, 8000, RATE, 44100, 192000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # values that no integer holds
        try:
            soundfile.write(path, samples, rate, subtype=subtype)
        except (soundfile.LibsndfileError, AssertionError):  # a combination that cannot be written
            path.write_bytes(b"")
    if draw.random() < 0.85:
        path.write_bytes(damaged(draw, path.read_bytes()))
    if draw.random() < 0.05:
        path.write_bytes(draw.randbytes(draw.choice((0, 3, 44, 5000))))
    if draw.random() < 0.1:
        return ("generate", shop.model, path, "--task", "asr", "--lang", "en")
    row = {"audio": path.name, "text": "we buy"}
    if draw.random() < 0.2:
        row |= {"offset": draw.choice((0, 0.2, 5, 1e8)), "duration": draw.choice((0, 0.1, 5, 1e8))}
    (place / "m.jsonl").write_text(json.dumps(row), encoding="utf-8")
    return ("prepare", place / "m.jsonl", place / "out", "--tokenizers", shop.tokenizers)


WORK = ("steps", "packs_per_step", "pack_size", "window", "compile")
"""Keys of `train` that say how much is done; their values are refused or taken without doing it."""
FEW = ("steps=1", "packs_per_step=1", "pack_size=256", "window=64", "compile=false")


def _paths(value: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in value.items():
        yield (*prefix, key)
        if isinstance(inner, dict):
            yield from _paths(inner, (*prefix, key))


def bad_recipe(draw: random.Random, shop: Workshop, place: Path) -> Command:
    """A resolved recipe or YAML file with wrong values, keys or bytes, or a wrong `--set`."""
    PRESETS["tiny"].save(place / "recipe.json")
    data = json.loads((place / "recipe.json").read_text(encoding="utf-8"))
    (place / "recipe.json").unlink()
    paths = list(_paths(data))
    sets: list[str] = []
    for _ in range(draw.choice((1, 1, 2))):
        *groups, key = draw.choice(paths)
        if draw.random() < 0.3:
            value = draw.choice(("nan", ".inf", "1e99", "[", "{a", "", "=", "!!python/name:os.system", "-1", "x", "2"))
            sets.append(f"{'.'.join([*groups, key])}{draw.choice(('=', '=', '=', '', '.x='))}{value}")
            continue
        target = data
        for group in groups:
            target = target[group] if isinstance(target.get(group), dict) else {}
        if draw.random() < 0.2:
            target[draw.choice((f"{key}s", key.upper(), "", "x.y", "😀"))] = target.pop(key, 1)
        else:
            target[key] = draw.choice(PLAIN) if draw.random() < 0.5 else strange(draw)
    path = place / draw.choice(("recipe.yaml", "recipe.json"))
    if path.suffix == ".yaml":
        data.pop("name", None)
        text = yaml.safe_dump({"preset": "tiny", **data}, allow_unicode=draw.random() < 0.5)
    else:
        text = json.dumps(data, ensure_ascii=draw.random() < 0.5)
    content = text.encode("utf-8", "surrogatepass")
    path.write_bytes(damaged(draw, content) if draw.random() < 0.25 else content)
    over = [part for change in sets for part in ("--set", change)]
    if draw.random() < 0.5:
        return ("train", path, "--shards", place / "no", "--tokenizers", shop.tokenizers, "-o", place / "out", *over)
    over += [part for change in FEW for part in ("--set", f"train.{change}")]
    return ("train", path, "--shards", shop.shards, "--tokenizers", shop.tokenizers, "-o", place / "out", *over)


KINDS: dict[str, Callable[[random.Random, Workshop, Path], Command]] = {
    "manifest": bad_manifest,
    "recording": bad_recording,
    "recipe": bad_recipe,
}

# -- throwing them --------------------------------------------------------------------------------------------------


@contextmanager
def time_limit(what: str) -> Iterator[None]:
    """AssertionError where the block takes longer than `LONGEST`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a hang is noticed by SIGALRM, which this system lacks")
@pytest.mark.parametrize("kind", KINDS)
def test_no_traceback_and_no_hang(kind: str, shop: Workshop, tmp_path: Path) -> None:
    refusals, failures = 0, list[str]()
    count = (CASES + len(KINDS) - 1) // len(KINDS)
    for number in range(count):
        place = tmp_path / str(number)
        place.mkdir()
        command = KINDS[kind](random.Random(f"{kind} {number}"), shop, place)
        try:
            with time_limit(f"{kind} {number}"):
                ended = unitok(*command)
            if ended.code != 0:
                check_refusal(ended)
                refusals += 1
            drafts = [path.name for path in place.rglob(".*")]
            assert not drafts, f"left behind: {drafts}"
        except BaseException as error:  # what escapes a command is what this test looks for
            if isinstance(error, KeyboardInterrupt):
                raise
            failures.append(f"{kind} {number}: {type(error).__name__}: {str(error)[:300]}: {command}")
        else:
            shutil.rmtree(place)
    print(f"{kind}: {count} cases, {refusals} refused, {count - refusals - len(failures)} accepted")
    assert not failures, "\n".join(failures)
    assert refusals > 0.3 * count, "the cases are hardly ever bad"
