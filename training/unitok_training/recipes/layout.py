"""How the codebooks of codes meet a decoder: a recipe's choice, and what it makes of a stream of codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from unitok.layouts.configured import ConfiguredLayout
from unitok.layouts.registry import LAYOUTS, layout_pattern, make_layout
from unitok.second_passes.base import SecondPass
from unitok.second_passes.registry import make_second_pass, second_pass_name
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.streams import StreamInfo

FLAT, TWO_PASSES = "flat", "coarse_fine"
"""Layouts of ids alone: all codebooks of a frame one after another, or those of a first pass before the others."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What a model is besides its decoder. An option that is None is the layout's own default."""

    layout: str = FLAT
    """"flat" (every code an id of its own), "coarse_fine" (the first codebooks of all frames, then the others), or with
    codes beside ids: "depth", "parallel", "delay", "group", "channels"; "first_nar" and "first_regress" leave all but
    the first codebook to a second pass."""
    coarse: int | None = None
    """Codebooks of the first pass of "coarse_fine"; 1 where None."""
    depth_layers: int | None = None
    """Blocks of the small decoder over the codebooks of a frame."""
    depth_width: int | None = None
    """Its width."""
    depth_heads: int | None = None
    """Its query heads."""
    depth_kv_heads: int | None = None
    """Its key and value heads."""
    state_added: bool | None = None
    """Of "depth": the large decoder's state is added to every step, instead of being the first one."""
    step_projections: bool | None = None
    """Of "depth": what enters each step goes through a matrix of its own, instead of one for all."""
    delays: tuple[int, ...] | None = None
    """Of "delay" and "depth": positions by which each codebook behind the first follows its frame."""
    frames: int | None = None
    """Of "group": frames of one position."""
    refined: bool | None = None
    """Of "group": codebooks behind the first are left to a second pass."""
    reads_id: bool | None = None
    """Of parallel heads: they read the position's id as well."""
    sums: bool | None = None
    """Of a first pass: frames that are given enter the decoder as sums of all their codebooks."""
    second_layers: int | None = None
    """Blocks of a second pass, which sees whole spans both ways."""
    second_width: int | None = None
    """Its width."""
    second_heads: int | None = None
    """Its query heads."""
    second_kv_heads: int | None = None
    """Its key and value heads."""

    def check(self) -> None:
        """InputError for what cannot be: asked when all keys are known, in whatever order they came."""
        known = (FLAT, TWO_PASSES, *LAYOUTS)
        if self.layout not in known:
            raise InputError(f"model.layout is {self.layout!r}: choose from {', '.join(known)}")
        given = [one.name for one in fields(self) if one.name != "layout" and getattr(self, one.name) is not None]
        for name in given:
            if self.layout not in OF[name]:
                raise InputError(f"model.{name} is of the layout {' or '.join(OF[name])}, not of {self.layout!r}")
            value = getattr(self, name)
            if name in COUNTS and not 1 <= value <= COUNTS[name]:
                raise InputError(f"model.{name} is {value}: it must be from 1 to {COUNTS[name]}")

    def options(self) -> dict[str, Any]:
        """What the layout's own configuration is given."""
        found: dict[str, Any] = {}
        for name in ("state_added", "step_projections", "delays", "frames", "refined", "reads_id", "sums"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        if shape := self._shape("depth"):
            found["decoder"] = shape
        return found

    def _shape(self, part: str) -> dict[str, int]:
        """What is said of the shape of a network beside the decoder."""
        shape = {name: getattr(self, f"{part}_{name}") for name in SHAPE}
        return {name: value for name, value in shape.items() if value is not None}

    def pattern(self, stream: StreamInfo) -> FramePattern | None:
        """Where the codes of a stream stand; None where each is an id of its own.

        Raises:
            InputError: a stream that the layout cannot lay.
        """
        if self.layout == FLAT:
            return None
        if self.layout != TWO_PASSES:
            return layout_pattern(self.layout, stream, self.options())
        books = len(stream.cardinalities)
        coarse = 1 if self.coarse is None else self.coarse
        if not 0 < coarse < books:
            raise InputError(
                f"model.coarse is {coarse}: of the {books} codebooks of stream {stream.name!r} a first pass has at "
                "least one, and not all"
            )
        return FramePattern(
            layout=TWO_PASSES, stream=stream.name, cardinalities=stream.cardinalities, inline=tuple(range(books)),
            coarse=coarse,
        )  # fmt: skip

    def made(self, pattern: FramePattern, width: int, seed: int) -> ConfiguredLayout:
        """A new layout of slots for a decoder of this width, with weights that are drawn."""
        generator = torch.Generator().manual_seed(seed)
        return make_layout(pattern, width=width, options=self.options(), generator=generator)

    def check_kept(self, own: ConfiguredLayout, start: str) -> None:
        """InputError where a start's layout, which is kept, was made with other options than are given here."""
        for name, value in self.options().items():
            kept, said = getattr(own.options, name), value if name == "decoder" else {name: value}
            for one, given in said.items():
                there = getattr(kept, one) if name == "decoder" else kept
                if there != given:
                    option = f"depth_{one}" if name == "decoder" else one
                    raise InputError(
                        f"model.{option} is {given}, and {start} was made with {there}: a start keeps its own; leave "
                        "it out"
                    )

    def check_second_pass(self, own: SecondPass | None) -> None:
        """InputError where a shape is given of a second pass that there is not, or that a start has otherwise."""
        for name, value in self._shape("second").items():
            if own is None:
                raise InputError(f"model.second_{name} is {value}, and this layout leaves nothing to a second pass")
            if (kept := getattr(own.options.decoder, name)) != value:
                raise InputError(
                    f"model.second_{name} is {value}, and the start's second pass was made with {kept}: a start keeps "
                    "its own; leave it out"
                )

    def second_pass(self, pattern: FramePattern, ids: int, seed: int, latent: int | None) -> SecondPass | None:
        """What finds the codes that a pattern leaves open, new, for a vocabulary of so many ids; None where it leaves
        none. `latent` is the width of the codec's latents, where these are found in place of codes."""
        name = second_pass_name(pattern)
        if name is None:
            return None
        options: dict[str, Any] = {"decoder": self._shape("second")}
        if latent is not None:
            options["latent"] = latent
        generator = torch.Generator().manual_seed(seed)
        return make_second_pass(name, pattern, ids=ids, options=options, generator=generator)


SHAPE = ("layers", "width", "heads", "kv_heads")
FIRST = ("first_nar", "first_regress")
PARALLEL = ("parallel", "delay", "group", "channels")
OF: Mapping[str, tuple[str, ...]] = {
    "coarse": (TWO_PASSES,),
    **dict.fromkeys(("depth_layers", "depth_width", "depth_heads", "depth_kv_heads"), ("depth",)),
    **dict.fromkeys(("state_added", "step_projections"), ("depth",)),
    "delays": ("delay", "depth"),
    "frames": ("group",),
    "refined": ("group",),
    "reads_id": PARALLEL,
    "sums": FIRST,
    **dict.fromkeys((f"second_{one}" for one in SHAPE), (*FIRST, "group")),
}
"""Option → the layouts that have it."""
COUNTS: Mapping[str, int] = {
    **{f"{part}_{one}": most for part in ("depth", "second") for one, most in zip(SHAPE, (256, 65536, 1024, 1024))},
    "frames": 64,
}
"""Option that counts something → the most that it may be: beyond, it is a slip of the pen."""
