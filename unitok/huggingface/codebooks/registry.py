"""The families by the names that model directories give them. A new one is a file and a line here."""

from __future__ import annotations

import json
from pathlib import Path

from unitok.huggingface.codebooks.base import CONFIG, Family, HostFolder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json
from unitok_tokenizers.registry import Registry

FAMILIES = Registry(
    "family of models that write codes",
    {
        "orpheus": "unitok.huggingface.codebooks.orpheus:Orpheus",
        "llasa": "unitok.huggingface.codebooks.llasa:Llasa",
        "csm": "unitok.huggingface.codebooks.csm:Csm",
    },
)
"""Name → class."""


def family_named(name: str) -> Family:
    """A family; InputError where there is none of that name."""
    found: Family = FAMILIES[name]()
    return found


def family_of(root: Path) -> tuple[Family, HostFolder] | None:
    """The family that a folder is of, and what it says of itself; None for a language model without codes.

    Raises:
        InputError: a folder that is of a family that nothing here computes.
    """
    if not (root / CONFIG).is_file():
        return None
    folder = HostFolder(root=root, config=read_json(root / CONFIG), tokens=_added_tokens(root / "tokenizer.json"))
    return next(((one, folder) for one in map(family_named, FAMILIES) if one.claims(folder)), None)


def _added_tokens(path: Path) -> dict[str, int]:
    """Added tokens of a `tokenizer.json` → ids."""
    if not path.is_file():
        return {}
    try:
        return {str(one["content"]): int(one["id"]) for one in json.loads(path.read_text("utf-8"))["added_tokens"]}
    except (KeyError, TypeError, ValueError):
        return {}  # whoever reads the text says what is wrong with it
