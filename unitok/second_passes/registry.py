"""Second passes by the names of their layouts. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from unitok.second_passes.base import SecondPass
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.registry import Registry

SECOND_PASSES = Registry(
    "second pass",
    {
        "first_nar": "unitok.second_passes.refiner:Refiner",
        "first_regress": "unitok.second_passes.regression:Regression",
    },
)
"""Name → class. Groups of frames whose later codebooks are refined take the first."""


def second_pass_name(pattern: FramePattern) -> str | None:
    """Which second pass finds what a pattern leaves open; None where it leaves nothing open."""
    if not any(slot.role == "refined" for slot in pattern.slots):
        return None
    return pattern.layout if pattern.layout in SECOND_PASSES else "first_nar"


def make_second_pass(
    name: str,
    pattern: FramePattern,
    *,
    ids: int,
    options: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> SecondPass:
    """A new one for a vocabulary of so many ids; InputError for an unknown name or option."""
    kind: type[SecondPass] = SECOND_PASSES[name]
    return kind(kind.read_options(options or {}), pattern, ids=ids, generator=generator)


def second_pass_from_config(config: Mapping[str, Any]) -> SecondPass:
    """The inverse of `SecondPass.config`, with fresh weights; InputError where it is none."""
    try:
        name, ids, options, pattern = (config[key] for key in ("second_pass", "ids", "options", "pattern"))
    except (KeyError, TypeError) as error:
        raise InputError(f"no second pass ({error!r}); copy the model directory again") from error
    return make_second_pass(name, FramePattern.from_json(pattern), ids=ids, options=options)


@torch.no_grad()
def for_more_ids(one: SecondPass, ids: int, *, generator: torch.Generator | None = None) -> SecondPass:
    """The same for a vocabulary that has grown to so many ids: rows of new ids are drawn, all else stays."""
    assert ids >= one.ids, "vocabularies only grow"
    if ids == one.ids:
        return one
    made = make_second_pass(one.name, one.pattern, ids=ids, options=one.config()["options"], generator=generator)
    fresh = made.state_dict()
    for name, value in one.state_dict().items():
        same = fresh[name].shape == value.shape
        (fresh[name] if same else fresh[name][: one.ids]).copy_(value)
    return made
