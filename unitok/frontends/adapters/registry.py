"""The adapters by the names that configurations give them. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitok.frontends.adapters.base import Adapter, AdapterSizes
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.registry import Registry

ADAPTERS = Registry(
    "adapter",
    {
        "linear": "unitok.frontends.adapters.linear:LinearAdapter",
        "stacking": "unitok.frontends.adapters.stacking:StackingAdapter",
        "convolution": "unitok.frontends.adapters.convolution:ConvolutionAdapter",
        "fully_connected": "unitok.frontends.adapters.fully_connected:FullyConnectedAdapter",
        "transformer": "unitok.frontends.adapters.transformer:TransformerAdapter",
        "cross_attention": "unitok.frontends.adapters.cross_attention:CrossAttentionAdapter",
        "blank_removal": "unitok.frontends.adapters.blank_removal:BlankRemovalAdapter",
        "frame_averaging": "unitok.frontends.adapters.frame_averaging:FrameAveragingAdapter",
        "blank_probability": "unitok.frontends.adapters.blank_probability:BlankProbabilityAdapter",
        "qformer": "unitok.frontends.adapters.qformer:QFormerAdapter",
        "window_qformer": "unitok.frontends.adapters.window_qformer:WindowQFormerAdapter",
        "random_downsampling": "unitok.frontends.adapters.random_downsampling:RandomDownsamplingAdapter",
        "token_mapping": "unitok.frontends.adapters.token_mapping:TokenMappingAdapter",
        "spelling": "unitok.frontends.adapters.spelling:SpellingAdapter",
        "subwords": "unitok.frontends.adapters.subwords:SubwordsAdapter",
        "pooling": "unitok.frontends.adapters.pooling:PoolingAdapter",
    },
)
"""Name in a configuration → class."""


def adapter_class(name: str) -> type[Adapter]:
    """A registered class; InputError where there is none."""
    kind: type[Adapter] = ADAPTERS[name]
    return kind


def make_adapter(name: str, sizes: AdapterSizes, options: Mapping[str, Any] | None = None) -> Adapter:
    """A new adapter with options of its `Config`; InputError for an unknown one."""
    kind = adapter_class(name)
    known = kind.Config.__dataclass_fields__
    for option in options or {}:
        if option not in known:
            raise InputError(f"the adapter {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}")
    return kind(kind.Config(**(options or {})), sizes)


def adapter_from_json(value: Mapping[str, Any]) -> Adapter:
    """The inverse of `to_json`, with fresh weights."""
    return make_adapter(value["class"], AdapterSizes(**value["sizes"]), value["config"])
