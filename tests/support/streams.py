"""What streams of recordings and codes are tested with: pieces, causal tokenizers of random weights, what is held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from tests.support.tiny_model import speech
from unitok_tokenizers.acoustic.mel_network import MelCodecConfig, MelCodecNetwork
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer


def pieces(samples: np.ndarray, *sizes: int) -> Iterator[np.ndarray]:
    """Samples in pieces of these sizes, over and over; an empty one among them."""
    begin, turn = 0, 0
    yield samples[:0]
    while begin < len(samples):
        size = sizes[turn % len(sizes)]
        yield samples[begin : begin + size]
        begin, turn = begin + size, turn + 1


def streamed(stream: Any, samples: np.ndarray, *sizes: int) -> np.ndarray:
    """All that a stream gives of samples in pieces."""
    found = [stream.push(piece) for piece in pieces(samples, *sizes)]
    return np.concatenate([np.asarray(one) for one in (*found, stream.finish())])


def held_bytes(value: Any, *, seen: set[int] | None = None) -> int:
    """Bytes of all arrays that an object holds, but for the weights of networks."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, torch.nn.Module):
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, np.ndarray):
        return (value if value.base is None else np.asarray(value.base)).nbytes
    if isinstance(value, list | tuple):
        return sum(held_bytes(one, seen=seen) for one in value)
    if is_dataclass(value):
        return sum(held_bytes(getattr(value, one.name), seen=seen) for one in fields(value))
    return sum(held_bytes(one, seen=seen) for one in getattr(value, "__dict__", {}).values())


def causal_encoder(*, causal: bool = True) -> CtcEncoder:
    """Two blocks of random weights that know what the recordings of `speech` are like."""
    torch.manual_seed(0)
    network = CtcNetwork(CtcNetworkConfig(width=16, blocks=2, alphabet=("a", "b", " "), causal=causal))
    if network.running is not None:
        network.running.learn([log_mel(torch.from_numpy(speech(1.0, seed)), MelConfig()) for seed in range(3)])
    return CtcEncoder(network, MelConfig(), 2)


def causal_units() -> UnitTokenizer:
    return UnitTokenizer.fit(causal_encoder(), [speech(2.0, seed) for seed in range(3)], 12, seed=0)


def causal_codec(**changes: Any) -> MelCodec:
    """A causal codec of random weights on causal units, or taught, whose codes lie where its latents are."""
    sizes = {"width": 16, "latent": 8, "codebooks": 3, "cardinality": 8, "units": 12, "blocks": 2, "causal": True}
    config = MelCodecConfig(**{**sizes, **changes})
    units = None if config.taught else causal_units()
    torch.manual_seed(1)
    network = MelCodecNetwork(config, MelConfig().num_mels)
    recordings = [speech(3.0, seed) for seed in range(2)]
    mels, mask = torch.stack([log_mel(torch.from_numpy(one), MelConfig()) for one in recordings]), torch.ones(2, 75, 1)
    with torch.no_grad():
        x = network.encoded(mels, mask)
        if units is None:
            network.first.initialize(network.first_latents(x).flatten(0, 1), 0)
            first = network.first.encode(network.first_latents(x).flatten(0, 1)).view(2, -1)
        else:
            first = torch.stack([torch.from_numpy(one) for one in units.encode_batch(recordings)])
        network.quantiser.initialize(network.left_over(x, network.expected(first, mask)).flatten(0, 1), 0)
    return MelCodec(network, units, MelConfig())
