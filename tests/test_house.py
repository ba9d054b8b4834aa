"""The shape of the house: floors, shadowing, light imports, the wheel's contents (design of the package layout).

Run alone with `pytest tests/test_house.py`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tools.rooms import (
    LIKE,
    MOST_FILES,
    MOST_LINES,
    PACKAGES,
    Module,
    circles,
    disorder,
    file_graph,
    long_functions,
    modules,
    room_graph,
    rooms,
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = PACKAGES
FLOORS = {name: floor for floor, name in enumerate(PACKAGES, 1)}
ROOF = 5


def floor_of(name: str) -> int | None:
    if name.startswith(("unitok.cli", "unitok.__main__")):
        return ROOF
    return FLOORS.get(name.split(".")[0])


def upward_imports(found: Mapping[str, Module]) -> list[str]:
    """Imports of a floor from those above it, wherever in a file they stand."""
    return [
        f"{name} -> {other}"
        for name, module in found.items()
        for other in sorted(module.imports)
        if (floor_of(other) or 0) > (floor_of(name) or 0)
    ]


HOUSE = modules()


def test_floors_import_only_downward() -> None:
    assert upward_imports(HOUSE) == []


def test_rooms_import_in_their_order_and_nothing_goes_in_a_circle() -> None:
    assert disorder(HOUSE) == []
    assert circles(file_graph(HOUSE)) == [] and circles(room_graph(HOUSE)) == []


def test_rooms_are_small_and_so_are_files() -> None:
    table = {room.name: room.files for room in rooms(HOUSE)}
    large = {name for name, files in table.items() if files > MOST_FILES}
    assert large <= set(LIKE)
    assert all(files for files in table.values()), "a room without a file"
    assert {name: module.lines for name, module in HOUSE.items() if module.lines > MOST_LINES} == {}
    assert [line for folder in FOLDERS.values() for line in long_functions(folder)] == []


def test_every_room_says_what_it_is_for() -> None:
    packages = [module for module in HOUSE.values() if module.is_package]
    assert [one.name for one in packages if not ast.get_docstring(ast.parse(one.path.read_text("utf-8")))] == []


def made_of(folder: Path, **files: str) -> dict[str, Module]:
    """A package `unitok` with such files."""
    for name, text in files.items():
        path = folder / "unitok" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return modules({"unitok": folder / "unitok"})


def test_the_rules_can_fail(tmp_path: Path) -> None:
    """Imports in functions, relative ones and strings are seen."""
    found = made_of(
        tmp_path,
        generation__a='def f():\n    from unitok.model import x\n\n\nNAME = "unitok.export:g"\n',
        model="from .generation import a\n",
        export="",
    )
    assert found["unitok.generation.a"].imports == {"unitok.model", "unitok.export"}
    assert circles(file_graph(found)) == [["unitok.generation.a", "unitok.model"]]
    assert disorder(found) == [
        "unitok.generation imports unitok.export, which stands above it",
        "unitok.generation imports unitok.model, which stands above it",
    ]
    named = {"unitok.cli.x": Module("unitok.cli.x", tmp_path, frozenset(), 0)}
    low = Module("unitok_tokenizers.bad", tmp_path, frozenset(named), 0)
    assert upward_imports({**named, low.name: low}) == ["unitok_tokenizers.bad -> unitok.cli.x"]


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
        f"for name in {[name for name in HOUSE]!r}: importlib.import_module(name)\n"
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
    for name, module in HOUSE.items():
        package = name.split(".")[0]
        assert f"{package}/{module.path.relative_to(FOLDERS[package]).as_posix()}" in names
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import unitok, unitok_training, unitok_vocoder, unitok_tokenizers\n"
        "print(all('site' in p.__file__ for p in (unitok, unitok_training, unitok_vocoder, unitok_tokenizers)))"
    )
    assert run_python(code, tmp_path) == "True"
