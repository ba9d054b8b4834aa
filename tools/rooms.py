"""The house in figures: rooms with their files, lines and imports, the order that imports keep, circles, what is long.

    python -m tools.rooms            a table for people
    python -m tools.rooms --json     the same for programs

A room is a folder of a package; a file that stands in the package itself is a room of its own. Imports inside
functions, relative ones, and modules that a string names (`"package.module:function"`) count like any other.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "unitok_tokenizers": ROOT / "tokenizers/unitok_tokenizers",
    "unitok_vocoder": ROOT / "vocoder/unitok_vocoder",
    "unitok": ROOT / "unitok",
    "unitok_training": ROOT / "training/unitok_training",
}
"""Floors, the lowest first. The command line is the roof above all of them."""
ORDER: Mapping[str, tuple[str, ...]] = {
    "unitok_tokenizers": (
        "errors", "progress", "heap", "float32_buffers", "compute", "files", "stored_tensors", "registry", "seeds",
        "text.normalization",
        "audio.containers", "audio", "grammar.tasks", "grammar", "encoders.networks", "encoders.folders",
        "encoders", "text", "corpora",
        "semantic", "acoustic", "prosody", "tokenizer_set", "data.tables", "data",
    ),
    "unitok_vocoder": (
        "losses", "griffin_lim", "discriminators", "vocos", "hifigan", "mel_vocoder", "unit_mel", "conditions",
        "generator", "vocoder", "streaming",
    ),
    "unitok": (
        "inputs", "results", "token_files", "decoder", "layouts", "second_passes", "frontends.adapters", "frontends",
        "huggingface", "huggingface.codebooks", "model_parts", "generation", "listening", "requests", "model_directory",
        "new_voice", "placement", "task_model", "pipelines.backends", "pipelines",
        "model", "many", "nbest", "export", "cli.arguments", "cli.commands",
        "cli", "__main__",
    ),
    "unitok_training": (
        "runs", "checkpoint", "shard_set", "data", "model_defaults", "objectives", "trainer", "fitting",
        "fitting.waveforms", "recipes",
        "reports", "cost", "evaluation.ears", "evaluation", "speech_lm",
        "tokbench", "finetune", "first_weights", "run_models", "train", "train_latent",
        "systems.base", "systems.tokenizers", "systems.latent", "systems.text", "systems.tokens", "systems.codes",
        "systems.real", "systems.real_full", "systems",
        "experiments.demo", "experiments.compare", "experiments",
    ),
}  # fmt: skip
"""Rooms of each package: one imports only from those before it."""
LIKE = ("unitok.frontends.adapters", "unitok_training.systems.latent")
"""Rooms of like things, which may have more than `MOST_FILES`."""
MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES = 15, 400, 75
NAMED = re.compile(r"(unitok(?:_\w+)?(?:\.\w+)+)(?::\w+)?")


@dataclass(frozen=True)
class Module:
    """One file."""

    name: str
    """Dotted."""
    path: Path
    imports: frozenset[str]
    """Modules of the four packages."""
    lines: int

    @property
    def is_package(self) -> bool:
        """An `__init__`."""
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """Where it stands, in the notation of `ORDER`, behind its package."""
        package, *rest = self.name.split(".")
        inside = rest if self.is_package or len(rest) == 1 else rest[:-1]
        return ".".join([package, *inside])


def modules(packages: Mapping[str, Path] = PACKAGES) -> dict[str, Module]:
    """Every file of the packages by its dotted name."""
    paths: dict[str, Path] = {}
    for folder in packages.values():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            paths[".".join(part for part in parts if part != "__init__")] = path
    found = {}
    for name, path in paths.items():
        text = path.read_text(encoding="utf-8")
        imports = frozenset(other for other in imported(name, path, text, paths) if other != name)
        found[name] = Module(name, path, imports, len(text.splitlines()))
    return found


def imported(name: str, path: Path, text: str, known: Mapping[str, Path]) -> Iterator[str]:
    """Known modules that a file imports, wherever in it, or names in a string."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (hit := NAMED.fullmatch(node.value)):
            names = [hit[1]]
        else:
            continue
        yield from (one for one in names if one in known)


