"""What the parts of the demo take here: a few seconds of its own training steps, on inputs of its own shapes.

Nothing is learned and nothing is written. B batch, F mel frames, M mel bins, T unit frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.model import Decoder
from unitok_tokenizers.acoustic.mel_network import STRIDE, MelCodecConfig, MelCodecNetwork
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_training.cost.devices import matrix_rate
from unitok_training.data.batch import Pack, collate
from unitok_training.data.documents import Document
from unitok_training.fitting.codec import SPECTRAL, CodecConfig
from unitok_training.fitting.ctc import QUICK, CtcConfig
from unitok_training.fitting.waveforms.vocoder import MelVocoderTraining, UnitMelTraining
from unitok_training.objectives.pack_losses import pack_losses, supervised_positions
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.trainer.optimizer import OptimConfig, descend, optimizer_of
from unitok_vocoder.losses import mel_loss, stft_loss
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig

RECORDING_FRAMES = 256
"""Mel frames of a recording of the phrase corpus, 2.6 s, in the mean."""
VOCABULARY, DOCUMENT = 2600, 96
"""Ids of the demo's vocabulary, and the tokens of one of its documents in the mean."""
TOGETHER = 8
"""Recordings that the speech encoder reads at once when reading is measured."""
SHARES = {"recording": 0.3, "reading": 0.4, "ctc": 1.6, "codec": 0.8, "vocoder": 0.8, "unit_mel": 0.8, "decoder": 2.5}
"""Seconds that each part is measured for, after one turn that does not count."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Seconds of one turn of each part, at the median."""

    recording: float
    """Log-mels of one recording, one thread: stands for everything that is done to recordings one by one."""
    reading: float
    """The speech encoder reads one recording, of several together, in float32, one thread."""
    ctc: float
    """A training step of the speech encoder or of the judge, one thread."""
    codec: float
    """A training step of the codec, one thread."""
    vocoder: float
    """A training step of the spectral vocoder, one thread."""
    unit_mel: float
    """A training step of the unit synthesizer, one thread."""
    decoder: float
    """A training step of the decoder as its recipe shapes it, not compiled, with the threads that a run gives it."""
    gigaflops: float
    """Rate of matrix products in the run's precision with these threads, in 10⁹ operations a second; for people."""

    def to_json(self) -> dict[str, float]:
        """As `plan.json` keeps it."""
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}


Turn = Callable[[], object]


