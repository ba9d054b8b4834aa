"""A decoder that is split over processes: what each reads of a start and of a checkpoint, and what the run writes.

Run alone with `pytest tests/test_train_split.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.command import Workshop, works
from tests.support.launching import ranks
from unitok.decoder.lora import lora_tensors, plain_name
from unitok.decoder.model import Decoder
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.first_weights import first_decoder, open_start
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics

SCRIPT = """
import json
import os
import sys
from pathlib import Path

import unitok_training.trainer.loop as loop
from unitok.cli.main import main
from unitok_tokenizers.stored_tensors import StoredTensor

told, read = Path(sys.argv[1]), [0]
rows, train = StoredTensor.__getitem__, loop.Trainer.run


def noted(self, asked):
    found = rows(self, asked)
    read[0] += found.numel() * found.element_size()
    return found


def run(self, **given):
    Path(f"{told}.{os.environ['RANK']}").write_text(json.dumps(read[0]))  # before the first step
    return train(self, **given)


StoredTensor.__getitem__, loop.Trainer.run = noted, run
sys.exit(main(json.loads(Path(f"{told}.json").read_text())))
"""


CONSTANT = ("--set", "train.optim.schedule=constant")
"""A rate that does not depend on how long a run is to be, which is set anew when it continues."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


def given(shop: Workshop, out: Path, steps: int, *more: str) -> list[str]:
    start = ("--start", shop.model, "--set", f"train.steps={steps}", "--set", "train.packs_per_step=4")
    fixed = ("--set", "train.precision=fp32", "--set", "train.compile=false", "--set", "train.log_every=1")
    return [str(one) for one in shop.train(out, *start, *fixed, *more)]


def split(shop: Workshop, out: Path, processes: int, steps: int, *more: str) -> list[int]:
    """Train on so many processes; bytes of weights and moments that each had read before its first step."""
    script = out.parent / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    told = out.parent / f"read_{processes}_{steps}"
    arguments = given(shop, out, steps, "--set", "train.shard=true", *more)
    Path(f"{told}.json").write_text(json.dumps(arguments))
    done = ranks([str(script), str(told)], processes)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(Path(f"{told}.{rank}").read_text()) for rank in range(processes)]


@pytest.mark.slow
def test_each_process_reads_its_share_of_a_start_and_of_a_checkpoint_of_other_processes(
    shop: Workshop, tmp_path: Path
) -> None:
    weights = sum(value.numel() * 4 for value in Model.load(shop.model).decoder.parameters())
    # The start's weights; when it continues also those of the checkpoint, with two moments of each.
    for processes, steps, copies in ((2, 2, 1), (4, 4, 4), (2, 6, 4)):
        read = split(shop, tmp_path / "run", processes, steps, *CONSTANT)
        assert all(one <= 1.05 * copies * weights / processes for one in read), (read, weights)
        assert sum(read) >= 0.99 * copies * weights, "all of it, by all together"
        written, kept = (
            Model.load(tmp_path / "run/model").decoder,
            read_checkpoint(tmp_path / f"run/checkpoints/step_{steps:08d}"),
        )
        for name, value in written.named_parameters():
            assert torch.equal(kept.model[name], value), name
    works(*given(shop, tmp_path / "alone", 6, *CONSTANT))
    one, many = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("alone", "run"))
    for alone, shared in zip(one, many, strict=True):
        assert shared["objective"] == pytest.approx(alone["objective"], rel=1e-4)


FROZEN = ("tuning.embeddings.full=false",)
LOW = ("tuning.decoder.full=false", "tuning.decoder.lora_rank=2", "tuning.decoder.learning_rate=1e-3")


