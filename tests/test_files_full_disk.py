"""A full disk: one message, nothing corrupt, and the same command continues once there is space.

The disk is a tmpfs where this user may mount one; a limit on the size of files is tried everywhere.
"""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import soundfile

from tests.support.command import Workshop, check_refusal, refused, unitok, works
from tests.support.tiny_model import model_folder
from tools.soak import digest
from unitok_tokenizers.files import ensure_folder
from unitok_training.checkpoint.state import list_checkpoints, read_checkpoint

ROOM = 1 << 24
"""Bytes of the disk."""
Fill = Callable[[int], None]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full_but_for(folder: Path, free: int) -> Iterator[None]:
    """Leave `free` bytes on the disk, or nearly; then give the rest back."""
    hog = folder / "hog"
    with open(hog, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with open(hog, "r+b") as file:
        file.truncate(max(0, hog.stat().st_size // 4096 * 4096 - free))
    try:
        yield
    finally:
        hog.unlink()


def results(folder: Path, *, hidden: bool = True) -> dict[str, str]:
    return digest(folder, hidden=hidden) if folder.exists() else {}


FREE = (0, 8192, 65536, 200_000)
COMMANDS: dict[str, Callable[[Workshop, Path], tuple[object, ...]]] = {
    "prepare": lambda shop, out: ("prepare", shop.manifest, out, "--tokenizers", shop.tokenizers),
    "export": lambda shop, out: ("export", shop.model, out),
    "train": lambda shop, out: shop.train(out, "--set", "train.checkpoint_every=1"),
    "fit-tokenizers": lambda shop, out: (
        *("fit-tokenizers", shop.manifest, out, "--encoder", "mfcc", "--codec-steps", 0),
        *("--clusters", 4, "--text-pieces", 300),
    ),
}


def check_whole(found: dict[str, str], wanted: dict[str, str], out: Path) -> None:
    """No file under a final name differs from the undisturbed run's, and no draft is left."""
    assert not [name for name in found if "/." in f"/{name}"], sorted(found)
    found = {name: value for name, value in found.items() if value != "an empty folder"}
    assert found.items() <= wanted.items(), sorted(name for name in found if found[name] != wanted.get(name))
    for step in list_checkpoints(out / "checkpoints"):
        read_checkpoint(step)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_message_and_the_command_continues(
    name: str, shop: Workshop, disk: Path, tmp_path: Path
) -> None:
    works(*COMMANDS[name](shop, tmp_path / "undisturbed"))
    wanted = results(tmp_path / "undisturbed")
    out, refusals = disk / "out", 0
    for free in FREE:
        size = sum(path.stat().st_size for path in (tmp_path / "undisturbed").rglob("*") if path.is_file())
        if free >= size and free:
            continue
        with full_but_for(disk, free):
            refused(*COMMANDS[name](shop, out), saying=("cannot write", disk, "make space and repeat the command"))
            refusals += 1
        check_whole(results(out), wanted, out)
    assert refusals >= 1
    works(*COMMANDS[name](shop, out))
    assert results(out) == wanted


@pytest.mark.parametrize("name", ["export", "fit-tokenizers"])
def test_a_full_disk_leaves_the_former_result(name: str, shop: Workshop, disk: Path) -> None:
    out = disk / "out"
    works(*COMMANDS[name](shop, out))
    before = results(disk)
    with full_but_for(disk, 4096):
        refused(*COMMANDS[name](shop, out), saying=("cannot write", "make space"))
    assert results(disk) == before


def test_a_full_disk_keeps_no_half_recording_or_manifest(shop: Workshop, disk: Path) -> None:
    lines = shop.root / "lines.txt"
    lines.write_text("".join(f"{index} we buy {'x' * 9000}\n" for index in range(4)), encoding="utf-8")
    with full_but_for(disk, 4096):
        refused("manifest", shop.root, lines, "-o", disk / "m.jsonl", saying=("cannot write", disk, "make space"))
        speak = ("generate", shop.model, "the house", "--task", "tts", "--lang", "en", "-o", disk / "a.wav")
        refused(*speak, saying=("cannot write", disk / "a.wav", "make space"))
        assert [path.name for path in disk.iterdir()] == ["hog"]
    works("manifest", shop.root, lines, "-o", disk / "m.jsonl")
    works(*speak)
    assert soundfile.info(disk / "a.wav").frames > 100


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as under a quota."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Python's own default: the write fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("size", [100, 3000])
def test_a_quota_is_one_message_and_the_command_continues(name: str, size: int, shop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with file_limit(size):
        ended = unitok(*COMMANDS[name](shop, out))
    check_refusal(ended, "cannot write", out, "make space and repeat the command")
    works(*COMMANDS[name](shop, tmp_path / "undisturbed"))
    wanted = results(tmp_path / "undisturbed")
    check_whole(results(out), wanted, out)
    works(*COMMANDS[name](shop, out))
    assert results(out) == wanted


def test_a_quota_leaves_the_former_model(shop: Workshop, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    hf = tmp_path / "hf"
    works("export", model, hf)
    before = results(model)
    with file_limit(2000):
        ended = unitok("import", hf, model)
    check_refusal(ended, "cannot write", model, "make space")
    assert results(model) == before


def test_processes_of_one_run_may_probe_its_folder_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ensure_folder, [tmp_path / "run"] * 2000))
    assert not list(tmp_path.iterdir())
