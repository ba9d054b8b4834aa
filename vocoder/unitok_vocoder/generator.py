"""A vocoder of parts: what it is given (`conditions`), and the network that makes samples of frames.

B batch, F frames, S samples.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.files import read_json, read_tensors, write_json
from unitok_tokenizers.registry import Registry
from unitok_vocoder.conditions import Condition, UnitsCondition

GENERATORS = Registry("vocoder", {"vocos": "unitok_vocoder.vocos:Vocos", "hifigan": "unitok_vocoder.hifigan:HifiGan"})
"""Kind → network; its `Config` has the sizes."""
CONDITIONS = Registry(
    "vocoder input",
    {
        "mel": "unitok_vocoder.conditions:MelCondition",
        "codes": "unitok_vocoder.conditions:CodesCondition",
        "units": "unitok_vocoder.conditions:UnitsCondition",
    },
)
"""What it speaks → condition; its `Config` has the sizes."""


class SamplesNetwork(Protocol):
    """Frames to samples: built as `network(config, features, hop)`."""

    sizes: Any
    """Its `Config`."""
    hop: int
    """Samples of a frame."""
    weight_normed: bool
    """Whether it trains with `normalize_weights`."""

    @property
    def reach(self) -> int:
        """Frames on either side that a sample depends on, at most."""

    def __call__(self, frames: Tensor) -> Tensor:
        """(B, F, D) → (B, F · hop)."""


class Generator(nn.Module):
    """A condition and a network that fit together.

    Args:
        kind: of `GENERATORS`.
        sizes: its `Config`.
        given: of `CONDITIONS`.
        inputs: its `Config`.
        mel: sample rate and hop; the features too, where log-mels are given.
    """

    def __init__(self, kind: str, sizes: Any, given: str, inputs: Any, mel: MelConfig) -> None:
        super().__init__()
        self.kind, self.given, self.mel = kind, given, mel
        self.condition: Condition = CONDITIONS[given](inputs)
        self.network: SamplesNetwork = GENERATORS[kind](sizes, self.condition.features, mel.hop_length)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.mel.sample_rate

    @property
    def reach(self) -> int:
        """Frames of `mel.hop_length` samples on either side that a sample depends on, at most, behind the condition."""
        return self.network.reach

    def forward(self, *given: Tensor) -> Tensor:
        """What the condition takes → samples (B, S)."""
        return self.network(self.condition(*given))

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = {
            "class": "generator",
            "kind": self.kind,
            "network": asdict(self.network.sizes),
            "given": self.given,
            "condition": asdict(self.condition.config),  # type: ignore[call-overload]
            "mel": asdict(self.mel),
        }
        write_json(folder / "config.json", config)

    @staticmethod
    def load(folder: Path) -> Generator:
        """Read what `save` wrote."""
        config = read_json(folder / "config.json")
        sizes = GENERATORS[config["kind"]].Config(**config["network"])
        inputs = {key: tuple(value) if isinstance(value, list) else value for key, value in config["condition"].items()}
        condition = CONDITIONS[config["given"]].Config(**inputs)
        made = Generator(config["kind"], sizes, config["given"], condition, MelConfig(**config["mel"]))
        made.load_state_dict(read_tensors(folder / "model.safetensors"))
        return made.eval()


def units_condition(generator: Generator) -> UnitsCondition:
    """What a generator that speaks units knows of durations, pitch and voices."""
    assert isinstance(generator.condition, UnitsCondition), "units are spoken by what is given units"
    return generator.condition


def is_generator(folder: Path) -> bool:
    """Whether a folder is one that `Generator.save` wrote."""
    found = read_json(folder / "config.json")
    return isinstance(found, dict) and found.get("class") == "generator"


def normalize_weights(network: nn.Module) -> None:
    """Train lengths and directions of the convolutions apart (Salimans & Kingma 2016), until `fold_weights`."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) and layer.groups == 1:
            torch.nn.utils.parametrizations.weight_norm(layer)


def fold_weights(network: nn.Module) -> None:
    """Make plain weights of those that were trained as lengths and directions."""
    from torch.nn.utils import parametrize

    for layer in network.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
