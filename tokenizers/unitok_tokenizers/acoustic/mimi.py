"""Mimi through transformers' `MimiModel`, from a local folder (Défossez et al. 2024, Moshi's codec).

S samples, F frames, Q codebooks, B batch, D latent width, C channels, T positions.

24 kHz, 12.5 frames a second; the first codebook is distilled from a speech encoder, the others quantize what is left.
Everything looks back only: convolutions carry their last positions from piece to piece, the two Transformers their keys
and values, of which they keep a window. transformers' own cache of convolutions is not used: it has none for the
decoder, and does not know the end of a recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.acoustic.base import NetworkCodec, chosen_codebooks
from unitok_tokenizers.acoustic.folders import import_transformers, load_model, read_model_config, save_model
from unitok_tokenizers.acoustic.layers import Chain, Stream
from unitok_tokenizers.acoustic.seanet import chain_of, layer_of
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint, read_json, write_json

USED = 8
"""Codebooks where none are named: what Moshi uses of the 32."""


@dataclass(frozen=True)
class CausalTransformer:
    """One of Mimi's Transformers as a layer: what lies behind a recording never reaches into it."""

    network: Any

    def run(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.run`."""
        return self.network(x.transpose(1, 2)).last_hidden_state.transpose(1, 2), lengths

    def stream(self) -> Stream:
        """See `Layer.stream`."""
        cache = import_transformers().DynamicCache(config=self.network.config)

        def push(x: Tensor, last: bool) -> Tensor:
            if not x.shape[2]:
                return x
            made: Tensor = self.network(x.transpose(1, 2), past_key_values=cache, use_cache=True).last_hidden_state
            return made.transpose(1, 2)

        return push


class MimiCodec(NetworkCodec):
    """The network behind the codec interface, with as many of its codebooks as are wanted."""

    causal = True

    def __init__(self, model: Any, codebooks: int = USED, name: str = "codes") -> None:
        self.model, self.name = model, name
        config, encoder, decoder = model.config, model.encoder, model.decoder
        self.sample_rate = int(config.sampling_rate)
        stride = int(np.prod(config.upsampling_ratios)) * encoder.downsample.conv.stride[0]
        self.frame_rate = Fraction(self.sample_rate, stride)
        self.cardinalities = (int(config.codebook_size),) * codebooks
        before = chain_of(encoder.encoder_seanet.layers), CausalTransformer(encoder.encoder_transformer)
        behind = CausalTransformer(decoder.decoder_transformer), chain_of(decoder.decoder_seanet.layers)
        self.encoder = Chain([*before, layer_of(encoder.downsample)])
        self.decoder = Chain([layer_of(decoder.upsample), *behind])

    @staticmethod
    def open(path: Path, choice: str = "") -> MimiCodec:
        """A folder of transformers' `MimiModel`; `choice` is how many codebooks are used."""
        model = _read(path)
        most, least = model.config.num_quantizers, model.config.num_semantic_quantizers
        return MimiCodec(model, chosen_codebooks(choice or str(min(USED, most)), most, least))

    def to(self, device: torch.device | str) -> Self:
        """Move the network; returns itself."""
        self.model.to(device)
        for module in self.model.modules():
            if hasattr(module, "_embed"):
                module._embed = None  # codebooks are kept, once made, where they were made
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint(["mimi", self.content(), len(self.cardinalities), self.sample_rate, str(self.frame_rate)])

    def quantize(self, latents: Tensor) -> Tensor:
        """Latents (B, D, F) → codes (B, Q, F)."""
        return self.model.quantizer.encode(latents, len(self.cardinalities)).transpose(0, 1)

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, F) → latents (B, D, F)."""
        found: Tensor = self.model.quantizer.decode(codes)
        return found

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads: transformers' own lies inside, which its later versions will read too."""
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, folder / "model")
        write_json(folder / "config.json", {"class": "mimi", "name": self.name, "codebooks": len(self.cardinalities)})

    @staticmethod
    def load(folder: Path) -> MimiCodec:
        """Read what `save` wrote."""
        value = read_json(folder / "config.json")
        return MimiCodec(_read(folder / "model"), value["codebooks"], value["name"])


def _read(folder: Path) -> Any:
    """transformers' model; InputError where it is no whole, causal Mimi of one channel."""
    config = read_model_config(folder, "mimi", "MimiConfig")
    for key, value in (("audio_channels", 1), ("use_causal_conv", True)):
        if getattr(config, key) != value:
            raise InputError(f"{folder}: {key} is {getattr(config, key)!r}, and only {value!r} is read")
    if config.encoder_config is None or config.decoder_config is None:
        raise InputError(f"{folder} holds half of a Mimi; give a folder with its encoder and its decoder")
    if config.frame_rate == config.encodec_frame_rate:
        raise InputError(f"{folder}: a Mimi that keeps the frame rate of its convolutions is not read")
    return load_model(folder, "MimiModel", config)
