"""What a block that is computed again in the backward pass keeps after all: its products, by operator.

Norms, rotations, activations and casts are cheap to repeat and fill most of the memory; matrix products and attention
kernels take most of the time. Dense attention on a processor is repeated: its scores are what takes the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

PRODUCTS = frozenset(
    (
        "aten::mm",
        "aten::addmm",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "torch_attn::_varlen_attn",
        "flash_attn::_flash_attn_varlen_forward",
    )
)
"""Operators whose results are kept."""


def _policy(_: Any, operator: Any, *args: Any, **options: Any) -> CheckpointPolicy:
    kept = operator.name().partition(".")[0] in PRODUCTS
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


keep_products: Callable[[], Any] = partial(create_selective_checkpoint_contexts, _policy)
"""`context_fn` of `torch.utils.checkpoint.checkpoint` that keeps the results of PRODUCTS."""
