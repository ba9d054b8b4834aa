"""The tree of folders at the end of README: each with its gloss, the beginning of what it says of itself.

python -m tools.file_tree              writes it anew
python -m tools.file_tree --check      fails where it is out of date
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## Tree\n"
TOPS = ("unitok", "tokenizers", "vocoder", "training", "tests", "tools", "benchmarks", "docs", ".ci")
"""Folders of the root in reading order."""
GLOSSES = {
    ".ci": "what CI runs",
    "docs": "one subject a page",
    "tests": "flat, named by room",
    "tests/artifacts": "files of an early version: they open ever after",
    "tests/goldens": "what never changes by accident",
    "tokenizers": "floor 1",
    "training": "floor 4",
    "vocoder": "floor 2",
}
"""Folders that hold no Python of their own."""
NAME_WIDTH, LINE_WIDTH, DEPTH = 24, 104, 3
"""Columns of names and of lines, and how many folders deep the tree goes."""


def repository_folders() -> list[str]:
    """Folders with files under version control, by their path from the root. FileNotFoundError without git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise FileNotFoundError(listed.stderr.strip())
    paths = [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    found = {parent.as_posix() for path in paths for parent in path.parents if parent != Path()}
    data = tuple(f"{name}/" for name in GLOSSES if name.startswith("tests/"))
    return sorted(name for name in found if not name.startswith(data) and name.count("/") < DEPTH)


def gloss(folder: str) -> str:
    """What a folder is for; AssertionError where nothing says so."""
    if folder in GLOSSES:
        return GLOSSES[folder]
    text = (ROOT / folder / "__init__.py").read_text(encoding="utf-8")
    whole = " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split()).rstrip(".")
    assert whole, f"{folder} does not say what it is for: give its __init__.py a docstring"
    room = LINE_WIDTH - NAME_WIDTH - 4
    if len(whole) <= room:
        return whole
    ends = [hit.start() for hit in re.finditer(r"[,:;.] ", whole[: room + 1])]
    return whole[: ends[-1]] if ends else whole


def file_tree(folders: Iterable[str]) -> str:
    """The indented block of README."""
    lines = []
    for folder in sorted(folders, key=lambda name: (TOPS.index(name.split("/")[0]), name)):
        path = Path(folder)
        name = f"{'  ' * (len(path.parts) - 1)}{path.name}/"
        lines.append(f"    {name:<{NAME_WIDTH}}{gloss(folder)}")
    return "\n".join(lines) + "\n"


def tree_names(tree: str) -> list[str]:
    """Paths that a tree names; the inverse of `file_tree` but for the glosses."""
    names: list[str] = []
    parts: list[str] = []
    for line in tree.split("\n"):
        if hit := re.match(r" {4}((?:  )*)(\S+)/ ", line):
            parts = [*parts[: len(hit[1]) // 2], hit[2]]
            names.append("/".join(parts))
    return names


def main() -> int:
    """Rewrite the end of README."""
    readme = ROOT / "README.md"
    head, found, _ = readme.read_text(encoding="utf-8").partition(HEADING)
    assert found, f"README.md has no heading {HEADING.strip()!r}"
    text = f"{head}{HEADING}\n{file_tree(repository_folders())}"
    if "--check" in sys.argv[1:]:
        fresh = text == readme.read_text(encoding="utf-8")
        print("the tree of README.md is as it should be" if fresh else "README.md: run `make tree`")
        return 0 if fresh else 1
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
