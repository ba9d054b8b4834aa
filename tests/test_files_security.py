"""What is not trusted can do no harm: nothing is unpickled or run, and nothing is written outside the folder asked for.

What each source of files may do stands in `SECURITY.md`.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import ROOT, Workshop, refused, unitok, works, write_rows
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json

PACKAGES = ("unitok", "tokenizers/unitok_tokenizers", "vocoder/unitok_vocoder", "training/unitok_training")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


# -- poisoned files -------------------------------------------------------------------------------------------------


class Poison:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.mkdir, (str(self.mark),))


def poisons(folder: Path, mark: Path) -> Iterator[bytes]:
    """A plain pickle, what `torch.save` writes, and a NumPy array of objects."""
    import torch

    yield pickle.dumps(Poison(mark))
    torch.save({"weights": Poison(mark)}, folder / "poison.pt")
    yield (folder / "poison.pt").read_bytes()
    np.save(folder / "poison.npy", np.array([Poison(mark)], dtype=object), allow_pickle=True)
    yield (folder / "poison.npy").read_bytes()


def test_the_poison_works(tmp_path: Path) -> None:
    """Otherwise the tests below would pass whatever is loaded."""
    import torch

    for number, read in enumerate(
        (
            lambda path: pickle.loads(path.read_bytes()),
            lambda path: torch.load(path, weights_only=False),
            lambda path: np.load(path, allow_pickle=True),
        )
    ):
        mark = tmp_path / f"mark{number}"
        content = list(poisons(tmp_path, mark))[number]
        (tmp_path / "file").write_bytes(content)
        read(tmp_path / "file")
        assert mark.is_dir()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)


def test_poison_under_every_name_that_is_loaded(shop: Workshop, tmp_path: Path) -> None:
    """Every file that the commands wrote, and the audio, is replaced by a pickle in turn, and read."""
    hf, mark = tmp_path / "hf", tmp_path / "mark"
    works("export", shop.model, hf)
    root = Path(shutil.copytree(shop.root, tmp_path / "copy"))
    step = max((root / "run/checkpoints").glob("step_*"))
    start = ("--shards", root / "shards", "--tokenizers", root / "tokenizers", "-o", tmp_path / "out")
    wav = root / "0.wav"
    readers: list[tuple[Path, tuple[object, ...]]] = [
        (root / "model", ("generate", root / "model", wav, "--task", "asr", "--lang", "en")),
        (
            root / "tokenizers",
            ("prepare", root / "manifest.jsonl", tmp_path / "s", "--tokenizers", root / "tokenizers"),
        ),
        (root / "shards", ("validate", root / "shards")),
        (step, ("train", "tiny", *start, "--start", step)),
        (hf, ("import", hf, tmp_path / "m")),
    ]
    tried = 0
    for folder, command in readers:
        for path in files_of(folder):
            content = path.read_bytes()
            for poison in poisons(tmp_path, mark):
                path.write_bytes(poison)
                ended = unitok(*command)
                assert ended.code in (0, 2), ended  # 0: a file that this command does not read
                assert not mark.exists(), f"{path} was unpickled"
                tried += 1
            path.write_bytes(content)
    assert tried > 100
    for poison in poisons(tmp_path, mark):
        for name in ("bad.wav", "bad.flac", "bad.npy", "bad.pt"):
            (tmp_path / name).write_bytes(poison)
            refused("generate", root / "model", tmp_path / name, "--task", "asr", "--lang", "en", saying=name)
        for name in ("m.jsonl", "m.tsv", "m.json"):
            (tmp_path / name).write_bytes(poison)
            refused("prepare", tmp_path / name, tmp_path / "s", "--tokenizers", root / "tokenizers", saying=name)
        for name in ("r.yaml", "r.json"):
            (tmp_path / name).write_bytes(poison)
            refused("train", tmp_path / name, *start, saying=name)
    assert not mark.exists()


@pytest.mark.parametrize("extra", ["pytorch_model.bin", "model.bin", "model.pt", "optimizer.pt", "tokenizer.pkl"])
def test_pickled_weights_beside_or_instead_of_ours(extra: str, shop: Workshop, tmp_path: Path) -> None:
    hf, mark = tmp_path / "hf", tmp_path / "mark"
    works("export", shop.model, hf)
    for poison in poisons(tmp_path, mark):
        (hf / extra).write_bytes(poison)
        works("import", hf, tmp_path / "m")
        assert not (tmp_path / "m" / extra).exists() and not list((tmp_path / "m").rglob(extra))
    (hf / "model.safetensors").unlink()
    refused("import", hf, tmp_path / "m", saying=("model.safetensors", "missing"))
    assert not mark.exists()


def test_other_peoples_weights_are_not_unpickled(tmp_path: Path) -> None:
    import torch

    from unitok_tokenizers.acoustic.folders import load_plain_state

    mark = tmp_path / "mark"
    for number, poison in enumerate(poisons(tmp_path, mark)):
        path = tmp_path / f"{number}.th"
        path.write_bytes(poison)
        with pytest.raises(InputError, match="not the weights"):
            load_plain_state(torch.nn.Linear(1, 1), path)
    assert not mark.exists()


def test_yaml_makes_no_objects(shop: Workshop, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    tag = f"!!python/object/apply:os.mkdir ['{mark}']"
    path = tmp_path / "r.yaml"
    for text in (f"preset: {tag}\n", f"preset: tiny\ntrain: {tag}\n", f"{tag}\n"):
        path.write_text(text, encoding="utf-8")
        refused(*shop.train(tmp_path / "run", recipe=path), saying=path)
    refused(*shop.train(tmp_path / "run", "--set", f"train.steps={tag}"), saying="not YAML")
    assert not mark.exists()


# -- remote code ----------------------------------------------------------------------------------------------------


def test_code_in_a_model_folder_is_not_run(shop: Workshop, tmp_path: Path) -> None:
    """`auto_map` is how a folder asks for its own code; here it changes nothing, and exports ask for none."""
    hf, mark = tmp_path / "hf", tmp_path / "mark"
    works("export", shop.model, hf)
    assert not list(hf.rglob("*.py"))
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        assert "auto_map" not in read_json(hf / name)
    code = f"import os\nos.mkdir({str(mark)!r})\n"
    for name in ("modeling.py", "configuration.py", "tokenization.py", "setup.py", "conftest.py", "__init__.py"):
        (hf / name).write_text(code, encoding="utf-8")
    config = read_json(hf / "config.json")
    auto = {"AutoConfig": "configuration.C", "AutoModelForCausalLM": "modeling.M", "AutoTokenizer": "tokenization.T"}
    write_json(hf / "config.json", {**config, "auto_map": auto, "trust_remote_code": True})
    works("import", hf, tmp_path / "m")
    assert not list((tmp_path / "m").rglob("*.py"))
    write_json(hf / "config.json", {**config, "model_type": "custom", "auto_map": auto})
    refused("import", hf, tmp_path / "m", saying=("'custom'", "llama"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "value", ["os:system", "unitok_training.trainer.loop:train", "../x", "__import__('os')", "subprocess"]
)
def test_a_folder_cannot_name_the_class_that_reads_it(value: str, shop: Workshop, tmp_path: Path) -> None:
    model = Path(shutil.copytree(shop.model, tmp_path / "model"))
    found = 0
    for path in model.rglob("config.json"):
        config = read_json(path)
        if "class" in config:
            write_json(path, {**config, "class": value})
            ended = unitok("generate", model, shop.root / "0.wav", "--task", "asr", "--lang", "en")
            assert ended.code in (0, 2), ended  # 0: where only one class is possible, its name is not read
            write_json(path, config)
            found += ended.code == 2
    assert found >= 2


# -- paths ----------------------------------------------------------------------------------------------------------

ESCAPES = ("../escaped", "/tmp/unitok-escaped/x", "a/../../escaped", "..", "~/escaped", "a\\..\\..\\escaped", "sub/x")


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_no_name_in_a_manifest_leads_out_of_the_output(shop: Workshop, tmp_path: Path) -> None:
    """Ids, groups, speakers, splits and languages become columns, never names of files."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(ESCAPES):
        row = {"text": "we buy two books now", "id": name, "group": name, "speaker": name, "split": name}
        rows = [{**row, "audio": str(shop.root / "0.wav")}, {**row, "id": "other", "extras": {name: name}}]
        manifest = write_rows(tmp_path / "in/m.jsonl", rows)
        before = everything(tmp_path)
        works("prepare", manifest, tmp_path / f"out{number}", "--tokenizers", shop.tokenizers)
        new = everything(tmp_path) - before
        assert {path.split("/")[0] for path in new} == {f"out{number}"}
        assert all(re.fullmatch(r"out\d+(/(manifest\.json|part-\d{5}\.arrow(\.json)?))?", path) for path in new), new
        small = ("--encoder", "mfcc", "--codec-steps", 0, "--clusters", 2, "--text-pieces", 300)
        write_rows(manifest, [{**row, "split": "train"} for row in rows])
        before = everything(tmp_path)
        unitok("fit-tokenizers", manifest, tmp_path / f"fit{number}", *small)
        assert {path.split("/")[0] for path in everything(tmp_path) - before} <= {f"fit{number}"}
    assert not Path("/tmp/unitok-escaped").exists()


