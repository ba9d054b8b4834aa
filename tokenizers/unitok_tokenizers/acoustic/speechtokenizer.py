"""SpeechTokenizer through the `speechtokenizer` package, with local weights (Zhang et al. 2023).

S samples, F frames, Q codebooks.

The package's `__init__` imports its trainer, and with it a torchaudio that cannot be loaded beside a CPU build of
torch. The model itself needs none of that: an empty parent package lets its submodules be imported alone. Weights: the
published `config.json` and `.pt`, a plain state dictionary that is read with `weights_only`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok_tokenizers.acoustic.base import NetworkCodec, codes_info
from unitok_tokenizers.acoustic.encodec import load_plain_state
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors
from unitok_tokenizers.grammar.streams import StreamInfo


def import_speechtokenizer() -> Any:
    """The module `speechtokenizer.model`; InputError where the package is not installed."""
    if "speechtokenizer.model" in sys.modules:
        return sys.modules["speechtokenizer.model"]
    spec = importlib.util.find_spec("speechtokenizer")
    if spec is None or spec.submodule_search_locations is None:
        raise InputError(
            "the speechtokenizer codec needs its package: "
            "pip install --no-deps speechtokenizer && pip install 'unitok[codec]'"
        )
    if "speechtokenizer" not in sys.modules:
        parent = types.ModuleType("speechtokenizer")
        parent.__path__ = list(spec.submodule_search_locations)
        parent.__spec__ = spec
        sys.modules["speechtokenizer"] = parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.script in its layers
        return importlib.import_module("speechtokenizer.model")


def build_speechtokenizer(config: Mapping[str, Any]) -> Any:
    """The package's `SpeechTokenizer` in this shape, with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # weight_norm's old form
        return import_speechtokenizer().SpeechTokenizer(dict(config)).eval()


class SpeechTokenizerCodec(NetworkCodec):
    """The network behind the codec interface. Its first codebook is distilled from a semantic teacher."""

    def __init__(self, model: Any, config: Mapping[str, Any], name: str = "codes") -> None:
        self.model, self.config, self.name = model, dict(config), name
        self.sample_rate = int(config["sample_rate"])
        self.stride = int(np.prod(config["strides"]))
        self.frame_rate = Fraction(self.sample_rate, self.stride)
        self.cardinalities = (int(config["codebook_size"]),) * int(config["n_q"])

    @staticmethod
    def from_weights(config_path: Path | str, weights: Path | str) -> SpeechTokenizerCodec:
        """Load the published `config.json` and `.pt`."""
        config = read_json(config_path)
        model = build_speechtokenizer(config)
        load_plain_state(model, weights)
        return SpeechTokenizerCodec(model, config)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        values = (value.cpu().numpy() for value in self.model.state_dict().values())
        return fingerprint(["speechtokenizer", self.config, array_fingerprint(*values)])

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) → codes (F, Q)."""
        heard = torch.from_numpy(np.asarray(samples, dtype=np.float32)).to(self.device)
        return self.model.encode(heard[None, None])[:, 0].T.contiguous().cpu().numpy()  # (Q, 1, F) -> (F, Q)

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (F, Q) → samples (S,), S = F · samples per frame."""
        table = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(self.device).T[:, None]  # (Q, 1, F)
        return self.model.decode(table)[0, 0].cpu().numpy()

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return codes_info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        self.save_network(folder, {"class": "speechtokenizer", "name": self.name, "config": self.config})

    @staticmethod
    def load(folder: Path) -> SpeechTokenizerCodec:
        """Read what `save` wrote."""
        value = read_json(folder / "config.json")
        model = build_speechtokenizer(value["config"])
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        return SpeechTokenizerCodec(model, value["config"], value["name"])
