"""The CTC training loop behind the built-in speech encoder and the judge.

B batch, F mel frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from unitok_tokenizers.audio.backgrounds import Backgrounds, Surroundings, split_at_quiet, surrounded
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.encoders.batches import batches_by_length, between_silence
from unitok_tokenizers.encoders.ctc import before_causal
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.data.augmentation import Augmentation, changed, draw_change
from unitok_training.fitting.network import fit_network
from unitok_training.fitting.share import Share
from unitok_training.fitting.spool import FrameSpool
from unitok_training.trainer.distributed import World
from unitok_training.trainer.optimizer import OptimConfig

QUICK = OptimConfig(
    name="muon", learning_rate=4e-3, matrix_learning_rate=0.04, warmup_steps=30, schedule="linear", min_ratio=0.0
)
"""Muon: after 300 steps of the demo it gets a third of the words right that AdamW gets wrong."""


TYPICAL_RECORDINGS = 200
"""What a causal network expects of a recording's beginning is taken from so many of them."""


@dataclass(frozen=True, kw_only=True)
class CtcConfig(Augmentation):
    """How a CTC network is trained."""

    steps: int = 1200
    """Optimizer steps."""
    batch_frames: int = 6400
    """Mel frames a batch, padding included (64 s)."""
    optim: OptimConfig = QUICK
    """How weights move."""
    seed: int = 0
    """Seed of initial weights, batches and augmentation."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    """Silence, noise and other utterances around each recording, drawn once."""
    width: int = 256
    """Channels of the network."""
    blocks: int = 8
    """Blocks of the network."""
    causal: bool = False
    """Whether it looks back only, so that it can read a recording as it comes."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("steps", "batch_frames", "width", "blocks"):
            if getattr(self, name) < 1:
                raise InputError(f"encoder {name} is {getattr(self, name)}: give 1 or more")


def alphabet_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Characters of the training text, sorted."""
    return tuple(sorted({character for text in texts for character in text}))


def train_ctc(
    recordings: Sequence[np.ndarray],
    texts: Sequence[str],
    config: CtcConfig,
    *,
    mel: MelConfig | None = None,
    compute: Compute | None = None,
    progress: Callable[[int, float], None] | None = None,
    world: World | None = None,
) -> CtcNetwork:
    """Train a network to read `texts` from `recordings` ((S,) float32 at the mel configuration's rate).

    Deterministic for a seed, a thread count and a precision; the processes of a world, which share the recordings of a
    step, all have what one would have. Raises InputError where there is nothing to learn from.
    """
    if not recordings or not any(texts):
        raise InputError("no recordings with text to train a recognizer on; give rows with both audio and text")
    mel = mel or MelConfig()
    alphabet = alphabet_of(texts)
    index = {character: position + 1 for position, character in enumerate(alphabet)}
    mels, labels = FrameSpool(), list[Tensor]()
    with torch.no_grad():
        for samples, text in surrounded_examples(recordings, texts, mel.sample_rate, config):
            mels.append(_read_as(samples, mel, causal=config.causal))
            labels.append(
                torch.tensor(
                    [index[character] for character in text if character in index], dtype=torch.int64, device="cpu"
                )
            )
    torch.manual_seed(config.seed)  # initial weights and dropout; the caller's process is a stage of its own
    sizes = CtcNetworkConfig(
        num_mels=mel.num_mels, width=config.width, blocks=config.blocks, alphabet=alphabet, causal=config.causal
    )
    network = CtcNetwork(sizes)
    if network.running is not None:
        network.running.learn(mels[: min(len(mels), TYPICAL_RECORDINGS)])
    _optimize(network.train(), mels, labels, config, compute or resolve("cpu"), progress, Share(world))
    return network.cpu().eval()


def _read_as(samples: np.ndarray, mel: MelConfig, *, causal: bool) -> Tensor:
    """Log-mels (F, M) of samples (S,), as `CtcEncoder.inputs` gives them."""
    heard = np.pad(samples, (before_causal(mel), 0)) if causal else between_silence(samples, mel)
    return log_mel(torch.from_numpy(heard), mel)


def surrounded_examples(
    recordings: Sequence[np.ndarray], texts: Sequence[str], rate: int, config: CtcConfig
) -> Iterator[tuple[np.ndarray, str]]:
    """(samples (S,), text) of each recording with something around it, then of noises in which nothing is said."""
    random, settings = np.random.default_rng([config.seed, 11]), config.surroundings
    few = random.permutation(len(recordings))[:24].tolist()
    backgrounds = Backgrounds([recordings[i] for i in few], rate, seed=config.seed)
    for samples, text in zip(recordings, texts):
        parts = [samples]
        if random.random() < settings.gap_share:
            parts = split_at_quiet(samples, rate, random)
        elif random.random() < settings.join_share:
            other = int(random.integers(len(recordings)))
            parts, text = [samples, recordings[other]], f"{text} {texts[other]}"
        yield surrounded(parts, rate, backgrounds, random, settings), text
    for _ in range(round(settings.nothing_share * len(recordings))):
        size = round(rate * random.uniform(0.3, 3.0))
        yield backgrounds.draw(size, random) * np.float32(0.1) * (random.random() >= settings.silent_share / 2), ""


def _optimize(
    network: CtcNetwork,
    mels: FrameSpool,
    labels: Sequence[Tensor],
    config: CtcConfig,
    compute: Compute,
    progress: Callable[[int, float], None] | None,
    share: Share,
) -> None:
    random = np.random.default_rng(config.seed)
    lengths, bins = mels.lengths(), network.config.num_mels
    batches = batches_by_length(lengths, config.batch_frames)
    order: list[int] = []

    def loss(step: int) -> Tensor:
        if not order:
            order.extend(random.permutation(len(batches)).tolist())
        chosen = batches[order.pop()]
        changes = [draw_change(lengths[i], bins, random, config) for i in chosen]
        rows = share.of(len(chosen))
        chosen = chosen[rows]
        augmented = [changed(mels[i], change) for i, change in zip(chosen, changes[rows])]
        frames = torch.tensor([len(one) for one in augmented], device=compute.device)
        with compute.mixed():
            padded = pad_sequence(augmented, batch_first=True).to(compute.device)
            log_probabilities, emitted = network(padded, frames)
        targets = torch.cat([labels[i] for i in chosen]).to(compute.device)
        sizes = torch.tensor([len(labels[i]) for i in chosen], device=compute.device)
        return share.mean(
            functional.ctc_loss(log_probabilities.transpose(0, 1), targets, emitted, sizes, zero_infinity=True)
        )

    fit_network(
        network, loss, steps=config.steps, optim=config.optim, compute=compute, progress=progress, share=share
    )  # fmt: skip
