"""The loop that trains vocoders against spectra and discriminators.

B batch, S samples of a crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import AUTO, Compute, check_precision
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.fitting.kept import Keeping, Kept
from unitok_training.fitting.waveforms.waveform_sources import WaveSource
from unitok_training.objectives.adversarial import (
    ADVERSARIES,
    Balancer,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    plain_gradient,
)
from unitok_training.trainer.optimizer import MuonParams, OptimConfig, Optimizer, clip_gradients, embedding_names, rate
from unitok_vocoder.discriminators import SCALES, Discriminators, Judged
from unitok_vocoder.generator import Generator, fold_weights, normalize_weights
from unitok_vocoder.hifigan import HifiGanConfig
from unitok_vocoder.losses import mel_loss, stft_loss
from unitok_vocoder.vocos import VocosConfig


@dataclass(frozen=True, kw_only=True)
class WaveWeights:
    """Shares of the gradient at the samples, or weights of the losses where they are not balanced."""

    mel: float = 2.0
    """L1 of log-mels."""
    spectral: float = 1.0
    """Spectral convergence and L1 of log-magnitudes, at three resolutions."""
    adversarial: float = 0.5
    """To be taken for real; not used without discriminators."""
    features: float = 0.5
    """Features of the discriminators like a recording's; not used without them."""
    aside: float = 0.3
    """Predicted durations and pitch, which never reach the samples."""


