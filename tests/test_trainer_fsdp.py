"""FSDP2: four, two and one processes learn the same from the same packs, and continue one another's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_trainer_distributed import launch
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.trainer.fsdp import rows_of
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics

LEGS = ((4, 2), (2, 4), (1, 6))
"""(number of processes, step after the last)."""

SCRIPT = """
import json
import sys
from pathlib import Path

import torch

from tests.support import toy_shards
from tests.test_trainer_exactness import pack_hash
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_training.trainer.distributed import World, world_from_environment
from unitok_training.trainer.decoder import token_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.data.mixture import Mixture
from unitok_training.trainer.optimizer import OptimConfig
from unitok_training.data.examples import ExampleSource
from unitok_training.trainer.config import TrainConfig


class Recorder(Trainer):
    def _update(self, packs):
        seen.append([pack_hash(batch.pack) for batch in packs])
        super()._update(packs)


def work(out, stop, precision, optimizer):
    config = TrainConfig(steps=6, pack_size=256, packs_per_step=4, window=64, precision=precision, log_every=1,
                         checkpoint_every=2, shard=True, recompute_blocks=1,
                         optim=OptimConfig(name=optimizer, learning_rate=3e-3, warmup_steps=2))
    vocabulary = toy_shards.vocabulary()
    with world_from_environment("cpu") as world:
        torch.manual_seed(world.rank)  # rank 0's weights are broadcast
        decoder = Decoder(DecoderConfig(vocab_size=vocabulary.size, width=32, layers=2, heads=2, kv_heads=1,
                                        qk_norm=True))
        shards = toy_shards.ToyShards(toy_shards.corpus())
        mixture = Mixture(tasks={"asr": 2.0, "tts.codes": 1.0, "mt": 1.0})
        source = ExampleSource(shards, vocabulary, mixture, seed=0)
        trainer = Recorder(config, token_setup(config, decoder, source, world), out, world=world)
        trainer.resume()
        first = trainer.step
        trainer.run(stop_after=stop)
        (out / f"seen_{first}_{world.rank}.json").write_text(json.dumps(seen))
        torch.save(decoder.state_dict(), out / f"weights_{stop}_{world.rank}.pt")


seen = []
if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]), int(sys.argv[2]), *Path(sys.argv[1]).name.split("_"))
"""


def alone(out: Path, precision: str, optimizer: str) -> None:
    """The run in this process."""
    scope: dict[str, Any] = {"__name__": "script"}
    exec(compile(SCRIPT, "script", "exec"), scope)
    scope["work"](out, 6, precision, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "optimizer"), [("fp32", "adamw"), ("bf16-pure", "adamw"), ("fp32", "muon")])
def test_four_two_and_one_processes_train_one_run(tmp_path: Path, precision: str, optimizer: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    alone(tmp_path / "alone", precision, optimizer)
    out, found, first = tmp_path / f"{precision}_{optimizer}", [], 0
    for size, stop in LEGS:
        launch(script, out, size, stop=stop)
        ranks = [json.loads((out / f"seen_{first}_{rank}.json").read_text()) for rank in range(size)]
        found += [ranks[number % size][step][number // size] for step in range(stop - first) for number in range(4)]
        weights = [torch.load(out / f"weights_{stop}_{rank}.pt") for rank in range(size)]
        whole = read_checkpoint(out / f"checkpoints/step_{stop:08d}")
        assert (out / f"checkpoints/step_{stop:08d}/shards").is_dir() == (size > 1)
        for name, value in weights[0].items():
            assert torch.equal(value, whole.model[name]) and value.dtype == torch.float32
            assert all(torch.equal(value, other[name]) for other in weights[1:])
        first = stop
    seen = json.loads((tmp_path / "alone/seen_0_0.json").read_text())
    assert found == [one for step in seen for one in step], "the packs, in their order"
    # Muon rounds to bfloat16, where the order of a sum can decide the last digit.
    rounded = {"bf16-pure": 2e-2, "fp32": 3e-4 if optimizer == "muon" else 1e-5}[precision]
    close = {"rel": rounded, "abs": 1e-5}
    one, many = (read_metrics(folder / METRICS_FILE) for folder in (tmp_path / "alone", out))
    assert [row["step"] for row in many] == [1, 2, 3, 4, 5, 6]
    for row, other in zip(one, many):
        for key in ("loss", "objective", "gradient_norm"):
            assert other[key] == pytest.approx(row[key], **close), (key, row["step"])
    if precision == "fp32":
        wanted = read_checkpoint(tmp_path / "alone/checkpoints/step_00000006")
        for name, value in wanted.model.items():
            torch.testing.assert_close(whole.model[name], value, rtol=1e-3, atol=1e-4 if optimizer == "adamw" else 1e-3)


BARE = """
import gc
import json
import sys
from pathlib import Path