def test_no_name_in_a_manifest_of_transcripts_leads_out(shop: Workshop, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    for name in ("../../0", "/etc/hostname", "../shop0/0.wav"):
        lines.write_text(json.dumps({"audio": name, "text": "a", "id": name, "speaker": name}), encoding="utf-8")
        before = everything(tmp_path)
        unitok("manifest", shop.root, lines, "-o", tmp_path / "m.jsonl")
        assert everything(tmp_path) - before <= {"m.jsonl"}
        if (tmp_path / "m.jsonl").exists():
            row = json.loads((tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()[0])
            assert (tmp_path / row["audio"]).resolve().is_relative_to(shop.root.resolve())


@pytest.mark.parametrize("name", ["../part.arrow", "/etc/passwd", "..", "sub/part.arrow", "../shards/part-00000.arrow"])
def test_no_name_in_a_shards_manifest_leads_out(name: str, shop: Workshop, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(shop.shards, tmp_path / "shards"))
    shutil.copyfile(shards / "part-00000.arrow", tmp_path / "part.arrow")
    manifest = read_json(shards / "manifest.json")
    manifest["files"][0]["name"] = name
    write_json(shards / "manifest.json", manifest)
    with pytest.raises(InputError, match="leaves the folder|is missing"):
        Shards.open(shards)
    before = everything(tmp_path)
    works("prepare", shop.manifest, shards, "--tokenizers", shop.tokenizers)  # a repeat trusts no names either
    assert (tmp_path / "part.arrow").exists() and everything(tmp_path) == before


def test_no_name_in_a_weight_index_leads_out(shop: Workshop, tmp_path: Path) -> None:
    hf = tmp_path / "hf"
    works("export", shop.model, hf)
    shutil.move(hf / "model.safetensors", tmp_path / "model.safetensors")
    for name in ("../model.safetensors", str(tmp_path / "model.safetensors")):
        write_json(hf / "model.safetensors.index.json", {"weight_map": {"model.norm.weight": name}})
        refused("import", hf, tmp_path / "m", saying=("leaves the folder", name))
    assert not (tmp_path / "m").exists()


def test_a_link_in_the_place_of_a_draft_is_not_followed(shop: Workshop, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "keep").write_text("years", encoding="utf-8")
    place = tmp_path / "place"
    place.mkdir()
    (place / ".out.part").symlink_to(treasure)
    unitok("export", shop.model, place / "out")
    (place / ".m.jsonl.part").symlink_to(treasure / "keep")
    lines = tmp_path / "lines.txt"
    lines.write_text("0 we buy\n", encoding="utf-8")
    unitok("manifest", shop.root, lines, "-o", place / "m.jsonl")
    (place / ".a.wav.part").symlink_to(treasure / "keep")
    unitok("generate", shop.model, "hi", "--task", "tts", "--lang", "en", "-o", place / "a.wav")
    shards = place / "shards"
    shards.mkdir()
    (shards / ".part-00000.arrow.part").symlink_to(treasure / "keep")
    unitok("prepare", shop.manifest, shards, "--tokenizers", shop.tokenizers)
    assert [path.name for path in treasure.iterdir()] == ["keep"]
    assert (treasure / "keep").read_text(encoding="utf-8") == "years"


def test_links_in_a_model_folder_are_copied_as_files_or_refused(shop: Workshop, tmp_path: Path) -> None:
    """An export of somebody's folder holds no link that would later be written through."""
    model = Path(shutil.copytree(shop.model, tmp_path / "model"))
    moved = tmp_path / "vocoder"
    shutil.move(model / "vocoder", moved)
    (model / "vocoder").symlink_to(moved)
    ended = unitok("export", model, tmp_path / "hf")
    assert ended.code in (0, 2)
    assert not [path for path in (tmp_path / "hf").rglob("*") if path.is_symlink()]


def test_archives_are_not_unpacked(shop: Workshop, tmp_path: Path) -> None:
    """No command takes an archive: one under the name of a folder or manifest is refused, and nothing comes out."""
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../escaped", "x")
        file.writestr("unitok.json", "{}")
    for command in (
        ("generate", archive, "hi", "--task", "lm", "--lang", "en"),
        ("inspect", archive),
        ("import", archive, tmp_path / "m"),
        ("prepare", archive, tmp_path / "s", "--tokenizers", shop.tokenizers),
    ):
        refused(*command, saying=archive)
    assert everything(tmp_path) == {"model.zip"}


# -- the source -----------------------------------------------------------------------------------------------------

FORBIDDEN = {
    "os.system", "os.popen", "os.execv", "os.execvp", "os.execve", "os.spawnl", "os.spawnv", "pty.spawn",
    "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec", "compile", "__import__",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open", "dill.load", "joblib.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "torch.hub.load", "torch.jit.load",
    "torch.package.PackageImporter", "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive",
}  # fmt: skip


def trouble(tree: ast.AST) -> Iterator[str]:
    """Calls that would run what a file or a user says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in UNWANTED)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: word.value for word in node.keywords}
        if name in FORBIDDEN:
            yield f"{node.lineno}: {name}"
        if (shell := given.get("shell")) is not None and not _is(shell, False):
            yield f"{node.lineno}: {name} with a shell"
        if name.endswith("torch.load") and not _is(given.get("weights_only"), True):
            yield f"{node.lineno}: torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and not _is(given.get("allow_pickle", ast.Constant(False)), False):
            yield f"{node.lineno}: {name} with pickles"
        if (remote := given.get("trust_remote_code")) is not None and not _is(remote, False):
            yield f"{node.lineno}: {name} trusts remote code"
        if name.endswith("from_pretrained") and not _is(given.get("local_files_only"), True):
            yield f"{node.lineno}: {name} may download"


UNWANTED = ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "tarfile", "zipfile", "pty")


def _is(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("package", PACKAGES)
def test_the_source_runs_no_shell_and_unpickles_nothing(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert len(paths) > 3
    found = [
        f"{path.relative_to(ROOT)}:{one}"
        for path in paths
        for one in trouble(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "os.system(x)", "subprocess.run(x, shell=True)", "torch.load(x)", "torch.load(x, weights_only=False)",
        "import pickle", "from pickle import loads", "np.load(x, allow_pickle=True)", "yaml.load(x)", "eval(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)", "A.from_pretrained(x)",
    ],
)  # fmt: skip
def test_the_check_of_the_source_finds(text: str) -> None:
    assert list(trouble(ast.parse(text)))


def test_security_md_says_what_is_trusted() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for word in ("unpickle", "remote code", "manifest", "safetensors", "shell", "report"):
        assert word in text
