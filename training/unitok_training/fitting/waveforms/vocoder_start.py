"""What the training of a vocoder starts from: the network of another one, and a recipe that goes on from there.

B batch, S samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint
from unitok_training.fitting.waveforms.waveform import VocoderRecipe, vocoder_recipe
from unitok_vocoder.conditions import CodesInput, MelInput, UnitsInput
from unitok_vocoder.generator import Generator, units_condition
from unitok_vocoder.hifigan import HifiGanConfig
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.unit_mel import UnitMel
from unitok_vocoder.vocoder import Vocoder
from unitok_vocoder.vocos import VocosConfig

SLOWER = 0.2
"""Learning rates ÷ those of a vocoder that begins from nothing."""
STEPS, LEAD = 600, 100
"""Updates; and of these what the discriminators, which are new, learn alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VocoderStart:
    """A network that is trained on."""

    generator: Generator
    """It, in evaluation mode; it is trained in place."""
    voices: dict[str, np.ndarray]
    """Speaker → voice vector (E,), where it speaks units."""

    @property
    def fingerprint(self) -> str:
        """Identifies the weights."""
        weights = sorted(self.generator.state_dict().items())
        return array_fingerprint(*(value.cpu().numpy() for _, value in weights))

    def recipe(self) -> VocoderRecipe:
        """Its shape, fewer and slower updates, and discriminators from the first step."""
        network, width = self.generator.network.sizes, getattr(self.generator.condition.config, "width", None)
        plain = vocoder_recipe(self.generator.kind, self.generator.given)
        optim = replace(
            plain.optim,
            learning_rate=SLOWER * plain.optim.learning_rate,
            matrix_learning_rate=SLOWER * plain.optim.matrix_learning_rate,
        )
        return replace(
            plain,
            steps=STEPS,
            optim=optim,
            judges=replace(plain.judges, begin=0, lead=LEAD),
            vocos=network if isinstance(network, VocosConfig) else plain.vocos,
            hifigan=network if isinstance(network, HifiGanConfig) else plain.hifigan,
            width=plain.width if width is None else width,
        )

    def check(self, recipe: VocoderRecipe, inputs: MelInput | CodesInput | UnitsInput, generator: Generator) -> None:
        """InputError where what is to be trained is not this network: another shape, or tokens of another tokenizer."""
        own = self.generator
        if inputs != own.condition.config and getattr(inputs, "made_by", "") != own.condition.made_by:
            raise InputError(
                f"the start speaks {recipe.given} of another tokenizer than --tokenizers has; give those that it was "
                "trained with"
            )
        said = {
            "kind": (own.kind, recipe.kind),
            "width": (asdict(own.condition.config), asdict(inputs)),  # type: ignore[call-overload]
            recipe.kind: (asdict(own.network.sizes), asdict(generator.network.sizes)),
            "the features": (asdict(own.mel), asdict(generator.mel)),
        }
        for name, (old, new) in said.items():
            if old != new:
                raise InputError(f"the start's {name} is {old}, the recipe's {new}: leave it out, the start gives it")

    def begin(self, generator: Generator) -> None:
        """Give a generator of the same shape these weights. One that speaks units keeps its speaker encoder: voices
        that are known stay what they are."""
        generator.load_state_dict(self.generator.state_dict())
        if generator.given == "units":
            units_condition(generator).speaker.requires_grad_(False)


def vocoder_start(folder: Path | str, given: str) -> VocoderStart:
    """The network of a vocoder's folder, or of a model directory, that is given log-mels, codes or units.

    Raises:
        InputError: there is none.
    """
    root = Path(folder) / "vocoder" if (Path(folder) / "vocoder/config.json").is_file() else Path(folder)
    if not (root / "config.json").is_file():
        raise InputError(
            f"{folder} holds no vocoder; give a folder that train-vocoder wrote, or a model with a vocoder"
        )
    vocoder = Vocoder.load(root)
    network = vocoder.parts.get(given)
    if network is None:
        there = ", ".join(vocoder.parts) or "none"
        raise InputError(f"{folder} has no network from {given}; it has: {there}. Train one without --start")
    if isinstance(network, UnitMel):
        raise InputError(
            f"the units of {folder} are spoken through log-mels: train on the network behind them with --from mel, or "
            "one that speaks units at once, without --start"
        )
    return VocoderStart(generator=as_generator(network), voices=vocoder.voices if given == "units" else {})


def as_generator(network: MelVocoder | Generator) -> Generator:
    """The spectral vocoder of the demo as a generator from log-mels, which computes the same."""
    if isinstance(network, Generator):
        return network
    sizes = VocosConfig(**asdict(network.config))
    made = Generator("vocos", sizes, "mel", MelInput(num_mels=network.mel.num_mels), network.mel)
    made.load_state_dict({f"network.{name}": value for name, value in network.state_dict().items()})
    return made.eval()
