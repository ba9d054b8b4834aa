"""SpeechTokenizer through the `speechtokenizer` package, with local weights (Zhang et al. 2023).

S samples, F frames, Q codebooks, B batch, D latent width.

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
from torch import Tensor

from unitok_tokenizers.acoustic.base import NetworkCodec, chosen_codebooks
from unitok_tokenizers.acoustic.folders import load_plain_state, only_file
from unitok_tokenizers.acoustic.seanet import chain_of
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, intact, read_json, read_tensors


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
    """The network behind the codec interface. Its first codebook is distilled from a semantic teacher.

    Its encoder has an LSTM that reads backward too: of a recording that comes in pieces, codes are known at its end,
    and until then its frames are held, 0.2 MB a second in the published size.
    """

    causal = False

    def __init__(
        self, model: Any, config: Mapping[str, Any], name: str = "codes", codebooks: int | None = None
    ) -> None:
        self.model, self.config, self.name = model, dict(config), name
        self.sample_rate = int(config["sample_rate"])
        self.stride = int(np.prod(config["strides"]))
        self.frame_rate = Fraction(self.sample_rate, self.stride)
        self.cardinalities = (int(config["codebook_size"]),) * (codebooks or int(config["n_q"]))
        self.encoder, self.decoder = chain_of(model.encoder.model), chain_of(model.decoder.model)

    @staticmethod
    def open(path: Path, choice: str = "") -> SpeechTokenizerCodec:
        """A folder with the published `config.json` and `.pt`; `choice` is how many codebooks are used."""
        if not path.is_dir():
            raise InputError(f"{path} is no folder; give the folder of SpeechTokenizer's config.json and .pt file")
        config = read_json(path / "config.json")
        if not isinstance(config, dict) or not {"n_q", "strides", "codebook_size", "sample_rate"} <= set(config):
            raise InputError(f"{path}/config.json is none of SpeechTokenizer: it names no n_q, strides, codebook_size")
        weights = only_file(path, ("*.pt", "*.ckpt", "*.bin"), "SpeechTokenizer's published .pt file")
        codec = SpeechTokenizerCodec.from_weights(path / "config.json", weights)
        used = chosen_codebooks(choice, len(codec.cardinalities))
        return SpeechTokenizerCodec(codec.model, codec.config, codebooks=used)

    @staticmethod
    def from_weights(config_path: Path | str, weights: Path | str) -> SpeechTokenizerCodec:
        """Load the published `config.json` and `.pt`."""
        config = read_json(config_path)
        with intact(config_path, "give the published config.json"):
            model = build_speechtokenizer(config)
        load_plain_state(model, weights)
        return SpeechTokenizerCodec(model, config)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        values = (value.cpu().numpy() for value in self.model.state_dict().values())
        part = [] if self._all else [len(self.cardinalities)]
        return fingerprint(["speechtokenizer", self.config, array_fingerprint(*values), *part])

    @property
    def _all(self) -> bool:
        return len(self.cardinalities) == int(self.config["n_q"])

    def quantize(self, latents: Tensor) -> Tensor:
        """Latents (B, D, F) → codes (B, Q, F)."""
        return self.model.quantizer.encode(latents, n_q=len(self.cardinalities)).transpose(0, 1)

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, F) → latents (B, D, F)."""
        found: Tensor = self.model.quantizer.decode(codes.transpose(0, 1))
        return found

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        part = {} if self._all else {"codebooks": len(self.cardinalities)}
        self.save_network(folder, {"class": "speechtokenizer", "name": self.name, "config": self.config, **part})

    @staticmethod
    def load(folder: Path) -> SpeechTokenizerCodec:
        """Read what `save` wrote."""
        value = read_json(folder / "config.json")
        model = build_speechtokenizer(value["config"])
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        return SpeechTokenizerCodec(model, value["config"], value["name"], value.get("codebooks"))
