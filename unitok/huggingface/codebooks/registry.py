"""The families by the names that model directories give them. A new one is a file and a line here."""

from __future__ import annotations

import json
from pathlib import Path

from unitok.huggingface.codebooks.base import CONFIG, Family, HostFolder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_object
from unitok_tokenizers.registry import Registry

FAMILIES = Registry(
    "family of models that write codes",
    {
        "orpheus": "unitok.huggingface.codebooks.orpheus:Orpheus",
        "llasa": "unitok.huggingface.codebooks.llasa:Llasa",
        "csm": "unitok.huggingface.codebooks.csm:Csm",
        "moshi": "unitok.huggingface.codebooks.moshi:Moshi",
        "kyutai_stt": "unitok.huggingface.codebooks.kyutai_stt:KyutaiStt",
    },
)
"""Name → class."""
REFUSED = {
    model_type: "has sinusoidal positions, LayerNorm and attention to an encoder of text in every block, which the "
    "decoder here does not compute: its pattern of delays is the layout 'delay', its weights have no place"
    for model_type in ("musicgen", "musicgen_decoder", "musicgen_melody", "musicgen_melody_decoder")
}
"""`model_type` of models that write codes and are not computed here → why."""


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
    config = read_object(root / CONFIG)
    if (kind := config.get("model_type")) in REFUSED:
        raise InputError(f"{root}: a model of type {kind!r} {REFUSED[kind]}")
    folder = HostFolder(root=root, config=config, tokens=_added_tokens(root / "tokenizer.json"))
    return next(((one, folder) for one in map(family_named, FAMILIES) if one.claims(folder)), None)


def _added_tokens(path: Path) -> dict[str, int]:
    """Added tokens of a `tokenizer.json` → ids."""
    if not path.is_file():
        return {}
    try:
        return {str(one["content"]): int(one["id"]) for one in json.loads(path.read_text("utf-8"))["added_tokens"]}
    except (KeyError, TypeError, ValueError):
        return {}  # whoever reads the text says what is wrong with it
