"""The same seed gives the same data, weights and figures, whatever the number of processes and wherever it stopped.

What a kill does is in `test_runs_kill.py`; that packing is a pure function of its window, in `test_data_packing.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.support import toy_shards
from tests.support.toy_shards import ToyShards
from tests.test_trainer_distributed import launch
from tools.soak import Workshop, digest, metrics, write_corpus
from unitok.cli.main import main
from unitok_tokenizers.data.shards import Shards
from unitok_training.data.batch import Pack
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import DataState, PackStream

STEPS, PACKS_PER_STEP = 1000, 2
LEGS = ((1, 0, 300), (2, 300, 700), (1, 700, STEPS))
"""(number of processes, first step, step after the last)."""
RUN_LEGS = ((1, 0, 25), (2, 25, 65), (1, 65, 90))
"""The same for the run that trains as well."""
MIXTURE = Mixture(tasks={"asr": 2.0, "tts.codes": 1.0, "mt": 1.0, "s2st.chain": 1.0, "slm": 1.0})

SCRIPT = """
import json
import sys
from pathlib import Path

import torch

from tests.support import toy_shards
from tests.test_trainer_exactness import PACKS_PER_STEP, STEPS, MIXTURE, pack_hash
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.decoder import token_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.config import TrainConfig
from unitok_training.data.examples import ExampleSource


class Recorder(Trainer):
    def _update(self, packs):
        seen.append([pack_hash(batch.pack) for batch in packs])
        super()._update(packs)


torch.set_num_threads(1)
out, stop = Path(sys.argv[1]), int(sys.argv[2])
config = TrainConfig(steps=STEPS, pack_size=128, packs_per_step=PACKS_PER_STEP, window=64, precision="fp32",
                     log_every=100, checkpoint_every=STEPS)
vocabulary = toy_shards.vocabulary()
with world_from_environment("cpu") as world:
    decoder = Decoder(DecoderConfig(vocab_size=vocabulary.size, width=16, layers=1, heads=1, kv_heads=1))
    source = ExampleSource(toy_shards.ToyShards(toy_shards.corpus()), vocabulary, MIXTURE, seed=config.seed)
    seen = []
    trainer = Recorder(config, token_setup(config, decoder, source, world), out, world=world)
    trainer.resume()
    first = trainer.step
    trainer.run(stop_after=stop)
    (out / f"seen_{first}_{world.rank}.json").write_text(json.dumps(seen))
"""


def pack_hash(pack: Pack) -> str:
    """SHA-256 over ids, document boundaries, positions and labels with their weights."""
    found = hashlib.sha256()
    for tensor in (pack.ids, pack.cu_seqlens, pack.positions, pack.labels, pack.loss_weight):
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def stream(seed: int = 0) -> PackStream:
    """The packs of a training run on the toy corpus."""
    vocabulary, shards = toy_shards.vocabulary(), ToyShards(toy_shards.corpus())
    plans = ExampleSource(shards, vocabulary, MIXTURE, seed=seed)  # type: ignore[arg-type]
    return PackStream(plans.documents, capacity=128, window=64, seed=seed, pad=vocabulary.pad)


def read(state: DataState, steps: int, world_size: int, seed: int = 0) -> tuple[list[str], DataState]:
    """Hashes of the next packs in their global order, read by processes that share nothing, and the state after."""
    ranks = [
        list(
            itertools.islice(
                stream(seed).steps(state, packs_per_step=PACKS_PER_STEP, rank=rank, world_size=world_size), steps
            )
        )
        for rank in range(world_size)
    ]
    found = []
    for step in range(steps):
        for number in range(PACKS_PER_STEP):
            found.append(pack_hash(ranks[number % world_size][step][0][number // world_size]))
    after = {str(rank[-1][1]) for rank in ranks}
    assert len(after) == 1, "the processes disagree about where the data stand"
    return found, ranks[0][-1][1]


@pytest.fixture(scope="module")
def undisturbed() -> list[str]:
    return read(DataState(), STEPS, 1)[0]


@pytest.mark.slow
def test_the_stream_is_the_same_when_the_number_of_processes_changes_in_mid_run(undisturbed: list[str]) -> None:
    """1 → 2 → 1 over 1,000 steps; between legs only the two integers of the state survive, as JSON."""
    found: list[str] = []
    state = DataState()
    for world_size, first, last in LEGS:
        hashes, after = read(state, last - first, world_size)
        found += hashes
        state = DataState(**json.loads(json.dumps(asdict(after))))
    assert found == undisturbed and state.window > 10
    assert len(set(found)) > 0.95 * len(found), "a stream that repeats itself would hide a wrong place"


@pytest.mark.slow
def test_processes_of_a_real_run_are_given_that_stream(tmp_path: Path, undisturbed: list[str]) -> None:
    """The same through torchrun, checkpoints and the prefetching loop: what each update was computed on."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    found: list[str] = []
    for world_size, first, last in RUN_LEGS:
        launch(script, tmp_path / "run", world_size, stop=last)
        ranks = [json.loads((tmp_path / f"run/seen_{first}_{rank}.json").read_text()) for rank in range(world_size)]
        for step in range(last - first):
            found += [ranks[number % world_size][step][number // world_size] for number in range(PACKS_PER_STEP)]
    assert found == undisturbed[: len(found)] and len(found) == PACKS_PER_STEP * RUN_LEGS[-1][2]


def test_another_seed_is_another_stream() -> None:
    first, again, other = (read(DataState(), 20, 1, seed)[0] for seed in (0, 0, 1))
    assert first == again and not set(first) & set(other)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("exactness") / "workshop")


def make(arguments: tuple[str, ...], out: Path) -> Path:
    assert main([str(out) if part == "OUT" else part for part in arguments]) == 0
    return out


@pytest.mark.slow
def test_the_same_seed_twice_gives_the_same_tokenizers(workshop: Workshop, tmp_path: Path) -> None:
    arguments = workshop.fit_tokenizers().arguments
    one, two = (digest(make(arguments, tmp_path / name)) for name in ("one", "two"))
    other = digest(make(workshop.fit_tokenizers(seed=1).arguments, tmp_path / "other"))
    assert one == two and one.keys() == other.keys() and one != other


@pytest.mark.slow
def test_the_same_recordings_give_the_same_shards_wherever_they_lie(workshop: Workshop, tmp_path: Path) -> None:
    one, two = (digest(make(workshop.prepare().arguments, tmp_path / name)) for name in ("one", "two"))
    assert one == two and len(one) > 2
    moved = write_corpus(tmp_path / "moved")
    make(("prepare", str(moved), "OUT", "--tokenizers", str(workshop.root / "tokenizers")), tmp_path / "three")
    tables = [Shards.open(tmp_path / name).table.drop_columns(["audio"]) for name in ("one", "three")]
    assert tables[0].equals(tables[1]) and len(tables[0].column_names) > 10


@pytest.mark.slow
def test_the_same_seed_twice_gives_the_same_weights_and_figures(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (make(workshop.train().arguments, tmp_path / name) for name in ("one", "two"))
    other = make(workshop.train(seed=1).arguments, tmp_path / "other")
    assert digest(one) == digest(two) and "model/core/model.safetensors" in digest(one)
    assert digest(one)["model/core/model.safetensors"] != digest(other)["model/core/model.safetensors"]
    assert metrics(one) == metrics(two) != metrics(other) and len(metrics(one)) == 6

    def figures(run: Path) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["evaluate", str(run / "model"), str(workshop.root / "shards")]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert figures(one) == figures(two)
