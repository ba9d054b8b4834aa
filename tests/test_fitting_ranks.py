"""Small networks give with two and with four processes what they give with one: losses and weights, continued too.

Float32, and AdamW with a large ε, as in `test_trainer_ranks.py`. Batches are of three or five: no number of processes
shares them evenly, with four some have nothing of their own, and a mean of means would be another number.
Run alone with `pytest tests/test_fitting_ranks.py`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.launching import ranks
from tests.support.recordings import write_pairs
from tests.support.tiny_model import speech, tiny_model, tokenizers
from unitok.cli.main import main
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.encoders.conformer import TrunkConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.finetune.mwer import MwerConfig, train_mwer
from unitok_training.fitting.codec import CodecConfig, train_codec
from unitok_training.fitting.ctc import CtcConfig, train_ctc
from unitok_training.fitting.hubert import HubertConfig, pretrain
from unitok_training.fitting.kept import Keeping, Kept
from unitok_training.fitting.network import fit_network
from unitok_training.fitting.units import InvarianceConfig, fit_invariance
from unitok_training.fitting.waveforms.vocoder_run import train_vocoder
from unitok_training.fitting.waveforms.waveform import VocoderRecipe
from unitok_training.recipes.latent import tiny
from unitok_training.run_models.latent import make_front_end
from unitok_training.trainer.distributed import World, world_from_environment
from unitok_training.trainer.optimizer import OptimConfig
from unitok_training.trainer.stopping import Stopped

SCRIPT = "import sys; from tests.test_fitting_ranks import work; work(sys.argv[1])"
RELATIVE, ABSOLUTE = 1e-5, 3e-5
"""How far losses, and weights, may be apart: float32 adds up in another order."""
OPTIM = OptimConfig(learning_rate=1e-2, warmup_steps=1, epsilon=1e-2)
RECORDINGS = [speech(0.5 + 0.1 * index, seed=index) for index in range(5)]
TEXTS = ["we buy", "two", "books", "she sings", "now"]
CODEC = CodecConfig(steps=10, batch=5, crop=8, codebooks=2, cardinality=8, dropped=0.5, optim=OPTIM, revive_below=0.5)
"""The second step begins with codebooks; many of their codes are used too little, and start again."""
CHAIN = {1: 3, 2: 6, 4: CODEC.steps}
"""Processes that a run is continued with → the steps after which it stops."""
Found = dict[str, dict[str, Any]]


def fitted(manifest: Path, world: World) -> Iterator[tuple[str, list[float], dict[str, torch.Tensor]]]:
    """(name, losses, weights) of everything that `fit_network` trains in several processes."""
    losses: list[float] = []
    ctc = CtcConfig(steps=5, batch_frames=330, width=16, blocks=2, optim=OPTIM)
    compute = resolve("cpu", "fp32")
    read = train_ctc(
        RECORDINGS, TEXTS, ctc, compute=compute, progress=lambda _, loss: losses.append(loss), world=world
    )  # fmt: skip
    yield "ctc", losses, read.state_dict()

    losses = []
    trunk = TrunkConfig(width=16, layers=1, heads=2, inner=16)
    masked = HubertConfig(
        trunk=trunk, iterations=1, clusters=4, steps=4, batch=3, layer=1, mix_share=0.5, optim=OPTIM
    )  # fmt: skip
    (found,) = pretrain(RECORDINGS, masked, progress=lambda _, step, loss: losses.append(loss), world=world)
    yield "masked", [*losses, found.accuracy], found.encoder.state_dict()

    losses, units = [], tokenizers().unit_tokenizer
    assert units is not None
    invariant = InvarianceConfig(steps=4, batch_frames=120, draws=1, hidden=16, optim=OPTIM)
    corrected = fit_invariance(
        units, RECORDINGS[:2], invariant, compute=compute, progress=lambda _, loss: losses.append(loss), world=world
    ).correction
    assert corrected is not None
    yield "invariant", losses, corrected.state_dict()

    model = tiny_model()
    front = make_front_end(tiny(), model.decoder, model.vocabulary.streams["text"].cardinalities[0])
    model.latent = front.eval()
    rows = [row for row in read_manifest(manifest) if row.split == "train" and row.lang == "en"]
    fewer = MwerConfig(steps=2, lists=3, beams=2, optim=replace(OPTIM, learning_rate=1e-3))
    yield "mwer", train_mwer(model, rows, fewer, world=world), model.decoder.state_dict()

    yield "codec", *coded(CODEC, world)
    yield "codec that is taught", *coded(replace(CODEC, code_width=4, distilled=1.0), world)


def coded(config: CodecConfig, world: World) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and weights of a codec."""
    losses, units = list[float](), tokenizers().unit_tokenizer
    assert units is not None
    codec = train_codec(
        RECORDINGS, units, config,
        compute=resolve("cpu", "fp32"), progress=lambda _, loss: losses.append(loss), world=world,
    )  # fmt: skip
    return losses, codec.network.state_dict()