def circles(graph: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Groups of names that reach each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph.get(name, frozenset()):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def file_graph(found: Mapping[str, Module]) -> dict[str, frozenset[str]]:
    """Which file imports which; an `__init__` only says what its room is for."""
    return {
        name: frozenset(other for other in module.imports if not found[other].is_package)
        for name, module in found.items()
        if not module.is_package
    }


def room_graph(found: Mapping[str, Module]) -> dict[str, frozenset[str]]:
    """Which room imports from which."""
    graph: dict[str, set[str]] = {}
    for name, others in file_graph(found).items():
        rooms = graph.setdefault(found[name].room, set())
        rooms |= {found[other].room for other in others} - {found[name].room}
    return {room: frozenset(others) for room, others in graph.items()}


def disorder(found: Mapping[str, Module], order: Mapping[str, Sequence[str]] = ORDER) -> list[str]:
    """Imports against `ORDER`, and rooms that it does not name."""
    lines = []
    for room, others in sorted(room_graph(found).items()):
        package, _, own = room.partition(".")
        if own not in order[package]:
            lines.append(f"{room} stands in no order")
            continue
        for other in sorted(others):
            above, _, name = other.partition(".")
            if above == package and name in order[package] and order[package].index(name) > order[package].index(own):
                lines.append(f"{room} imports {other}, which stands above it")
    return lines


def long_functions(root: Path) -> list[str]:
    """Functions of more than `MOST_FUNCTION_LINES`."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {size} lines"
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]


@dataclass(frozen=True, kw_only=True)
class Room:
    """A row of the table."""

    name: str
    files: int
    lines: int
    imports: int
    """Rooms that it imports from."""
    imported_by: int
    """Rooms that import from it."""


def rooms(found: Mapping[str, Module]) -> list[Room]:
    """All rooms in the order of `ORDER`, floor by floor."""
    graph = room_graph(found)
    rows = []
    for package, names in ORDER.items():
        for own in names:
            room = f"{package}.{own}"
            inside = [module for module in found.values() if module.room == room and not module.is_package]
            by = sum(room in others for others in graph.values())
            size = sum(module.lines for module in inside)
            rows.append(
                Room(name=room, files=len(inside), lines=size, imports=len(graph.get(room, ())), imported_by=by)
            )
    return rows


def report() -> dict[str, object]:
    """Everything that there is to say."""
    found = modules()
    table = rooms(found)
    largest = max(table, key=lambda room: room.files)
    return {
        "rooms": [vars(room) for room in table],
        "files": len(found),
        "lines": sum(module.lines for module in found.values()),
        "circles": circles(file_graph(found)) + circles(room_graph(found)),
        "against_the_order": disorder(found),
        "largest_room": {"name": largest.name, "files": largest.files},
        "long_files": [f"{name}: {one.lines} lines" for name, one in found.items() if one.lines > MOST_LINES],
        "long_functions": [line for folder in PACKAGES.values() for line in long_functions(folder)],
    }


def main(arguments: Sequence[str]) -> int:
    """Print the report; 1 where something is not as it should be."""
    found = report()
    wrong = [key for key in ("circles", "against_the_order", "long_files", "long_functions") if found[key]]
    if "--json" in arguments:
        print(json.dumps(found, indent=2))
        return 1 if wrong else 0
    print(f"{'room':<36}{'files':>6}{'lines':>7}{'imports':>9}{'imported by':>13}")
    for room in rooms(modules()):
        print(f"{room.name:<36}{room.files:>6}{room.lines:>7}{room.imports:>9}{room.imported_by:>13}")
    for key, value in found.items():
        if key != "rooms":
            print(f"{key.replace('_', ' ')}: {value or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
