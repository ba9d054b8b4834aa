"""Buffers that stay float32 when their module is converted to half precision.

`Module.to(torch.bfloat16)` rounds buffers as it does weights. Eight bits of mantissa are enough for a weight, not for
what is multiplied by a position or added up: a rotary frequency that is off by 2⁻⁹ is off by two radians at position
1,000, and a window or a moving average has no gradient to make up for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Float32Buffers(nn.Module):
    """A module whose own float32 buffers move to other devices with it, but are never rounded to half precision.

    Those of its parts are theirs to keep.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Buffers:
        """What `to`, `half`, `bfloat16`, `cuda` and their like go through (`torch.nn.Module._apply`)."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in before.items():
            now = self._buffers[name]
            if value is None or now is None or value.dtype != torch.float32:
                continue
            if now.dtype in (torch.bfloat16, torch.float16):
                self._buffers[name] = value.to(now.device)
        return self
