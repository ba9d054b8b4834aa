"""Second passes by the name of their layout."""

from __future__ import annotations

from typing import Any

import torch

from unitok.layouts.second_pass import SecondPass
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.registry import Registry

SECOND_PASSES = Registry(
    "second pass",
    {
        "first_nar": "unitok.layouts.refiner:Refiner",
        "first_regress": "unitok.layouts.regression:Regression",
    },
)


def second_pass_from_config(config: dict[str, Any], generator: torch.Generator | None = None) -> SecondPass:
    """One with fresh weights, from what its `config` gave; InputError where it is none."""
    found = SECOND_PASSES[config.get("class")]
    try:
        made: SecondPass = found.from_config(config, generator)
    except (KeyError, TypeError) as error:
        raise InputError(f"no second pass {config['class']!r} ({error!r}); take its config from the model") from error
    return made
