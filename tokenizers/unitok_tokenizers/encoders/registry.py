"""The frame encoders by the names that configurations give them. A new one is a class and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.files import read_json, read_tensors
from unitok_tokenizers.registry import Registry

FRAME_ENCODERS = Registry(
    "frame encoder",
    {
        "filterbank": "unitok_tokenizers.encoders.filterbank:FilterbankEncoder",
        "transformer": "unitok_tokenizers.encoders.conformer:TransformerEncoder",
        "conformer": "unitok_tokenizers.encoders.conformer:ConformerEncoder",
        "speech_model": "unitok_tokenizers.encoders.speech_models:SpeechModelEncoder",
        "whisper": "unitok_tokenizers.encoders.whisper:WhisperEncoder",
        "mfcc": "unitok_tokenizers.encoders.mfcc:MfccEncoder",
        "ctc": "unitok_tokenizers.encoders.ctc:CtcEncoder",
        "layer_mix": "unitok_tokenizers.encoders.combined:LayerMix",
        "pitch": "unitok_tokenizers.encoders.pitch:PitchEncoder",
        "side_by_side": "unitok_tokenizers.encoders.combined:SideBySide",
    },
)
"""Name in a configuration → class."""


def ready_encoders() -> list[str]:
    """Names of those that have nothing to be trained."""
    return [name for name in FRAME_ENCODERS if FRAME_ENCODERS[name].ready]


def ready_encoder(name: str) -> FrameEncoder:
    """One of those, by its name."""
    assert FRAME_ENCODERS[name].ready, name
    encoder: FrameEncoder = FRAME_ENCODERS[name]()
    return encoder


def frame_encoder_from_json(value: Mapping[str, Any]) -> FrameEncoder:
    """A registered encoder, those inside it first; InputError where there is none of that name."""
    inside = {
        name: frame_encoder_from_json(part)
        for name, part in value.items()
        if isinstance(part, Mapping) and part.get("class") in FRAME_ENCODERS
    }
    encoder: FrameEncoder = FRAME_ENCODERS[value.get("class")].from_json({**value, **inside})
    return encoder


def load_encoder(folder: Path) -> FrameEncoder:
    """An encoder with its weights, as `FrameEncoder.save` or `unitok systems run hubert` wrote it, not training."""
    if (folder / "encoder.json").exists():
        encoder = frame_encoder_from_json(read_json(folder / "encoder.json"))
        encoder.load_state_dict(read_tensors(folder / "encoder.safetensors"))
        return encoder.eval()
    value = read_json(folder / "config.json")
    if value["class"] == CtcEncoder.name:
        return CtcEncoder.load(folder).eval()
    encoder = frame_encoder_from_json(value)
    if (folder / "model.safetensors").exists() or encoder.state_dict():
        encoder.load_state_dict(read_tensors(folder / "model.safetensors"))
    return encoder.eval()
