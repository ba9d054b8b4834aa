"""Channels of a spectrogram (dMel, arXiv 2407.15835): 80 heads of 16 bins a frame, and no id but a mark.

The input layer of the paper is one over joined one-hot rows: a sum of a row for each channel's bin. No codebook is
inline; whether another frame follows or the span ends is what the decoder predicts at the mark.
"""

from __future__ import annotations

from unitok.layouts.parallel import HeadsLayout, ParallelConfig
from unitok_tokenizers.grammar.frames import FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


class ChannelsLayout(HeadsLayout):
    """Every codebook a slot, with parallel heads."""

    name = "channels"
    Config = ParallelConfig

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: ParallelConfig) -> FramePattern:
        """All codebooks beside a mark."""
        sizes = stream.cardinalities
        slots = [SlotSpec(stream=stream.name, codebook=q, size=size) for q, size in enumerate(sizes)]
        return FramePattern(layout=cls.name, stream=stream.name, cardinalities=sizes, inline=(), slots=tuple(slots))
