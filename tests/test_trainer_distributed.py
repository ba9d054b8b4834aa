"""Two processes learn what one learns."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.support.launching import ranks, torchrun
from unitok_training.checkpoint.state import latest_checkpoint, list_checkpoints, read_checkpoint
from unitok_training.trainer.distributed import WORKER, World, buckets, wait_for_gloo_threads, world_from_environment
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
import sys
from pathlib import Path

import torch

from tests.support import toy_shards
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.decoder import train
from unitok_training.trainer.config import TrainConfig
from unitok_training.data.mixture import Mixture
from unitok_training.trainer.optimizer import OptimConfig

torch.set_num_threads(1)
out, stop = Path(sys.argv[1]), int(sys.argv[2])
config = TrainConfig(steps=6, pack_size=256, packs_per_step=4, window=64, precision="fp32", log_every=1,
                     optim=OptimConfig(learning_rate=3e-3, warmup_steps=2))
mixture = Mixture(tasks={"asr": 2.0, "tts.codes": 1.0, "mt": 1.0})
vocabulary = toy_shards.vocabulary()
with world_from_environment("cpu") as world:
    torch.manual_seed(world.rank)  # rank 0's weights are broadcast
    decoder = Decoder(DecoderConfig(vocab_size=vocabulary.size, width=32, layers=2, heads=2, kv_heads=1))
    shards = toy_shards.ToyShards(toy_shards.corpus())
    train(config, decoder, shards, vocabulary, out, mixture=mixture, world=world, stop_after=stop)
"""


def launch(script: Path, out: Path, processes: int, stop: int = 6) -> None:
    done = ranks([str(script), str(out), str(stop)], processes)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_equal_one_on_the_same_global_batch(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launch(script, tmp_path / "one", 1)
    launch(script, tmp_path / "two", 2)
    one, two = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("one", "two"))
    assert len(one) == len(two) == 6
    for alone, shared in zip(one, two):
        for key in ("loss", "objective", "gradient_norm"):
            assert shared[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-5), json.dumps([alone, shared])
        assert shared["loss_by_task"] == pytest.approx(alone["loss_by_task"], rel=1e-5)
        assert shared["loss_by_stream"] == pytest.approx(alone["loss_by_stream"], rel=1e-5)
        for key in ("tokens", "supervised_tokens", "padding_share"):
            assert shared[key] == alone[key]
    first, second = (read_checkpoint(tmp_path / name / "checkpoints/step_00000006") for name in ("one", "two"))
    assert first.state["data"] == second.state["data"]
    for name, value in first.model.items():
        torch.testing.assert_close(second.model[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_run_continues_with_another_number_of_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launch(script, tmp_path / "one", 1)
    launch(script, tmp_path / "mixed", 2, stop=3)
    launch(script, tmp_path / "mixed", 1)
    one, mixed = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("one", "mixed"))
    assert [row["step"] for row in mixed] == [1, 2, 3, 4, 5, 6]
    assert mixed[-1]["objective"] == pytest.approx(one[-1]["objective"], rel=1e-4)


DYING = """
import os
import signal
import sys
from pathlib import Path

import torch

from tests.support import toy_shards
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.decoder import token_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.data.mixture import Mixture
from unitok_training.data.examples import ExampleSource
from unitok_training.trainer.config import TrainConfig


class Fragile(Trainer):
    def _update(self, packs):
        if self.step == 3:
            self.saver.wait()
        if self.step == 3 and self.parts[0].sharded and self.world.rank == 1:
            os.kill(self.saver.process.pid, signal.SIGSTOP)  # the next checkpoint will lack this one's files
        if self.step == (4 if self.parts[0].sharded else 3):
            self.world.barrier()  # before the second one ends, which the first one's gradients wait for
            if self.world.rank == 1 and sys.argv[2] != "raise":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.world.rank == 1:
                raise RuntimeError("the second process has had enough")
        super()._update(packs)


torch.set_num_threads(1)
config = TrainConfig(steps=60, pack_size=256, packs_per_step=2, window=64, precision="fp32", checkpoint_every=2,
                     shard=sys.argv[2] == "sharded")
vocabulary = toy_shards.vocabulary()
with world_from_environment("cpu") as world:
    decoder = Decoder(DecoderConfig(vocab_size=vocabulary.size, width=32, layers=1, heads=2, kv_heads=1))
    source = ExampleSource(toy_shards.ToyShards(toy_shards.corpus()), vocabulary, Mixture(tasks={"asr": 1.0}), seed=0)
    Fragile(config, token_setup(config, decoder, source, world), Path(sys.argv[1]), world=world).run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cause", "said"),
    [("kill", "SIGKILL"), ("raise", "the second process has had enough"), ("sharded", None)],
)
def test_a_process_that_dies_ends_the_others_and_leaves_the_last_checkpoint(
    cause: str, said: str | None, tmp_path: Path
) -> None:
    """Sharded, in the middle of a save to which one process has yet to bring its files: without torchrun, which waits
    half a minute for each that does not end by itself."""
    script = tmp_path / "script.py"
    script.write_text(DYING, encoding="utf-8")
    begin = time.monotonic()
    asked = [str(script), str(tmp_path / "run"), cause]
    done = torchrun(asked, 2) if cause == "kill" else ranks(asked, 2)
    assert done.returncode != 0 and (said is None or said in done.stderr), done.stderr[-2000:]
    assert time.monotonic() - begin < 120, "a minute, and the start of two processes on a busy machine"
    found = latest_checkpoint(tmp_path / "run/checkpoints")
    assert found is not None and found.state["step"] == 2
    assert [path.name for path in list_checkpoints(tmp_path / "run/checkpoints")] == ["step_00000002"]


def test_a_missing_gpu_is_told_and_done_without() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="no GPU that torch can use: the processor is used instead"):
        with world_from_environment("cuda") as world:
            assert world.device.type == "cpu"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads cannot be looked at here")
def test_a_world_ends_when_the_threads_of_its_connections_sleep() -> None:
    ended: list[float] = []

    def work() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(WORKER)
        begun.set()
        hashlib.pbkdf2_hmac("sha256", b"busy", b"without the interpreter", 1_000_000)
        ended.append(time.monotonic())

    begun, thread = threading.Event(), threading.Thread(target=work)
    thread.start()
    begun.wait()
    assert not wait_for_gloo_threads(seconds=0.05) and not ended
    assert wait_for_gloo_threads() and ended
    thread.join()


def test_buckets_keep_order_and_dtypes_apart() -> None:
    tensors = [torch.zeros(5), torch.zeros(3, dtype=torch.float64), torch.zeros(2, 2), torch.zeros(50), torch.zeros(1)]
    groups = [[tensor.numel() for tensor in group] for group in buckets(tensors, limit=10)]
    assert groups == [[5, 4], [50], [1], [3]]


def test_a_world_of_one_leaves_tensors_alone() -> None:
    value = torch.ones(2)
    World().sum_([value])
    World().broadcast_([value])
    World().barrier()
    assert value.tolist() == [1, 1] and World().is_main
