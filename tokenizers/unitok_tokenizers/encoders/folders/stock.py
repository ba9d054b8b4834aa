"""What encoders through transformers have in common: stopping at a layer, configurations as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unitok_tokenizers.files import intact


class _Reached(Exception):
    """The layer has been given its input."""


@contextmanager
def input_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Run a model inside, up to `layer`; afterwards the list holds what the layer was given, and nothing behind it ran.

    Whatever else a layer is given, masks or relative positions, is its model's own business: this holds for all kinds.
    """
    found: list[Tensor] = []

    def stop(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append(arguments[0] if arguments else named["hidden_states"])
        raise _Reached

    handle = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield found
    except _Reached:
        pass
    finally:
        handle.remove()
    assert found, "the layer was not reached"


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration as JSON, without the version that wrote it and without settings of its own run."""
    return {key: value for key, value in config.to_diff_dict().items() if key not in ("transformers_version", "dtype")}


def pretrained(kind: Any, folder: Path) -> Any:
    """A model of transformers' class `kind`, float32, from a local folder; a head on top of it is left out.

    Raises:
        InputError: weights that are damaged, or not there: the class would begin with random ones instead.
    """
    with intact(folder, "copy the folder again, config.json and weights"):
        loaded: Any = kind.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        model, info = loaded
        lost = [name for name in sorted(info["missing_keys"]) if name != "masked_spec_embed"]  # of pre-training alone
        if lost:
            raise ValueError(f"{len(lost)} weights are not there, such as {lost[0]}")
        if info["mismatched_keys"]:
            raise ValueError(f"weights of another shape, such as {sorted(info['mismatched_keys'])[0]}")
    return model.eval()