def stopped(run: Path, world: World, after: int) -> dict[str, torch.Tensor]:
    """A codec's training that goes on where the run stands, until one of its processes gets a signal."""
    units = tokenizers().unit_tokenizer
    assert units is not None
    compute, keeping = resolve("cpu", "fp32"), Keeping(checkpoint_every=4)
    kept = Kept(run, steps=CODEC.steps, settings={}, compute=compute, keeping=keeping, world=world)

    def signaled(step: int, loss: float) -> None:
        if step == after and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with kept:
        try:
            codec = train_codec(
                RECORDINGS, units, CODEC, compute=compute, progress=signaled, kept=kept, world=world
            )  # fmt: skip
            return codec.network.state_dict()
        except Stopped:
            assert kept.done == after
            return {}


def work(folder: str) -> None:
    """Train all in this process of its world; what each gave goes to files of `folder`."""
    torch.set_num_threads(1)
    root, found = Path(folder), Found()
    with world_from_environment("cpu") as world:
        for name, losses, weights in fitted(root / "m.jsonl", world):
            found[name] = {"losses": losses, "weights": {key: one.clone() for key, one in weights.items()}}
        for name, stops in (("chain", [CHAIN[world.size]]), ("again", [5, CODEC.steps])):
            run = root / (name if name == "chain" else f"{name}-{world.size}")
            for stop in stops:
                held = stopped(run, world, stop)
            found[name] = {"losses": [], "weights": held}
        if world.size > 1:
            with pytest.raises(InputError, match="torchrun has started"):
                train_vocoder([], root / "vocoder", VocoderRecipe())
        (root / str(world.size)).mkdir(exist_ok=True)
        torch.save(found, root / str(world.size) / f"{world.rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All networks with one, two and four processes."""
    root = tmp_path_factory.mktemp("ranks")
    write_pairs(root)
    (root / "script.py").write_text(SCRIPT, encoding="utf-8")
    work(str(root))
    for size in (2, 4):
        done = ranks([str(root / "script.py"), str(root)], size)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def given(folder: Path, size: int, rank: int = 0) -> Found:
    found: Found = torch.load(folder / str(size) / f"{rank}.pt")
    return found


def assert_near(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], name: str) -> None:
    assert found.keys() == wanted.keys() and wanted, name
    for key, value in wanted.items():
        torch.testing.assert_close(
            found[key], value, rtol=RELATIVE, atol=ABSOLUTE, msg=lambda said, at=(name, key): f"{at}: {said}"
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_every_small_network_is_what_one_process_makes(folder: Path, size: int) -> None:
    alone, ranks = given(folder, 1), [given(folder, size, rank) for rank in range(size)]
    assert len(alone) == 8
    for name, one in alone.items():
        losses = one["losses"]
        assert ranks[0][name]["losses"] == pytest.approx(losses, rel=RELATIVE), name
        assert name in ("chain", "again") or np.ptp(losses) > 1e-2 * abs(np.mean(losses)), f"{name} stands still"
        if name != "chain":
            assert_near(ranks[0][name]["weights"], one["weights"], name)
        for other in ranks[1:]:
            assert other[name]["losses"] == ranks[0][name]["losses"], name
            for key, value in ranks[0][name]["weights"].items():
                assert torch.equal(other[name]["weights"][key], value), (name, key)


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_processes(folder: Path) -> None:
    for size in (1, 2, 4):  # bit for bit with as many
        found = given(folder, size)
        for key, value in found["codec"]["weights"].items():
            assert torch.equal(found["again"]["weights"][key], value), (size, key)
    assert not given(folder, 1)["chain"]["weights"] and not given(folder, 2)["chain"]["weights"]
    assert_near(given(folder, 4)["chain"]["weights"], given(folder, 1)["codec"]["weights"], "chain")
    steps = sorted(path.name for path in (folder / "chain" / "checkpoints").iterdir() if path.name.startswith("step"))
    assert steps[-1] == f"step_{CODEC.steps:08d}"
    lines = (folder / "chain" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [CODEC.steps], "the first process alone writes figures"


@pytest.mark.slow
def test_the_command_writes_once_what_one_process_writes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--clusters", "8", "--encoder-steps", "2", "--codec-steps", "2", "--text-pieces", "300"]
    places = "--device", "cpu", "--precision", "fp32"
    assert main(["fit-tokenizers", str(folder / "m.jsonl"), str(tmp_path / "one"), *options, *places]) == 0
    said = capsys.readouterr().out
    command = ["-m", "unitok", "fit-tokenizers", str(folder / "m.jsonl"), str(tmp_path / "two"), *options, *places]
    done = ranks(command, 2)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = TokenizerSet.load(tmp_path / "one"), TokenizerSet.load(tmp_path / "two")
    streams = json.loads(done.stdout)
    assert [each["name"] for each in streams] == [each["name"] for each in json.loads(said)]
    assert one.units is not None and two.units is not None
    np.testing.assert_allclose(two.units.centroids.numpy(), one.units.centroids.numpy(), rtol=1e-2, atol=1e-2)
    assert len(two.units.centroids) == 8 and two.codec is not None


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    network = torch.nn.Linear(2, 1)
    before: list[torch.Tensor] = []

    def loss(step: int) -> torch.Tensor:
        before[:] = [value.detach().clone() for value in network.parameters()]
        found = network(torch.ones(1, 2)).square().sum()
        return found if step < 2 else found + (network.weight - network.weight.detach()).abs().sqrt().sum()

    with pytest.raises(InputError, match="gradient .* at step 3"):
        fit_network(network, loss, steps=5, optim=OPTIM, compute=resolve("cpu", "fp32"))
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters()))
