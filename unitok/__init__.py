"""unitok: one decoder that reads and writes text and speech.

    import unitok
    model = unitok.load("runs/demo/model")

Everything below is imported when first used, so that `import unitok` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from unitok.model import Model
    from unitok.placement import Device, DType

__version__ = "0.1.0"

_EXPORTS = {
    "Model": "unitok.model",
    "Result": "unitok.results",
    "Sampling": "unitok.generation.sampling",
    "Decoder": "unitok.decoder.model",
    "DecoderConfig": "unitok.decoder.model",
    "Request": "unitok.requests.request",
    "GenerationConfig": "unitok.requests.request",
    "Engine": "unitok.generation.engine",
    "generate": "unitok.generation.generate",
    "beam_search": "unitok.generation.beam_search",
    "Vocabulary": "unitok_tokenizers.grammar.vocabulary",
    "StreamInfo": "unitok_tokenizers.grammar.streams",
    "SequenceSpec": "unitok_tokenizers.grammar.sequence",
    "Span": "unitok_tokenizers.grammar.sequence",
    "render": "unitok_tokenizers.grammar.render",
    "parse": "unitok_tokenizers.grammar.parse",
    "Automaton": "unitok_tokenizers.grammar.automaton",
    "TokenizerSet": "unitok_tokenizers.tokenizer_set",
    "Shards": "unitok_tokenizers.data.shards",
    "InputError": "unitok_tokenizers.errors",
    "Vocoder": "unitok_vocoder.vocoder",
    "Cascade": "unitok.pipelines.cascade",
}

__all__ = ["__version__", "load", *_EXPORTS]


def load(
    folder: str | Path, device: Device = None, *, dtype: DType = None, int8: bool = False, compiled: bool = False
) -> Model:
    """Read a model directory, as `unitok demo` and `unitok train` write it, onto a device; see `Model.load`."""
    from unitok.model import Model

    return Model.load(folder, device=device, dtype=dtype, int8=int8, compiled=compiled)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'unitok' has no attribute {name!r}")
