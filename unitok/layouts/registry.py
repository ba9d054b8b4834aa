"""The layouts by the names that recipes and patterns give them. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from unitok.layouts.base import CodebookLayout
from unitok.layouts.configured import ConfiguredLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.registry import Registry

LAYOUTS = Registry(
    "layout of codebooks",
    {
        "depth": "unitok.layouts.depth:DepthLayout",
        "delay": "unitok.layouts.delay:DelayLayout",
        "parallel": "unitok.layouts.parallel:ParallelLayout",
        "group": "unitok.layouts.group:GroupLayout",
        "channels": "unitok.layouts.channels:ChannelsLayout",
        "first_nar": "unitok.layouts.first:FirstNarLayout",
        "first_regress": "unitok.layouts.first:FirstRegressLayout",
    },
)
"""Name → class. What has no slots (`flat`, `coarse_fine`) has no module and no line."""

IMPORTED = Registry(
    "layout of codebooks",
    {
        "step_depth": "unitok.layouts.step_depth:StepDepthLayout",
        "input_only": "unitok.layouts.input_only:InputOnlyLayout",
    },
)
"""Those that only models from elsewhere have: no recipe chooses one."""


def layout_class(name: str) -> type[ConfiguredLayout]:
    """A registered class; InputError where there is none."""
    kind: type[ConfiguredLayout] = IMPORTED[name] if name in IMPORTED else LAYOUTS[name]
    return kind


def layout_pattern(name: str, stream: StreamInfo, options: Mapping[str, Any] | None = None) -> FramePattern:
    """Where a layout with these options puts a stream's codes."""
    kind = layout_class(name)
    return kind.pattern_for(stream, kind.read_options(options or {}))


def make_layout(
    pattern: FramePattern,
    *,
    width: int,
    options: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> ConfiguredLayout:
    """A new layout of `pattern.layout` for a decoder of this width; InputError for an unknown option."""
    kind = layout_class(pattern.layout)
    return kind(kind.read_options(options or {}), pattern, width=width, generator=generator)


def layout_from_config(config: Mapping[str, Any]) -> CodebookLayout:
    """The inverse of `CodebookLayout.config`, with fresh weights; InputError where it is none."""
    try:
        pattern, width, options = config["pattern"], config["width"], config["options"]
    except (KeyError, TypeError) as error:
        raise InputError(f"no layout of codebooks ({error!r}); copy the model directory again") from error
    return make_layout(FramePattern.from_json(pattern), width=width, options=options)
