"""What a family of folders is: which folders are its own, how one is read into our parts, and how it is written again.

V ids, N rows that a host has, C width, F frames, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.grammar.held_rows import Held, held_extents
from unitok_tokenizers.text.huggingface import HostText

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class HostFolder:
    """A folder as its makers wrote it."""

    root: Path
    """Where it is."""
    config: Mapping[str, Any]
    """Its `config.json`."""
    tokens: Mapping[str, int]
    """Added tokens of its `tokenizer.json` → ids; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What a folder holds, as our parts."""

    decoder: Decoder
    """With N rows, those of the text first."""
    text: HostText
    """Its text."""
    held: tuple[Held, ...]
    """What its rows behind the text are; see `Vocabulary.build`."""
    layout: CodebookLayout | None = None
    """What computes the codes beside the ids; None where every code has a row of the decoder."""
    rest: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights that nothing here computes with, such as a codec's: they leave as they came."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the way back must know besides `config.json`; JSON."""

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return self.text.size + sum(extent.size for extent in held_extents(self.held, 0))


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """A model as it goes out again."""

    decoder: Decoder
    """The decoder, with the host's N rows first."""
    rows: int
    """N."""
    config: Mapping[str, Any]
    """The host's `config.json`."""
    layout: CodebookLayout | None = None
    """As in `Brought`."""
    rest: Mapping[str, Tensor] = field(default_factory=dict)
    """As in `Brought`."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """As in `Brought`."""


class Family(Protocol):
    """Folders of one kind."""

    name: str
    """As the registry and model directories call it."""

    def claims(self, folder: HostFolder) -> bool:
        """Whether a folder is one of these, by what it says of itself."""

    def read(self, folder: HostFolder) -> Brought:
        """Read one. InputError where it is not what it says, or computes what nothing here does."""

    def state(self, leaving: Leaving) -> dict[str, Tensor]:
        """Every weight under its maker's name."""


def write_folder(family: Family, leaving: Leaving, text: HostText, folder: Path) -> None:
    """Write a folder as its makers wrote it: their class, their names, their types, no row of ours.

    Raises:
        InputError: the model has lost what it was imported with.
    """
    from safetensors.torch import save_file

    if not text.whole:
        raise InputError("this model does not hold the tokenizer of the folder that it comes from; import it again")
    dtype = stored_type(leaving.config)
    state, places = dict[str, Tensor](), set[int]()
    for name, value in family.state(leaving).items():
        value = value.detach().cpu()
        value = value.contiguous() if name in leaving.rest else value.to(dtype).contiguous()
        # A table that its makers store under two names is stored twice: the format knows no two names of one tensor.
        state[name] = value.clone() if value.untyped_storage().data_ptr() in places else value
        places.add(value.untyped_storage().data_ptr())
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, dict(leaving.config))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if text.settings.generation is not None:
        write_json(folder / "generation_config.json", dict(text.settings.generation))
    text.settings.write_templates(folder)
    for name, content in text.whole.items():
        (folder / name).write_text(content, encoding="utf-8")


def stored_type(config: Mapping[str, Any]) -> torch.dtype:
    """The type of weights that a `config.json` names; float32 where it names none."""
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"config.json: dtype {name!r} is no type of weights; take the file from the model again")
    return found