import torch

from tests.support import toy_shards
from unitok.decoder.initial_values import initial_values
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.decoder import train
from unitok_training.data.mixture import Mixture
from unitok_training.trainer.optimizer import OptimConfig
from unitok_training.trainer.config import TrainConfig


def held():
    gc.collect()  # bytes of all tensors that this process holds, each storage once
    found = {}
    for one in gc.get_objects():
        if isinstance(one, torch.Tensor) and not one.is_meta:
            storage = (one.to_local() if hasattr(one, "to_local") else one).untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


torch.set_num_threads(1)
out, stop = Path(sys.argv[1]), int(sys.argv[2])
vocabulary = toy_shards.vocabulary()
shape = DecoderConfig(vocab_size=vocabulary.size, width=256, layers=3, heads=4, kv_heads=2)
config = TrainConfig(steps=4, pack_size=128, packs_per_step=2, window=64, precision="fp32", log_every=1,
                     checkpoint_every=2, shard=True, optim=OptimConfig(learning_rate=3e-3, warmup_steps=2))
with world_from_environment("cpu") as world:
    draw = torch.Generator().manual_seed(5)
    if world.size == 1:
        decoder, initial = Decoder(shape, generator=draw), None
    else:
        with torch.device("meta"):
            decoder = Decoder(shape)
        initial = initial_values(shape, draw)
    before, seen = held(), []
    train(config, decoder, toy_shards.ToyShards(toy_shards.corpus()), vocabulary, out,
          mixture=Mixture(tasks={"asr": 2.0, "mt": 1.0}), world=world, initial=initial, stop_after=stop,
          on_row=lambda row: seen.append(held() - before))
    weights = sum(value.numel() * 4 for value in decoder.parameters())
    (out / f"held_{stop}_{world.rank}.json").write_text(json.dumps([max(seen), weights]))
"""


@pytest.mark.slow
def test_a_decoder_that_was_never_whole_learns_what_a_whole_one_does(tmp_path: Path) -> None:
    """From the meta device: the same weights in the checkpoint, and in each process no more than its share."""
    script = tmp_path / "script.py"
    script.write_text(BARE, encoding="utf-8")
    launch(script, tmp_path / "alone", 1, stop=4)
    for stop in (2, 4):  # continued from its own files
        launch(script, tmp_path / "bare", 2, stop=stop)
    whole, slices = (read_checkpoint(tmp_path / name / "checkpoints/step_00000004") for name in ("alone", "bare"))
    assert whole.model.keys() == slices.model.keys()
    for name, value in whole.model.items():
        torch.testing.assert_close(slices.model[name], value, rtol=1e-3, atol=1e-4)
    for stop in (2, 4):
        for rank in range(2):
            most, weights = json.loads((tmp_path / f"bare/held_{stop}_{rank}.json").read_text())
            assert most < 1.1 * 3 * weights / 2, f"{most} bytes of weights and moments, {3 * weights} in all"


@pytest.mark.parametrize("rows", [1, 5, 8, 9])
def test_rows_are_split_as_torch_splits_them(rows: int) -> None:
    chunks = [len(chunk) for chunk in torch.zeros(rows, 2).chunk(4)]
    assert rows_of(rows, 4) == chunks + [0] * (4 - len(chunks))
