"""EnCodec through the `encodec` package, with local weights (Défossez et al. 2022).

S samples, F frames, Q codebooks, B batch, D latent width.

Weights are the package's published `.th` file, or a folder of transformers' `EncodecModel`: the networks are the same,
their tensors have other names (`package_state`), and codes are equal.

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
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unitok_tokenizers.acoustic.base import NetworkCodec
from unitok_tokenizers.acoustic.folders import load_plain_state, only_file, read_model_config, read_state
from unitok_tokenizers.acoustic.seanet import chain_of
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors


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
    causal: bool = True
    """Whether convolutions look back only."""
    shortcut: bool = True
    """Whether residual branches run beside a convolution; else beside nothing."""

    def described(self) -> dict[str, Any]:
        """The sizes as JSON; those that files of the first version do not have stand there only where they differ."""
        late = {"causal": True, "shortcut": True}
        return {name: value for name, value in asdict(self).items() if late.get(name) is not value}

    @property
    def codebooks(self) -> Mapping[float, int]:
        """Bandwidth → how many codebooks it uses: as many as their bits fit into it, one at least."""
        frames = int(np.ceil(self.sample_rate / np.prod(self.ratios)))
        return {one: max(1, int(1000 * one // (frames * np.log2(self.bins)))) for one in self.bandwidths}


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
    common = {**shape, "norm": "weight_norm", "causal": config.causal, "lstm": config.lstm}
    common["true_skip"] = not config.shortcut
    codebooks = config.codebooks[max(config.bandwidths)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # weight_norm's old form
        model = package.model.EncodecModel(
            parts.SEANetEncoder(**common),
            parts.SEANetDecoder(**common),
            quantization.ResidualVectorQuantizer(dimension=config.dimension, n_q=codebooks, bins=config.bins),
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
        self.cardinalities = (config.bins,) * config.codebooks[config.bandwidth]
        self.causal = config.causal
        self.encoder, self.decoder = chain_of(model.encoder.model), chain_of(model.decoder.model)

    @staticmethod
    def open(path: Path, choice: str = "") -> EncodecCodec:
        """A published `.th` file, a folder with one, or a folder of transformers' EnCodec; `choice` is a bandwidth."""
        if path.is_dir() and (path / "config.json").is_file():
            return EncodecCodec.from_transformers(path, choice)
        weights = (
            only_file(path, ("*.th",), "transformers' config.json, or a published .th file") if path.is_dir() else path
        )
        return EncodecCodec.from_weights(weights, with_bandwidth(EncodecConfig(), choice))

    @staticmethod
    def from_weights(path: Path | str, config: EncodecConfig | None = None) -> EncodecCodec:
        """Load a published `.th` file."""
        config = config or EncodecConfig()
        model = build_encodec(config)
        load_plain_state(model, path)
        return EncodecCodec(model, config)

    @staticmethod
    def from_transformers(folder: Path, choice: str = "") -> EncodecCodec:
        """Load what `save_pretrained` of transformers' `EncodecModel` wrote."""
        config = with_bandwidth(config_of(folder), choice)
        model = build_encodec(config)
        model.load_state_dict(package_state(read_state(folder), model.state_dict(), folder))
        return EncodecCodec(model, config)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        values = (value.cpu().numpy() for value in self.model.state_dict().values())
        return fingerprint(["encodec", self.config.described(), array_fingerprint(*values)])

    def quantize(self, latents: Tensor) -> Tensor:
        """Latents (B, D, F) → codes (B, Q, F)."""
        return self.model.quantizer.vq.encode(latents, n_q=len(self.cardinalities)).transpose(0, 1)

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, F) → latents (B, D, F)."""
        found: Tensor = self.model.quantizer.decode(codes.transpose(0, 1))
        return found

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        self.save_network(folder, {"class": "encodec", "name": self.name, "config": self.config.described()})

    @staticmethod
    def load(folder: Path) -> EncodecCodec:
        """Read what `save` wrote."""
        value = read_json(folder / "config.json")
        sizes: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in value["config"].items()}
        config = EncodecConfig(**sizes)
        model = build_encodec(config)
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        return EncodecCodec(model, config, value["name"])


def with_bandwidth(config: EncodecConfig, choice: str) -> EncodecConfig:
    """The configuration at a bandwidth in kbit/s; 6 where none is named and the model has it, else its largest.

    Raises:
        InputError: the model has no such bandwidth.
    """
    if not choice:
        default = EncodecConfig.bandwidth
        return replace(config, bandwidth=default if default in config.bandwidths else max(config.bandwidths))
    try:
        bandwidth = float(choice)
    except ValueError:
        bandwidth = float("nan")
    if bandwidth not in config.bandwidths:
        known = ", ".join(f"{one:g} ({count} codebooks)" for one, count in config.codebooks.items())
        raise InputError(f"EnCodec has no bandwidth {choice!r} kbit/s; choose one of {known}")
    return replace(config, bandwidth=bandwidth)


FIXED = {
    "audio_channels": 1, "normalize": False, "chunk_length_s": None, "num_residual_layers": 1, "kernel_size": 7,
    "last_kernel_size": 7, "residual_kernel_size": 3, "dilation_growth_rate": 2, "compress": 2,
    "norm_type": "weight_norm", "pad_mode": "reflect", "trim_right_ratio": 1.0,
}  # fmt: skip
"""Settings of transformers' EnCodec that the 48 kHz model and experiments have otherwise: stereo, in windows."""


