"""Delays (MusicGen, arXiv 2306.05284): codebook q stands d(q) positions behind its frame, each with a head of its own.

A head reads the state alone, or the id of the first codebook too; what it does not know of its own position it knows of
the frames whose later codebooks it follows. Positions before a delay has passed and behind the last frame hold nothing
in that slot: it is known by position, neither predicted nor paid for.
"""

from __future__ import annotations

from dataclasses import dataclass

from unitok.layouts.configured import books_beside, delays_of
from unitok.layouts.parallel import HeadsLayout, ParallelConfig
from unitok_tokenizers.grammar.frames import FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class DelayConfig(ParallelConfig):
    """Options of delays."""

    delays: tuple[int, ...] = ()
    """Positions by which each codebook behind the first follows its frame; 1, 2, 3 … where empty, as in MusicGen."""


class DelayLayout(HeadsLayout):
    """The first codebook inline, the others delayed, with parallel heads."""

    name = "delay"
    Config = DelayConfig

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: DelayConfig) -> FramePattern:
        """Codebook 0 inline, the others by their delays; InputError where there are not as many."""
        sizes, books = stream.cardinalities, books_beside(stream, cls.name)
        return FramePattern(
            layout=cls.name,
            stream=stream.name,
            cardinalities=sizes,
            inline=(0,),
            slots=tuple(
                SlotSpec(stream=stream.name, codebook=q, size=sizes[q], delay=delay)
                for q, delay in zip(books, delays_of(stream, options.delays or tuple(books)))
            ),
        )
