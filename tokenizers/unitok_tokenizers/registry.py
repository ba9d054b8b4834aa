"""Names that stand for classes: what a configuration on disk calls a part, and where that part is.

A registry stands above its entries: whoever reads a configuration imports it, an entry never does.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json


class Registry(Mapping[str, Any]):
    """Name → class, imported when it is asked for: optional packages are needed only by those who use them."""

    def __init__(self, what: str, entries: Mapping[str, str]) -> None:
        """`what` it registers, for messages; `entries` are name → `module:class`."""
        self.what = what
        self.entries = dict(entries)

    def __getitem__(self, name: object) -> Any:
        """The class; InputError where there is none of that name."""
        if name not in self.entries:
            raise InputError(f"unknown {self.what} {name!r}; known: {', '.join(self.entries)}")
        module, _, attribute = self.entries[str(name)].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def load(self, folder: Path | str) -> Any:
        """Read what any of the classes saved, by the `class` in its `config.json`; InputError where it is none."""
        root = Path(folder)
        name = read_json(root / "config.json").get("class")
        if name not in self:
            raise InputError(f"{root}: unknown {self.what} {name!r}; known: {', '.join(self)}")
        return self[name].load(root)