def config_of(folder: Path) -> EncodecConfig:
    """The sizes of a folder of transformers' EnCodec; InputError where it is a network of another shape."""
    given = read_model_config(folder, "encodec", "EncodecConfig")
    for key, value in FIXED.items():
        if getattr(given, key) != value:
            raise InputError(
                f"{folder}: {key} is {getattr(given, key)!r}, and only {value!r} is read; use encodec_24khz"
            )
    if given.codebook_dim != given.hidden_size:
        raise InputError(f"{folder}: codebooks of another width than the latents are not read; use encodec_24khz")
    bandwidths = tuple(float(one) for one in given.target_bandwidths)
    return EncodecConfig(
        sample_rate=given.sampling_rate,
        bandwidth=bandwidths[0],
        bandwidths=bandwidths,
        filters=given.num_filters,
        dimension=given.hidden_size,
        ratios=tuple(given.upsampling_ratios),
        lstm=given.num_lstm_layers,
        bins=given.codebook_size,
        causal=given.use_causal_conv,
        shortcut=given.use_conv_shortcut,
    )


WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
"""Weight normalization in the names of torch's old form and of the new one: files have either."""


def package_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: Path | str) -> dict[str, Tensor]:
    """Tensors of transformers' EnCodec under the names that the package's model wants.

    Raises:
        InputError: a tensor is missing, left over or of another shape; `where` names the place.
    """
    left = dict(state)
    found = {}
    for name, value in wanted.items():
        theirs = name.replace("quantizer.vq.", "quantizer.").replace("._codebook.", ".codebook.")
        theirs = theirs.replace("coder.model.", "coder.layers.").replace(".convtr.convtr.", ".conv.")
        theirs = theirs.replace(".conv.conv.", ".conv.")
        last = theirs.rpartition(".")[2]
        if theirs not in left and last in WEIGHT_NORM:
            theirs = theirs.removesuffix(last) + WEIGHT_NORM[last]
        tensor = left.pop(theirs, None)
        if tensor is None or tensor.shape != value.shape:
            shape = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise InputError(f"{where}: {theirs} is {shape}; these are not the weights of its config.json")
        found[name] = tensor.float()
    if left:
        raise InputError(f"{where}: nothing takes {next(iter(left))}; these are not the weights of its config.json")
    return found