def measure(recipe: DecoderRecipe, compute: Compute, *, clusters: int, patience: float = 1.0) -> Measurement:
    """Measure this machine, in about ten seconds; `patience` times that.

    Args:
        recipe: of the decoder.
        compute: precision and threads of the run.
        clusters: number of units.
    """
    single: Mapping[str, Callable[[], Turn]] = {
        "recording": _recording,
        "reading": _reading,
        "ctc": lambda: _ctc(compute),
        "codec": lambda: _codec(compute, clusters),
        "vocoder": lambda: _vocoder(compute),
        "unit_mel": lambda: _unit_mel(compute, clusters),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with threads(1):
            found = {name: seconds_of(make(), patience * SHARES[name]) for name, make in single.items()}
        with threads(min(2, compute.threads)):  # as many as the stage `decoder` has
            found["decoder"] = seconds_of(_decoder(recipe, compute), patience * SHARES["decoder"])
            rate = matrix_rate("cpu", 1024, compute.products)
    return Measurement(**{**found, "reading": found["reading"] / TOGETHER}, gigaflops=rate / 1e9)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(turn: Turn, share: float) -> float:
    """Median seconds of a turn; as many turns as fit into `share` seconds, at least two, behind one that warms up."""
    turn()
    begin = now = time.perf_counter()
    taken: list[float] = []
    while len(taken) < 2 or now - begin < share:
        turn()
        after = time.perf_counter()
        taken.append(after - now)
        now = after
    return float(np.median(taken))


# -- the parts: each makes a turn that can be repeated --------------------------------------------------------------


def _training(module: nn.Module, optim: OptimConfig, compute: Compute, loss: Callable[[], Tensor]) -> Turn:
    """A step down the gradient of a loss."""
    optimizer = optimizer_of(module.train(), optim, compute.products)
    return lambda: descend(optimizer, loss(), step=50, steps=100)


def _recording() -> Turn:
    samples, mel = torch.randn(RECORDING_FRAMES * MelConfig().hop_length), MelConfig()
    return lambda: log_mel(samples, mel)


def _speech(batch: int, frames: int) -> Tensor:
    """Log-mels (B, F, M) of about the level of speech."""
    return torch.randn(batch, frames, MelConfig().num_mels) - 5.0


def _reader() -> tuple[CtcNetwork, Tensor, Tensor]:
    """(network, log-mels, lengths) of a batch of the speech encoder's training."""
    config = CtcConfig()
    alphabet = tuple("abcdefghijklmnopqrstuvwxyzäöü ")
    network = CtcNetwork(CtcNetworkConfig(width=config.width, blocks=config.blocks, alphabet=alphabet))
    mels = _speech(config.batch_frames // RECORDING_FRAMES, RECORDING_FRAMES)
    return network, mels, torch.full((len(mels),), RECORDING_FRAMES)


def _reading() -> Turn:
    network, mels, frames = _reader()
    network.eval()

    @torch.inference_mode()
    def turn() -> object:
        return network.hidden(mels[:TOGETHER], frames[:TOGETHER])

    return turn


def _ctc(compute: Compute) -> Turn:
    network, mels, frames = _reader()
    labels = torch.randint(1, 30, (len(mels) * 40,))
    counts = torch.full((len(mels),), 40)

    def loss() -> Tensor:
        with compute.mixed():
            found, lengths = network(mels, frames)
        return functional.ctc_loss(found.transpose(0, 1), labels, lengths, counts, zero_infinity=True)

    return _training(network, QUICK, compute, loss)


def _codec(compute: Compute, clusters: int) -> Turn:
    config = CodecConfig()
    network = MelCodecNetwork(MelCodecConfig(units=clusters), MelConfig().num_mels)
    mels, units = _speech(config.batch, STRIDE * config.crop), torch.randint(clusters, (config.batch, config.crop))
    mask, generator = torch.ones(config.batch, config.crop, 1), torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        with compute.mixed():
            residual, expected = network.residual(mels, units, mask)
        residual, expected = residual.float(), expected.float()
        flat, commitment = network.quantiser(residual.flatten(0, 1), generator)
        with compute.mixed():
            made = network.synthesize(expected + flat.view_as(residual), mask)
        return (made.float() - mels).abs().mean() + commitment

    return _training(network, SPECTRAL, compute, loss)


def _vocoder(compute: Compute) -> Turn:
    config, mel = MelVocoderTraining(), MelConfig()
    vocoder = MelVocoder(MelVocoderConfig(), mel)
    mels, real = _speech(config.batch, config.crop), 0.1 * torch.randn(config.batch, config.crop * mel.hop_length)

    def loss() -> Tensor:
        with compute.mixed():
            made = vocoder(mels)
        return mel_loss(made, real, mel) + stft_loss(made, real)

    return _training(vocoder, config.optim, compute, loss)


def _unit_mel(compute: Compute, clusters: int) -> Turn:
    config = UnitMelTraining()
    model = UnitMel(UnitMelConfig(units=clusters, stride=STRIDE), MelConfig())
    mels, references = _speech(config.batch, STRIDE * config.crop), _speech(config.batch, config.reference)
    frames, mask = torch.randint(clusters, (config.batch, config.crop)), torch.ones(config.batch, config.crop, 1)

    def loss() -> Tensor:
        with compute.mixed():
            voice = model.speaker(references).float()
            made = model.mels(frames, voice, mask)
            durations = model.log_durations(frames, voice.detach(), mask)
        return (made.float() - mels).abs().mean() + durations.float().pow(2).mean()

    return _training(model, config.optim, compute, loss)


def _pack(size: int) -> Pack:
    """A full pack of documents of the demo's mean length, two thirds of whose positions have a label."""
    random = np.random.default_rng(0)
    length = min(DOCUMENT, size)
    weight = (np.arange(length) >= length // 3).astype(np.float32)
    documents = [
        Document(ids=random.integers(VOCABULARY, size=length), loss_weight=weight, task=0)
        for _ in range(size // length)
    ]
    return collate(documents, capacity=size, pad=0)


def _decoder(recipe: DecoderRecipe, compute: Compute) -> Turn:
    config = recipe.train
    decoder = Decoder(recipe.decoder.config(VOCABULARY), generator=torch.Generator().manual_seed(0))
    pack = _pack(config.pack_size)
    supervised = supervised_positions(pack)

    def loss() -> Tensor:
        with compute.mixed():
            found = pack_losses(decoder, pack, supervised, chunk=config.loss_chunk)
        return config.packs_per_step * found.total / len(found.labels)

    return _training(decoder, config.optim, compute, loss)
