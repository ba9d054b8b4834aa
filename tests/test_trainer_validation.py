"""Validation while a run trains: held-out losses, the best checkpoint, ending early, and what it must not change.

Run alone with `pytest tests/test_trainer_validation.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import toy_shards
from tests.support.toy_shards import ToyShards
from tests.test_trainer_loop import CONFIG, MIXTURE, decoder, equal
from unitok.decoder.model import Decoder
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.files import best_checkpoint, list_checkpoints
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import DataState
from unitok_training.shard_set import ShardFolder, ShardSet
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.decoder import held_out_source, token_setup, train
from unitok_training.trainer.distributed import World
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.metrics import VALIDATION_FILE, read_metrics
from unitok_training.trainer.run_state import Progress

VALIDATED = replace(CONFIG, eval_every=2, eval_batches=6)


def corpus(*, held_out: int = 4) -> ToyShards:
    """The toy corpus, the utterances of its first sentences held out."""
    rows = toy_shards.corpus()
    groups = sorted({row["group"] for row in rows})[:held_out]
    return ToyShards([{**row, "split": "dev"} if row["group"] in groups else row for row in rows])


def run(out: Path, config: TrainConfig, *, mixture: Mixture = MIXTURE, **options: Any) -> Decoder:
    model, shards = decoder(), options.pop("shards", corpus())
    train(config, model, shards, toy_shards.vocabulary(), out, mixture=mixture, **options)
    return model


def trainer(out: Path, config: TrainConfig) -> Trainer:
    shards: Any = corpus()
    source = ExampleSource(shards, toy_shards.vocabulary(), MIXTURE, seed=config.seed)
    held_out = held_out_source(source, shards, None)
    return Trainer(config, token_setup(config, decoder(), source, World(), held_out=held_out), out)


def test_validation_is_the_mean_loss_of_held_out_tokens_and_changes_nothing(tmp_path: Path) -> None:
    with_it, without = run(tmp_path / "with", VALIDATED), run(tmp_path / "without", CONFIG)
    assert equal(with_it, without), "a validation must leave weights and random numbers alone"
    rows = read_metrics(tmp_path / "with" / VALIDATION_FILE)
    assert [row["step"] for row in rows] == [2, 4, 6, 8] and not (tmp_path / "without" / VALIDATION_FILE).exists()
    assert set(rows[0]["loss_by_task"]) == set(MIXTURE.keys) and "units" in rows[0]["loss_by_stream"]
    # By hand: the same packs, one token at a time.
    made = trainer(tmp_path / "hand", VALIDATED)
    assert made.setup.held_out is not None
    total, count = 0.0, 0
    with_it.eval()
    for batch in made.setup.held_out.batches:
        pack = batch.pack
        with torch.no_grad():
            hidden = with_it(pack.ids, pack.positions, pack.sequences, pack.max_seqlen)
            logs = with_it.logits(hidden).float().log_softmax(-1)
        for place in (pack.labels >= 0).nonzero()[:, 0].tolist():
            if pack.loss_weight[place] > 0:
                total, count = total - float(logs[place, pack.labels[place]]), count + 1
    assert rows[-1]["loss"] == pytest.approx(total / count, rel=1e-4) and count > 20


def test_no_example_of_training_is_validated_on_and_none_of_validation_is_trained_on(tmp_path: Path) -> None:
    made = trainer(tmp_path, VALIDATED)
    source = made.source.source  # type: ignore[attr-defined]
    shards: Any = corpus()
    held_out = held_out_source(source, shards, None)
    learned = {source.documents(torch.arange(200).numpy()).name(place).rpartition(" ")[2] for place in range(200)}
    asked = {held_out.documents(torch.arange(200).numpy()).name(place).rpartition(" ")[2] for place in range(200)}
    assert learned and asked and not learned & asked


def test_several_folders_are_validated_on_by_those_that_have_held_out_rows() -> None:
    """Folders stay with the tasks that they are for; one without held-out rows for its task keeps nobody out."""
    named = [{**row, "id": f"b:{row['id']}"} for row in toy_shards.corpus(5)]
    said = ToyShards([*named, *({**row, "split": "dev"} for row in named)])
    shards = ShardSet.of(
        [
            ShardFolder(shards=corpus(), tasks=("asr", "mt")),
            ShardFolder(shards=ToyShards(named), tasks=("asr", "lm")),
            ShardFolder(shards=said, tasks=("tts.units",)),
        ]
    )
    mixture = Mixture(tasks=dict.fromkeys(("asr", "lm", "mt", "tts.units"), 1.0))
    source = ExampleSource(shards, toy_shards.vocabulary(), mixture, seed=0)
    assert source.usable() == {"asr": 36, "lm": 10, "mt": 8, "tts.units": 20}
    assert held_out_source(source, shards, None).usable() == {"asr": 16, "mt": 8, "tts.units": 20}


def test_the_best_checkpoint_is_kept_and_may_be_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 5.0, 4.0])
    monkeypatch.setattr(Trainer, "validate", lambda self: {"loss": next(losses), "loss_by_task": {}})
    config = replace(VALIDATED, keep_checkpoints=1, checkpoint_every=1, take_best=True)
    model = run(tmp_path, config)
    folder = tmp_path / "checkpoints"
    assert [path.name for path in list_checkpoints(folder)] == ["step_00000004", "step_00000008"]
    best = best_checkpoint(folder)
    assert best is not None and best.name == "step_00000004"
    kept = read_checkpoint(best).model
    assert all(torch.equal(value, kept[name]) for name, value in model.named_parameters())
    last = read_checkpoint(folder / "step_00000008").model
    assert not all(torch.equal(value, last[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newest_checkpoint_is_set_aside(keep: int, tmp_path: Path) -> None:
    config = replace(VALIDATED, keep_checkpoints=keep, checkpoint_every=2, take_best=True)
    whole = run(tmp_path / "whole", config)
    place = tmp_path / "run" / "checkpoints"
    run(tmp_path / "run", config, stop_after=4)
    (place / "step_00000009").mkdir()
    (place / "step_00000009" / "state.json").write_text("{", encoding="utf-8")
    assert best_checkpoint(place) is None
    again = run(tmp_path / "run", config)
    assert equal(whole, again) and (place / "damaged_step_00000009" / "state.json").is_file()
    assert {path.name for path in list_checkpoints(place)} == {
        path.name for path in list_checkpoints(tmp_path / "whole" / "checkpoints")
    }


def test_a_validation_that_is_no_number_is_written_and_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self: {**plain(self), "loss": float("nan")})
    run(tmp_path, VALIDATED)
    rows = read_metrics(tmp_path / VALIDATION_FILE)
    assert [row["loss"] for row in rows] == [None] * 4 and list_checkpoints(tmp_path / "checkpoints")


@pytest.mark.parametrize("name", ["patience", "eval_every", "eval_examples", "recompute_blocks", "prefetch"])
def test_counts_below_nothing_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"train\.{name} is -1"):
        replace(VALIDATED, **{name: -1})


@pytest.mark.parametrize("name", ["clip", "warmup_steps", "weight_decay", "matrix_learning_rate"])
def test_an_optimizer_below_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"optim\.{name} is -1"):
        replace(VALIDATED.optim, **{name: -1})


def test_a_run_ends_early_once_and_stays_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 3.5, 3.0, 1.0])  # no better twice in a row: the fourth is never asked for
    monkeypatch.setattr(Trainer, "validate", lambda self: {"loss": next(losses), "loss_by_task": {}})
    config = replace(VALIDATED, steps=20, patience=2, checkpoint_every=20)
    run(tmp_path, config)
    assert [row["step"] for row in read_metrics(tmp_path / VALIDATION_FILE)] == [2, 4, 6]
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step_00000002", "step_00000006"]
    run(tmp_path, config)  # continued: it has ended
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step_00000002", "step_00000006"]
    run(tmp_path, replace(config, patience=3, steps=8))  # more patience goes on from there
    assert read_metrics(tmp_path / VALIDATION_FILE)[-1] == {
        "step": 8, "loss": 1.0, "loss_by_task": {}, "best_step": 8,
    }  # fmt: skip


def test_a_run_that_stopped_remembers_its_best(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, VALIDATED)
    for stop in (3, 5, 8):
        run(parts, VALIDATED, stop_after=stop)
    found = [read_metrics(folder / VALIDATION_FILE) for folder in (whole, parts)]
    assert found[0] == found[1]


def test_tasks_without_held_out_rows_are_not_validated(tmp_path: Path) -> None:
    rows = [{**row, "split": "dev"} if row["group"] == "0" else row for row in toy_shards.corpus()]
    groups = sorted({row["group"] for row in rows})
    rows = [{**row, "split": "dev" if row["group"] == groups[0] and row["lang"] == "en" else "train"} for row in rows]
    run(tmp_path, VALIDATED, shards=ToyShards(rows))
    assert "mt" not in read_metrics(tmp_path / VALIDATION_FILE)[0]["loss_by_task"]
    with pytest.raises(InputError, match="no row of split 'dev'"):
        run(tmp_path / "none", VALIDATED, shards=ToyShards(toy_shards.corpus()))
    for name in ("patience", "take_best"):
        with pytest.raises(InputError, match="eval_every"):
            replace(CONFIG, **{name: 1})


def test_a_first_validation_that_is_no_number_is_worse_than_any() -> None:
    first = Progress(step=1, data=DataState()).validated(float("nan"))
    second = replace(first, step=2).validated(1.0)
    assert (second.best_step, second.best_loss, second.worse) == (2, 1.0, 0)
    assert replace(second, step=3).validated(float("nan")).worse == 1
