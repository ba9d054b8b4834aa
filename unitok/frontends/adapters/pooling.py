"""Identity and pooling: means of neighboring frames, for encoders that are trained themselves (Qwen-Audio)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_positive, shorter, stack
from unitok_tokenizers.encoders.networks.attention import inside


@dataclass(frozen=True, kw_only=True)
class PoolingConfig:
    """Options of `pooling`."""

    stride: int = 2
    """Frames per vector; 1 leaves them as they are."""

    def __post_init__(self) -> None:
        check_positive("stride", self.stride)


class PoolingAdapter(Adapter):
    """⌈T / stride⌉ means; one linear map behind them only where the encoder's width is not the decoder's."""

    name, Config = "pooling", PoolingConfig

    def __init__(self, config: PoolingConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        same = sizes.frames == sizes.vectors
        self.project: nn.Module = nn.Identity() if same else nn.Linear(sizes.frames, sizes.vectors)

    def length(self, frames: int) -> int:
        """⌈frames / stride⌉."""
        return -(-frames // self.config.stride)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        stride = self.config.stride
        sums = stack(frames.float(), stride).unflatten(2, (stride, -1)).sum(2)
        valid = inside(lengths, frames.shape[1])[..., None].float()
        counts = stack(valid, stride).sum(2, keepdim=True).clamp(min=1)
        return self.project((sums / counts).to(frames.dtype)), shorter(lengths, stride)
