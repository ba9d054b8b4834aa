"""The latent recipes by name, and from files. A new one is a function and an entry in the table of its file."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json
from unitok_training.recipes.decoder import YAML_TROUBLE, in_file, nearest, overridden, replaced
from unitok_training.recipes.latent import (
    LatentRecipe,
    fathullah,
    hono,
    latent,
    ling,
    pengi,
    qwen_audio,
    salmonn,
    slam_asr,
    slm,
    speech_llama,
    tiny,
    tsunoo,
    yu,
)  # fmt: skip
from unitok_training.recipes.latent_systems import SYSTEMS

LATENT_PRESETS: Mapping[str, Callable[[], LatentRecipe]] = {
    recipe.__name__: recipe
    for recipe in (
        latent, tiny, slam_asr, salmonn, qwen_audio, pengi, fathullah, speech_llama, ling, hono, yu, slm, tsunoo,
    )
}  # fmt: skip
"""Presets of `recipes.latent`; `latent_presets` has those of `latent_systems` too."""


def latent_presets() -> dict[str, Callable[[], LatentRecipe]]:
    """All presets by name."""
    return {**LATENT_PRESETS, **SYSTEMS}


def latent_preset(name: str) -> LatentRecipe:
    """A preset by its name. InputError with the nearest known one."""
    known = latent_presets()
    if name not in known:
        raise InputError(f"no latent preset {name!r}; did you mean {nearest(name, known)!r}? Known: {', '.join(known)}")
    return known[name]()


def load_latent_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> LatentRecipe:
    """A preset's name, a YAML file that names one, or a resolved JSON; then `key=value` overrides in order."""
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml", ".json"):
        data = read_json(path) if path.suffix == ".json" else _yaml(path)
        base = data.pop("preset" if path.suffix != ".json" else "name", None)
        with in_file(path):
            recipe = replaced(latent_preset(str(base)), data)
    else:
        recipe = latent_preset(str(name_or_file))
    return overridden(recipe, overrides)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_TROUBLE) as error:
        raise InputError(f"recipe {path} cannot be read: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(data, dict):
        raise InputError(f"recipe {path} names no preset: begin with `preset: latent`")
    return typing.cast(dict[str, Any], data)
