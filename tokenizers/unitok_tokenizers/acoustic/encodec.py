"""EnCodec through the `encodec` package, with local weights (Défossez et al. 2022).

S samples, F frames, Q codebooks.

The package declares a torchaudio that cannot be loaded beside a CPU build of torch; only its resampler is used, which
we do not need. A placeholder stands in while the package is imported and is taken away at once: left in place it would
break other packages. Weights: the published `.th` file is a plain state dictionary and is read with `weights_only`.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok_tokenizers.acoustic.base import NetworkCodec, codes_info
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class EncodecConfig:
    """Shape of the network; the defaults are the published 24 kHz model's."""

    sample_rate: int = 24000
    """Hz."""
    bandwidth: float = 6.0
    """Kilobits a second; decides how many codebooks are used (6.0: 8 at 24 kHz)."""
    bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)
    """Bandwidths of the model; the largest decides how many codebooks it has."""
    filters: int = 32
    """Channels of the first convolution."""
    dimension: int = 128
    """Width of the latents."""
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    """Strides; their product is the samples per frame."""
    lstm: int = 2
    """Recurrent layers."""
    bins: int = 1024
    """Codes a codebook."""


@contextmanager
def placeholder(name: str) -> Iterator[None]:
    """An empty module under `name` for as long as the block runs, unless it is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = types.ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]


def import_encodec() -> Any:
    """The `encodec` package; InputError where it is not installed."""
    if "encodec" in sys.modules:
        return sys.modules["encodec"]
    try:
        with placeholder("torchaudio"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.script in its layers
            return importlib.import_module("encodec")
    except ModuleNotFoundError as error:
        raise InputError(
            f"the encodec codec needs {error.name}: pip install --no-deps encodec && pip install 'unitok[codec]'"
        ) from error


def build_encodec(config: EncodecConfig) -> Any:
    """The package's `EncodecModel` in this shape, with random weights."""
    package = import_encodec()
    parts, quantization = package.modules, package.quantization
    shape = {"channels": 1, "dimension": config.dimension, "n_filters": config.filters, "ratios": list(config.ratios)}
    common = {**shape, "norm": "weight_norm", "causal": True, "lstm": config.lstm}
    frame_rate = config.sample_rate / np.prod(config.ratios)
    codebooks = int(1000 * max(config.bandwidths) // (np.ceil(frame_rate) * np.log2(config.bins)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # weight_norm's old form
        model = package.model.EncodecModel(
            parts.SEANetEncoder(**common),
            parts.SEANetDecoder(**common),
            quantization.ResidualVectorQuantizer(dimension=config.dimension, n_q=max(codebooks, 1), bins=config.bins),
            list(config.bandwidths),
            config.sample_rate,
            1,
        )
    model.set_target_bandwidth(config.bandwidth)
    return model.eval()


class EncodecCodec(NetworkCodec):
    """The network behind the codec interface."""

    def __init__(self, model: Any, config: EncodecConfig, name: str = "codes") -> None:
        self.model, self.config, self.name = model, config, name
        self.sample_rate = config.sample_rate
        self.frame_rate = Fraction(config.sample_rate, int(np.prod(config.ratios)))
        used = model.quantizer.get_num_quantizers_for_bandwidth(model.frame_rate, config.bandwidth)
        self.cardinalities = (config.bins,) * int(used)

    @staticmethod
    def from_weights(path: Path | str, config: EncodecConfig | None = None) -> EncodecCodec:
        """Load a published `.th` file."""
        config = config or EncodecConfig()
        model = build_encodec(config)
        load_plain_state(model, path)
        return EncodecCodec(model, config)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        values = (value.cpu().numpy() for value in self.model.state_dict().values())
        return fingerprint(["encodec", asdict(self.config), array_fingerprint(*values)])

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) → codes (F, Q)."""
        frames = self.model.encode(torch.from_numpy(np.asarray(samples, dtype=np.float32)).to(self.device)[None, None])
        return torch.cat([codes for codes, _ in frames], dim=-1)[0].T.contiguous().cpu().numpy()  # (1, Q, F) -> (F, Q)

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (F, Q) → samples (S,), S = F · samples per frame."""
        table = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(self.device).T[None]  # (1, Q, F)
        return self.model.decode([(table, None)])[0, 0].cpu().numpy()

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return codes_info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        self.save_network(folder, {"class": "encodec", "name": self.name, "config": asdict(self.config)})

    @staticmethod
    def load(folder: Path) -> EncodecCodec:
        """Read what `save` wrote."""
        value = read_json(folder / "config.json")
        sizes: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in value["config"].items()}
        config = EncodecConfig(**sizes)
        model = build_encodec(config)
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        return EncodecCodec(model, config, value["name"])


def load_plain_state(model: torch.nn.Module, path: Path | str) -> None:
    """Load somebody's `.th` or `.pt` weights without unpickling code.

    Raises:
        InputError: missing, not a plain state dictionary, or of another architecture.
    """
    if not Path(path).is_file():
        raise InputError(f"no weights {path}; download the published file and give its path")
    try:
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # torch raises many kinds here, all of which mean: not these weights
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not the weights of this model ({first}); give the published file") from error