@pytest.mark.slow
def test_low_rank_updates_of_split_weights_give_what_one_process_gives(shop: Workshop, tmp_path: Path) -> None:
    tuned = [part for change in LOW for part in ("--set", change)]
    weights = sum(value.numel() * 4 for value in Model.load(shop.model).decoder.parameters())
    works(*given(shop, tmp_path / "alone", 3, *CONSTANT, *tuned))
    wanted, found = read_metrics(tmp_path / "alone" / METRICS_FILE), list[Decoder]()
    for processes in (1, 2, 4):
        run = tmp_path / f"run{processes}"
        read = split(shop, run, processes, 3, *CONSTANT, *tuned)
        if processes > 1:  # the start is read by slices, and its factors are drawn: nothing of it is whole anywhere
            assert all(one <= 1.05 * weights / processes for one in read), (read, weights)
        for alone, shared in zip(wanted, read_metrics(run / METRICS_FILE), strict=True):
            for key in ("loss", "objective", "gradient_norm"):
                assert shared[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-6), (key, alone["step"], processes)
        found.append(Model.load(run / "model").decoder)
    whole = Model.load(tmp_path / "alone/model").decoder
    before = dict(Model.load(shop.model).decoder.named_parameters())
    for decoder in found:
        for (name, value), own in zip(whole.named_parameters(), decoder.parameters(), strict=True):
            torch.testing.assert_close(own, value, rtol=1e-5, atol=1e-5)
            if plain_name(name) in before:
                assert torch.equal(own, before[plain_name(name)]), "the host's own weights stay"
    assert all(float(value.detach().abs().max()) > 1e-4 for value in lora_tensors(found[1]).values()), "they moved"
    assert (tmp_path / "run2/model/modules/lora.json").read_text() == (
        tmp_path / "alone/model/modules/lora.json"
    ).read_text()


@pytest.mark.slow
def test_a_start_with_low_rank_updates_is_read_by_slices_and_goes_on(shop: Workshop, tmp_path: Path) -> None:
    tuned = [part for change in LOW for part in ("--set", change)]
    works(*given(shop, tmp_path / "first", 2, *CONSTANT, *tuned))
    start = ("--start", tmp_path / "first/model")
    weights = sum(value.numel() * 4 for value in Model.load(start[1]).decoder.parameters())
    works(*given(shop, tmp_path / "alone", 2, *CONSTANT, *tuned), *start)
    read = split(shop, tmp_path / "run", 2, 2, *CONSTANT, *tuned, *map(str, start))
    assert all(one <= 1.05 * weights / 2 for one in read) and sum(read) >= 0.99 * weights, (read, weights)
    first, wanted, found = (Model.load(tmp_path / name / "model").decoder for name in ("first", "alone", "run"))
    for (name, value), own in zip(wanted.named_parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(own, value, rtol=1e-5, atol=1e-5, msg=name)
    assert not torch.equal(lora_tensors(first)["blocks.0.qkv.a.q"], lora_tensors(found)["blocks.0.qkv.a.q"])


@pytest.mark.slow
def test_a_checkpoint_with_low_rank_updates_is_no_start_of_split_weights_either(shop: Workshop, tmp_path: Path) -> None:
    tuned = [part for change in LOW for part in ("--set", change)]
    works(*given(shop, tmp_path / "first", 2, *tuned))
    for size in (1, 2):
        start = open_start(tmp_path / "first/checkpoints", split=size > 1)
        config = Model.load(tmp_path / "first/model").decoder.config
        with pytest.raises(InputError, match="checkpoint does not fit the model"):
            first_decoder(config, start, old_size=config.vocab_size, seed=0, split=size > 1)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [(), FROZEN, LOW], ids=["all", "frozen tables", "low-rank"])
def test_what_does_not_move_is_in_the_checkpoint_of_split_weights_too(
    shop: Workshop, tmp_path: Path, tuning: tuple[str, ...]
) -> None:
    more = [*CONSTANT, *(part for change in tuning for part in ("--set", change))]
    for steps in (2, 3):  # continued from its own files
        split(shop, tmp_path / "run", 2, steps, *more)
    works(*given(shop, tmp_path / "alone", 3, *more))
    one, many = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("alone", "run"))
    assert [row["step"] for row in many] == [1, 2, 3]
    for alone, shared in zip(one, many, strict=True):
        for key in ("loss", "objective", "gradient_norm"):
            assert shared[key] == pytest.approx(alone[key], rel=1e-4, abs=1e-5), (key, alone["step"])
    before, found, wanted = (
        Model.load(path).decoder for path in (shop.model, tmp_path / "run/model", tmp_path / "alone/model")
    )
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, wanted.state_dict()[name], rtol=1e-3, atol=1e-4)
    if tuning == FROZEN:
        assert torch.equal(found.embedding, before.embedding)
    assert bool(lora_tensors(found)) == (tuning == LOW)
    kept = read_checkpoint(tmp_path / "run/checkpoints/step_00000003").model
    assert set(kept) == set(read_checkpoint(tmp_path / "alone/checkpoints/step_00000003").model)
