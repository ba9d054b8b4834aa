"""A model of random weights with every part of a real one, in milliseconds: real classes, tiny sizes."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.model import Model
from unitok_tokenizers.acoustic.mel_network import MelCodecConfig, MelCodecNetwork
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_tokenizers.encoders.networks.normalization import ALL
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig
from unitok_vocoder.vocoder import Vocoder

RATE = 16000
UNITS = 12
WORDS = "the green house stands here today we buy two books now she sings das grüne haus steht heute hier".split()


def speech(seconds: float = 0.6, seed: int = 0) -> np.ndarray:
    """(S,) float32 that changes over time, so that units change too."""
    random = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * RATE:
        tone = np.sin(np.arange(1600) * random.uniform(0.05, 0.9)) * random.uniform(0.05, 0.5)
        parts.append(tone + random.normal(0, 0.01, 1600))
    return np.concatenate(parts)[: round(seconds * RATE)].astype(np.float32)


def tokenizers() -> TokenizerSet:
    """Of random weights; everybody has their own, as if it had just been made."""
    if torch.get_default_device().type != "cpu":
        return _made()
    bundle, random = _once()
    torch.set_rng_state(random)
    return copy.deepcopy(bundle)


@cache
def _once() -> tuple[TokenizerSet, torch.Tensor]:
    """Tokenizers, and torch's random numbers behind their making."""
    return _made(), torch.get_rng_state()


def _made() -> TokenizerSet:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 6)) for _ in range(80)]
    torch.manual_seed(0)
    network = CtcNetwork(CtcNetworkConfig(width=16, blocks=1, alphabet=tuple("abc "), statistics=ALL))
    encoder = CtcEncoder(network, MelConfig(), 1)
    units = UnitTokenizer.fit(encoder, [speech(seed=seed) for seed in range(4)], UNITS, seed=0)
    sizes = MelCodecConfig(width=16, latent=8, codebooks=2, cardinality=8, units=units.cardinality, blocks=1)
    codec = MelCodec(MelCodecNetwork(sizes, MelConfig().num_mels), units, MelConfig())
    return TokenizerSet.of(SentencePieceText.train(texts, 320), units, codec)


def tiny_model(languages: tuple[str, ...] = ("en", "de"), **changes: Any) -> Model:
    """A model with units, codes, a vocoder (Griffin-Lim behind a unit synthesizer) and one known voice."""
    bundle = tokenizers()
    vocabulary = bundle.vocabulary(languages)
    generator = torch.Generator().manual_seed(1)
    sizes = DecoderConfig(vocab_size=vocabulary.size, width=32, layers=2, heads=2, kv_heads=1)
    assert bundle.unit_tokenizer is not None and bundle.codec is not None
    torch.manual_seed(2)
    synthesizer = UnitMel(
        UnitMelConfig(units=bundle.unit_tokenizer.cardinality, width=16, blocks=1, voice=4), MelConfig()
    )
    parts: dict[str, Any] = {
        "decoder": Decoder(sizes, generator=generator).eval(),
        "vocabulary": vocabulary,
        "tokenizers": bundle,
        "vocoder": Vocoder(None, synthesizer.eval(), {"anna": np.ones(4, np.float32)}),
        "prompts": {"anna": bundle.codec.encode(speech(seed=9))[:10].astype(np.int32)},
    }
    return Model(**{**parts, **changes})


def model_folder(folder: Path) -> Path:
    """The same model, saved."""
    tiny_model().save(folder)
    return folder
