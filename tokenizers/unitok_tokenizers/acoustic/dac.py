"""DAC through transformers' `DacModel`, from a local folder (Kumar et al. 2023).

S samples, F frames, Q codebooks, B batch, D latent width.

16, 24 or 44.1 kHz. Its windows look forward as well as back, a few frames: pieces of a recording wait for them.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.acoustic.base import NetworkCodec, chosen_codebooks
from unitok_tokenizers.acoustic.folders import load_model, read_model_config, save_model
from unitok_tokenizers.acoustic.layers import Chain, Convolution, Layer, Pointwise, Residual, Transposed
from unitok_tokenizers.files import fingerprint, read_json, write_json


class DacCodec(NetworkCodec):
    """The network behind the codec interface, with as many of its codebooks as are wanted."""

    causal = False

    def __init__(self, model: Any, codebooks: int | None = None, name: str = "codes") -> None:
        self.model, self.name = model, name
        config = model.config
        self.sample_rate = int(config.sampling_rate)
        self.multiple = int(np.prod(config.downsampling_ratios))  # as its feature extractor lengthens recordings
        self.frame_rate = Fraction(self.sample_rate, self.multiple)
        self.cardinalities = (int(config.codebook_size),) * (codebooks or int(config.n_codebooks))
        self.encoder, self.decoder = encoder_chain(model.encoder), decoder_chain(model.decoder)

    @staticmethod
    def open(path: Path, choice: str = "") -> DacCodec:
        """A folder of transformers' `DacModel`; `choice` is how many codebooks are used."""
        model = _read(path)
        return DacCodec(model, chosen_codebooks(choice, int(model.config.n_codebooks)))

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint(["dac", self.content(), len(self.cardinalities), self.sample_rate, str(self.frame_rate)])

    def quantize(self, latents: Tensor) -> Tensor:
        """Latents (B, D, F) → codes (B, Q, F)."""
        codes: Tensor = self.model.quantizer(latents, len(self.cardinalities))[1]
        return codes

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, F) → latents (B, D, F)."""
        found: Tensor = self.model.quantizer.from_codes(codes)[0]
        return found

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads: transformers' own lies inside, which its later versions will read too."""
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, folder / "model")
        write_json(folder / "config.json", {"class": "dac", "name": self.name, "codebooks": len(self.cardinalities)})

    @staticmethod
    def load(folder: Path) -> DacCodec:
        """Read what `save` wrote."""
        value = read_json(folder / "config.json")
        return DacCodec(_read(folder / "model"), value["codebooks"], value["name"])


def _read(folder: Path) -> Any:
    return load_model(folder, "DacModel", read_model_config(folder, "dac", "DacConfig"))


def encoder_chain(encoder: Any) -> Chain:
    """transformers' `DacEncoder`."""
    layers: list[Layer] = [_convolution(encoder.conv1)]
    for block in encoder.block:
        layers += [*_units(block), Pointwise(block.snake1), _convolution(block.conv1)]
    return Chain([*layers, Pointwise(encoder.snake1), _convolution(encoder.conv2)])


def decoder_chain(decoder: Any) -> Chain:
    """transformers' `DacDecoder`."""
    layers: list[Layer] = [_convolution(decoder.conv1)]
    for block in decoder.block:
        layers += [Pointwise(block.snake1), _transposed(block.conv_t1), *_units(block)]
    return Chain([*layers, Pointwise(decoder.snake1), _convolution(decoder.conv2), Pointwise(decoder.tanh)])


def _units(block: Any) -> list[Layer]:
    """The three residual units of a block."""
    found: list[Layer] = []
    for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
        main: list[Layer] = [
            Pointwise(unit.snake1),
            _convolution(unit.conv1),
            Pointwise(unit.snake2),
            _convolution(unit.conv2),
        ]
        found.append(Residual(Chain(main), Pointwise(nn.Identity())))
    return found


def _convolution(conv: nn.Conv1d) -> Convolution:
    """A convolution whose zeros on both sides are ours, because they belong to the ends of a recording alone."""
    stride, dilation, padding = conv.stride[0], conv.dilation[0], int(conv.padding[0])
    return Convolution(
        apply=lambda x: functional.conv1d(x, conv.weight, conv.bias, stride, 0, dilation),
        channels=conv.out_channels,
        kernel=(conv.kernel_size[0] - 1) * dilation + 1,
        stride=stride,
        left=padding,
        right=padding,
        mode="constant",
        fill=False,
    )


def _transposed(conv: nn.ConvTranspose1d) -> Transposed:
    padding = int(conv.padding[0])
    return Transposed(
        apply=lambda x: functional.conv_transpose1d(x, conv.weight, conv.bias, conv.stride),
        channels=conv.out_channels,
        kernel=conv.kernel_size[0],
        stride=conv.stride[0],
        left=padding,
        right=padding,
    )
