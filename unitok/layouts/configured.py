"""What the layouts of the registry share: options in a dataclass, a pattern that they make, JSON that builds them.

C width of the decoder.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar

import torch

from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.streams import StreamInfo


class ConfiguredLayout(CodebookLayout):
    """A layout with options. A subclass says `name`, `Config` and `pattern_for`, and takes these arguments.

    Args:
        options: its `Config`.
        pattern: where codes stand; as `pattern_for` makes it, or an imported model's own.
        width: C.
        generator: draws the weights; torch's default generator where None.
    """

    name: ClassVar[str]
    """Entry in `registry.LAYOUTS`."""
    Config: ClassVar[type[Any]]
    """Dataclass of its options."""

    def __init__(
        self, options: Any, pattern: FramePattern, *, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(pattern)
        if pattern.layout != self.name:
            raise InputError(f"layout {self.name!r} is given the codes' places of {pattern.layout!r}; make them anew")
        self.options, self.width = options, width

    @classmethod
    @abstractmethod
    def pattern_for(cls, stream: StreamInfo, options: Any) -> FramePattern:
        """Where the codes of a stream stand; InputError for a stream that it cannot lay."""

    @classmethod
    def read_options(cls, value: Mapping[str, Any]) -> Any:
        """Options by name, as a recipe or JSON has them; InputError for an unknown one."""
        known = [one.name for one in fields(cls.Config)]
        for name in value:
            if name not in known:
                raise InputError(f"layout {cls.name!r} has no option {name!r}; it has {', '.join(known) or 'none'}")
        return cls.Config(**{name: tuple(one) if isinstance(one, list) else one for name, one in value.items()})

    def config(self) -> dict[str, Any]:
        """What builds it again, with its pattern; JSON."""
        return {
            "layout": self.name,
            "width": self.width,
            "options": asdict(self.options),
            "pattern": self.pattern.to_json(),
        }


def books_beside(stream: StreamInfo, layout: str) -> range:
    """Codebooks behind the first; InputError where there are none to lay."""
    if len(stream.cardinalities) < 2:
        raise InputError(f"layout {layout!r} needs several codebooks: stream {stream.name!r} has one; use flat")
    return range(1, len(stream.cardinalities))


def delays_of(stream: StreamInfo, delays: tuple[int, ...]) -> tuple[int, ...]:
    """Delays of the codebooks behind the first; InputError where there are not as many as codebooks."""
    beside = len(stream.cardinalities) - 1
    if len(delays) != beside:
        raise InputError(f"{len(delays)} delays {list(delays)}: stream {stream.name!r} has {beside} codebooks to delay")
    return delays
