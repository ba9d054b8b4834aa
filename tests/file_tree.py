"""The file tree at the end of README: every file with its gloss, the first sentence of its module docstring.

python tests/file_tree.py              writes it anew
python tests/file_tree.py --check      fails where it is out of date
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## File tree\n"
ORDER = (
    "unitok",
    "unitok/cli",
    "tokenizers/unitok_tokenizers",
    "tokenizers/unitok_tokenizers/corpora",
    "vocoder/unitok_vocoder",
    "training/unitok_training",
    "benchmarks",
    "docs",
    "tests",
    ".ci",
)
"""Folders in reading order; others follow by name, and the root's own files come last."""
GLOSSES = {
    ".ci/run": "what CI runs",
    ".gitignore": "what is not kept",
    ".pre-commit-config.yaml": "the same checks before a commit",
    "CHANGELOG.md": "what changed",
    "CONTRIBUTING.md": "where things go, what a change owes",
    "LICENSE": "Apache-2.0",
    "Makefile": "the set-up commands",
    "README.md": "this page",
    "SECURITY.md": "what is trusted, and how to report a hole",
    "benchmarks/results.json": "the figures that `RESULTS.md` is made of",
    "constraints.txt": "versions that were tested together",
    "pyproject.toml": "packages, extras, tool settings",
}
"""Files without a docstring or heading of their own."""
DATA = ("tests/artifacts/", "tests/goldens/")
"""Folders of files that tests compare with."""
NAME_WIDTH, LINE_WIDTH = 29, 130


def repository_files() -> list[str]:
    """Files under version control that are there, by their path from the root. FileNotFoundError without git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise FileNotFoundError(listed.stderr.strip())
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return sorted(name for name in names if not name.startswith(DATA))


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence, or the end of the paragraph, without the stop."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    for match in re.finditer(r"[.:](?= |$)", paragraph):
        if match.group() == "." and not paragraph[: match.start()].endswith(("et al", "e.g", "i.e", "vs")):
            return paragraph[: match.start()]
    return paragraph.rstrip(":")


def gloss(name: str) -> str:
    """What a file is for; AssertionError where nothing says so."""
    path = ROOT / name
    if path.suffix == ".py":
        found = first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    elif path.suffix == ".cpp":
        lines = (line.removeprefix("//") for line in path.read_text(encoding="utf-8").split("\n"))
        found = first_sentence("\n".join(itertools.takewhile(str.strip, lines)))
    elif name in GLOSSES:
        found = GLOSSES[name]
    else:
        text = path.read_text(encoding="utf-8")
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        found = heading.group(1).strip() if heading else ""
    assert found, f"{name} does not say what it is for: give it a docstring, a heading, or a line in {__file__}"
    return found


def file_tree(names: Iterable[str]) -> str:
    """The indented block of README."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(str(Path(name).parent), []).append(name)
    known = [folder for folder in ORDER if folder in folders]
    rest = sorted(set(folders) - set(known) - {"."})
    lines: list[str] = []
    for folder in [*known, *rest, "."]:
        lines.append("" if folder == "." else f"    {folder}/")
        for name in folders.get(folder, []):
            line = f"      {Path(name).name:<{NAME_WIDTH}}{gloss(name)}"
            lines.append(line if len(line) <= LINE_WIDTH else shortened(line))
    return "\n".join(lines) + "\n"


def shortened(line: str) -> str:
    """A line that is too long, up to the last comma, colon or semicolon that fits and closes every bracket."""
    for match in reversed(list(re.finditer(r"[,:;] | \(", line[: LINE_WIDTH + 1]))):
        head = line[: match.start()]
        if head.count("(") == head.count(")"):
            return head
    raise AssertionError(f"the first clause is too long for a line: {line.strip()}")


def tree_names(tree: str) -> list[str]:
    """Paths that a tree names; the inverse of `file_tree` but for the glosses."""
    names: list[str] = []
    folder = ""
    for line in tree.split("\n"):
        if re.match(r" {4}\S+/$", line):
            folder = line.strip()
        elif not line.strip():
            folder = "" if names else folder
        else:
            names.append(folder + line.split()[0])
    return names


def main() -> int:
    """Rewrite the end of README."""
    readme = ROOT / "README.md"
    head, found, _ = readme.read_text(encoding="utf-8").partition(HEADING)
    assert found, f"README.md has no heading {HEADING.strip()!r}"
    text = f"{head}{HEADING}\n{file_tree(repository_files())}"
    if "--check" in sys.argv[1:]:
        fresh = text == readme.read_text(encoding="utf-8")
        print("the file tree of README.md is as it should be" if fresh else "README.md: run `make tree`")
        return 0 if fresh else 1
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
