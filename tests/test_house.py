"""The shape of the house: floors, shadowing, light imports, the wheel's contents (design of the package layout).

Run alone with `pytest tests/test_house.py`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"unitok_tokenizers": 1, "unitok_vocoder": 2, "unitok": 3, "unitok_training": 4}
FOLDERS = {
    "unitok_tokenizers": ROOT / "tokenizers/unitok_tokenizers",
    "unitok_vocoder": ROOT / "vocoder/unitok_vocoder",
    "unitok": ROOT / "unitok",
    "unitok_training": ROOT / "training/unitok_training",
}
ROOF = 5


def modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of the four packages."""
    found = []
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found.append((".".join(part for part in parts if part != "__init__"), path))
        assert any(name.startswith(package) for name, _ in found)
    return found


def floor_of(name: str) -> int | None:
    if name.startswith(("unitok.cli", "unitok.__main__")):
        return ROOF
    return FLOORS.get(name.split(".")[0])


def imported_names(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def upward_imports(name: str, path: Path) -> list[str]:
    own = floor_of(name)
    assert own is not None
    return [f"{name} -> {other}" for other in imported_names(path) if (floor_of(other) or 0) > own]


def test_floors_import_only_downward() -> None:
    assert [line for name, path in modules() for line in upward_imports(name, path)] == []


def test_the_floor_rule_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("from unitok_training import loop\n", encoding="utf-8")
    assert upward_imports("unitok_tokenizers.bad", bad) == [
        "unitok_tokenizers.bad -> unitok_training",
        "unitok_tokenizers.bad -> unitok_training.trainer.loop",
    ]


@pytest.mark.parametrize("folder", ["tokenizers", "vocoder", "training"])
def test_no_python_directly_in_a_top_folder(folder: str) -> None:
    assert list((ROOT / folder).glob("*.py")) == []


def run_python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_hugging_face_tokenizers_is_not_shadowed_from_the_root() -> None:
    assert run_python("from tokenizers import Tokenizer; print(Tokenizer.__module__)", ROOT) == "tokenizers"


PATHS = f"import sys; sys.path[:0] = {[str(folder.parent) for folder in FOLDERS.values()]!r}\n"
HEAVY = ("transformers", "datasets", "matplotlib", "tensorboard", "jiwer", "sacrebleu", "encodec", "speechtokenizer")


def test_import_unitok_is_light(tmp_path: Path) -> None:
    code = PATHS + f"import unitok\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    assert run_python(code, tmp_path) == "[]"


def test_every_module_imports_with_the_minimal_dependencies(tmp_path: Path) -> None:
    """Optional packages are hidden; a module that needs one may only import it inside a function."""
    optional = (
        *HEAVY,
        "tokenizers",
        "espeakng_loader",
        "pocketsphinx",
        "scipy",
        "einops",
        "peft",
        "pandas",
        "flash_attn",
    )
    code = PATHS + (
        "import importlib\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {optional!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"for name in {[name for name, _ in modules()]!r}: importlib.import_module(name)\n"
        "print('ok')"
    )
    assert run_python(code, tmp_path) == "ok"


@pytest.mark.slow
def test_wheel_holds_the_four_packages_and_works_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("build", reason="the `build` package makes the wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(FLOORS)
    for name, path in modules():
        package = name.split(".")[0]
        assert f"{package}/{path.relative_to(FOLDERS[package]).as_posix()}" in names
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import unitok, unitok_training, unitok_vocoder, unitok_tokenizers\n"
        "print(all('site' in p.__file__ for p in (unitok, unitok_training, unitok_vocoder, unitok_tokenizers)))"
    )
    assert run_python(code, tmp_path) == "True"