@dataclass(frozen=True, kw_only=True)
class JudgesConfig:
    """The discriminators."""

    used: bool = True
    """Whether there are any; without them a step takes a fraction of the time, and speech stays somewhat dull."""
    begin: int = 500
    """First step that they learn in: what is noise still needs none to tell."""
    lead: int = 200
    """Steps that they learn alone. Without a lead the spectra get worse: balanced, what a judge that knows nothing says
    counts as much as what one says that does."""
    width: int = 16
    """Channels of their first layers; 32 as published."""
    loss: str = "hinge"
    """"hinge" or "least_squares"."""
    optim: OptimConfig = OptimConfig(
        learning_rate=2e-4, warmup_steps=0, schedule="linear", betas=(0.8, 0.99), weight_decay=0.01
    )
    """How their weights move."""

    def __post_init__(self) -> None:
        if self.loss not in ADVERSARIES:
            raise InputError(f"judges.loss is {self.loss!r}: choose from {', '.join(ADVERSARIES)}")
        if self.width < 1:
            raise InputError(f"judges.width is {self.width}: it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class VocoderRecipe:
    """How a vocoder is trained."""

    kind: str = "vocos"
    """"vocos" or "hifigan"."""
    given: str = "mel"
    """What it speaks: "mel", "codes" or "units"."""
    vocos: VocosConfig = VocosConfig()
    """Sizes, where the kind is vocos."""
    hifigan: HifiGanConfig = HifiGanConfig()
    """Sizes, where the kind is hifigan."""
    width: int = 192
    """Channels of the embeddings of codes or units."""
    steps: int = 3000
    """Updates."""
    batch: int = 12
    """Crops a step."""
    crop: float = 0.5
    """Seconds of a crop, rounded to frames."""
    optim: OptimConfig = OptimConfig(
        name="muon", learning_rate=2e-3, matrix_learning_rate=0.02, warmup_steps=50, schedule="linear", min_ratio=0.0
    )
    """How the vocoder's weights move."""
    judges: JudgesConfig = JudgesConfig()
    """Discriminators."""
    weights: WaveWeights = WaveWeights()
    """What counts how much."""
    balanced: bool = True
    """Whether weights are shares of the gradient, whatever the size of a loss."""
    decoded_share: float = 0.5
    """Share of crops whose log-mels went through the codec, so that its errors are known; from log-mels only."""
    recordings: int = 2000
    """Most recordings that are learned from, and of those two hours at most."""
    keeping: Keeping = field(default_factory=Keeping)
    """How often it is written down."""
    precision: str = AUTO
    """One of `unitok_tokenizers.compute.PRECISIONS`."""
    seed: int = 0
    """Of initial weights and crops."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_precision(self.precision)
        if self.precision == "bf16-pure":
            raise InputError("precision is 'bf16-pure': choose auto, fp32 or bf16; `unitok train` alone takes it")
        for name in ("steps", "batch", "recordings", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if self.crop <= 0:
            raise InputError(f"crop is {self.crop}: give seconds above 0")
        if not 0 <= self.decoded_share <= 1:
            raise InputError(f"decoded_share is {self.decoded_share}: a share lies between 0 and 1")
        if self.weights.mel + self.weights.spectral <= 0:
            raise InputError("weights.mel and weights.spectral are 0: nothing says which sound is wanted")


def vocoder_recipe(kind: str = "vocos", given: str = "mel") -> VocoderRecipe:
    """The recipe of a kind: HiFi-GAN, which has no matrices that Muon could move, goes slower than Vocos."""
    if kind == "hifigan":
        optim = OptimConfig(
            learning_rate=5e-4, warmup_steps=50, schedule="linear", min_ratio=0.0, betas=(0.8, 0.99), weight_decay=0.01
        )
        return VocoderRecipe(kind=kind, given=given, optim=optim)
    return VocoderRecipe(kind=kind, given=given)


class WaveTraining:
    """One generator, its discriminators and the balance between what they want.

    Args:
        generator: trained in place; it stays on the device.
        source: crops.
        recipe: how.
        compute: device and precision.
    """

    def __init__(self, generator: Generator, source: WaveSource, recipe: VocoderRecipe, compute: Compute) -> None:
        self.generator, self.source, self.recipe, self.compute = generator, source, recipe, compute
        if generator.network.weight_normed:
            assert isinstance(generator.network, nn.Module)
            normalize_weights(generator.network)
        samples = source.crop(0).samples.shape[1]
        self.mel: MelConfig = generator.mel
        weights = recipe.weights
        self.shares = {"mel": weights.mel, "spectral": weights.spectral}
        self.judges: Discriminators | None = None
        if recipe.judges.used:
            self.judges = Discriminators(recipe.judges.width, scales=[one for one in SCALES if one < samples])
            self.shares |= {"adversarial": weights.adversarial, "features": weights.features}
        self.adversary = ADVERSARIES[recipe.judges.loss]
        self.balancer = Balancer(self.shares)
        parts = {"generator": generator, "balancer": self.balancer, "judges": self.judges}
        self.network = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
        self.network.to(compute.device)
        matrices = MuonParams(compute.products)
        named = {name: value for name, value in generator.named_parameters() if value.requires_grad}
        self.optimizer = Optimizer(named, recipe.optim, matrices, embeddings=embedding_names(generator))
        self.optimizers = {"generator": self.optimizer}
        if self.judges is not None:
            self.optimizers["judges"] = Optimizer(dict(self.judges.named_parameters()), recipe.judges.optim)

    def run(self, kept: Kept) -> None:
        """Train to the end, from wherever the run stands; the weights are plain ones afterwards."""
        for step in range(kept.begin(self.network, self.optimizers), self.recipe.steps):
            losses = self.step(step)
            kept.after(step + 1, lambda found=losses: read(found))  # type: ignore[misc]
        fold_weights(self.generator)
        self.generator.eval()

    def step(self, step: int) -> dict[str, Tensor]:
        """One update of everything; returns the losses () of before it.

        Raises:
            InputError: a loss that is not a number.
        """
        self.network.train()
        crop = self.source.crop(step).to(self.compute.device)
        with self.compute.mixed():
            given = self.source.given(self.generator, crop)
            made = self.generator(*given)
            aside = self.source.aside(self.generator, crop, given)
        made, real = made.float(), crop.samples
        losses = {"mel": mel_loss(made, real, self.mel), "spectral": stft_loss(made, real)}
        judged: dict[str, Tensor] = {}
        if self.judges is not None and step >= self.recipe.judges.begin:
            judged = {"discriminators": self._judge(made, real, step)}
            if step >= self.recipe.judges.begin + self.recipe.judges.lead:
                losses |= self._fool(made, real)
        said = losses | judged | ({} if aside is None else {"aside": aside})
        if not bool(torch.isfinite(torch.stack([one.detach().float() for one in said.values()])).all()):
            raise InputError(
                f"a loss at step {step + 1} is not a number; lower the learning rate "
                f"({self.recipe.optim.learning_rate}) or judges.optim.learning_rate"
            )
        if self.recipe.balanced:
            gradient = self.balancer.gradient(losses, made)
        else:
            gradient = plain_gradient(losses, self.shares, made)
        self.optimizer.zero_grad()
        torch.autograd.backward([made], [gradient], retain_graph=aside is not None)
        if aside is not None:
            (self.recipe.weights.aside * aside).backward()  # type: ignore[no-untyped-call]
        self._move("generator", self.recipe.optim, step)
        return {name: value.detach() for name, value in said.items()}

    def _judge(self, made: Tensor, real: Tensor, step: int) -> Tensor:
        """One update of the discriminators; returns their loss."""
        with self.compute.mixed():
            true, false = self._scored(real), self._scored(made.detach())
        loss = discriminator_loss(true, false, self.adversary)
        self.optimizers["judges"].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._move("judges", self.recipe.judges.optim, step)
        return loss

    def _fool(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """What the generator learns from the discriminators."""
        assert self.judges is not None
        self.judges.requires_grad_(False)
        with self.compute.mixed():
            with torch.no_grad():
                true = self._scored(real)
            false = self._scored(made)
        self.judges.requires_grad_(True)
        return {"adversarial": adversarial_loss(false, self.adversary), "features": feature_loss(true, false)}

    def _scored(self, samples: Tensor) -> list[Judged]:
        assert self.judges is not None
        found: list[Judged] = self.judges(samples)
        return found

    def _move(self, name: str, config: OptimConfig, step: int) -> None:
        optimizer = self.optimizers[name]
        clip_gradients([value.grad for value in optimizer.named.values() if value.grad is not None], config.clip)
        optimizer.step(rate(step, steps=self.recipe.steps, config=config))


def read(losses: Mapping[str, Tensor]) -> dict[str, float | dict[str, float]]:
    """A row of metrics: `loss` says how far the spectra are off, and `losses` has all."""
    found = {name: float(value) for name, value in losses.items()}
    return {"loss": found["mel"] + found["spectral"], "losses": found}
