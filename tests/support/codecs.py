"""Every codec in a small size with random weights of its real class: codes that vary, waveforms that are not silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.dac import DacCodec
from unitok_tokenizers.acoustic.dmel import DmelCodec
from unitok_tokenizers.acoustic.encodec import EncodecCodec, EncodecConfig, build_encodec
from unitok_tokenizers.acoustic.mel_network import MelCodecConfig, MelCodecNetwork
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.acoustic.mimi import MimiCodec
from unitok_tokenizers.acoustic.speechtokenizer import SpeechTokenizerCodec, build_speechtokenizer
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer

SPEECHTOKENIZER = {
    "n_filters": 4, "strides": [8, 5, 4, 2], "dimension": 16, "semantic_dimension": 12, "bidirectional": True,
    "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1, "lstm_layers": 1, "activation": "ELU",
    "codebook_size": 32, "n_q": 3, "sample_rate": 16000,
}  # fmt: skip
ENCODEC = EncodecConfig(filters=4, dimension=16, lstm=1, bins=64, bandwidth=1.5, bandwidths=(0.75, 1.5))
ENCODEC_TRANSFORMERS = {
    "num_filters": 4, "hidden_size": 16, "num_lstm_layers": 1, "codebook_size": 64, "target_bandwidths": [0.75, 1.5],
}  # fmt: skip
"""The same in transformers' words."""
MIMI = {
    "hidden_size": 16, "num_filters": 4, "codebook_size": 32, "codebook_dim": 8, "num_quantizers": 6,
    "vector_quantization_hidden_dimension": 8, "upsample_groups": 16, "num_hidden_layers": 2, "intermediate_size": 24,
    "num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 12,
}  # fmt: skip
DAC = {
    "encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 4,
    "codebook_size": 32, "codebook_dim": 4, "sampling_rate": 16000,
}  # fmt: skip
"""With a stride of 5, as the 24 kHz model has: an odd one is padded differently."""


def noise() -> np.ndarray:
    return (0.2 * np.random.default_rng(1).standard_normal(8000)).astype(np.float32)


def spread_codebooks(model: Any) -> None:
    """Random codes on the scale of the network's own latents, each codebook smaller than the one before."""
    with torch.no_grad():
        latents = model.encoder(torch.from_numpy(noise())[None, None])
        for index, layer in enumerate(model.quantizer.vq.layers):
            center = latents.mean((0, 2)) if index == 0 else torch.zeros(latents.shape[1])
            layer._codebook.embed.copy_(
                center + torch.randn_like(layer._codebook.embed) * latents.std(2).mean() / 2**index
            )
            layer._codebook.inited.fill_(1)


def mel_rvq() -> MelCodec:
    torch.manual_seed(0)
    encoder = MfccEncoder(MelConfig(hop_length=640))
    units = UnitTokenizer(encoder, torch.randn(12, encoder.width))
    network = MelCodecNetwork(MelCodecConfig(width=16, latent=8, codebooks=2, cardinality=8, units=12, blocks=1), 80)
    torch.nn.init.normal_(network.quantiser.codebooks)
    return MelCodec(network, units, MelConfig())


def encodec(config: EncodecConfig = ENCODEC) -> EncodecCodec:
    torch.manual_seed(0)
    model = build_encodec(config)
    spread_codebooks(model)
    return EncodecCodec(model, config)


def speechtokenizer() -> SpeechTokenizerCodec:
    torch.manual_seed(0)
    model = build_speechtokenizer(SPEECHTOKENIZER)
    spread_codebooks(model)
    return SpeechTokenizerCodec(model, SPEECHTOKENIZER)


def mimi_model() -> Any:
    """transformers' model; its layer scales are not the near-zero of a beginning, so that its Transformers count."""
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    model = MimiModel(MimiConfig(**MIMI)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("layer_scale.scale"):
                value.fill_(0.5)
        latents = model.encoder(torch.from_numpy(np.tile(noise(), 3))[None, None]).latents
        for book in (
            model.quantizer.semantic_residual_vector_quantizer,
            model.quantizer.acoustic_residual_vector_quantizer,
        ):
            inner = book.input_proj(latents)
            for index, layer in enumerate(book.layers):
                center = inner.mean((0, 2)) if index == 0 else 0
                layer.codebook.embed_sum.copy_(
                    center + torch.randn_like(layer.codebook.embed_sum) * inner.std(2).mean() / 2**index
                )
                layer.codebook._embed = None
    return model


def mimi() -> MimiCodec:
    return MimiCodec(mimi_model(), 4)


def dac_model() -> Any:
    """transformers' model, with weights large enough to be heard."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    model = DacModel(DacConfig(**DAC)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv1d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                module.weight.mul_(0.4)
                torch.nn.init.normal_(module.bias, std=0.05)
            if isinstance(module, torch.nn.Embedding):
                torch.nn.init.normal_(module.weight)
    return model


def dac() -> DacCodec:
    return DacCodec(dac_model())


MAKERS: dict[str, Callable[[], AcousticTokenizer]] = {
    "mel_rvq": mel_rvq,
    "encodec": encodec,
    "speechtokenizer": speechtokenizer,
    "mimi": mimi,
    "dac": dac,
    "dmel": DmelCodec,
}


def tone(rate: int, seconds: float, seed: int = 0) -> np.ndarray:
    """(S,) a tone that comes and goes, among noise."""
    time = np.arange(round(seconds * rate)) / rate
    loud = 0.1 + 0.4 * (np.sin(2 * np.pi * 3 * time) > 0)
    random = np.random.default_rng(seed)
    return (loud * (np.sin(2 * np.pi * 220 * time) + 0.5 * random.standard_normal(len(time)))).astype(np.float32)
