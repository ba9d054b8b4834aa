"""What moves of a decoder: low-rank updates, frozen parts, tables and their new rows, each at its own rate and start.

Run alone with `pytest tests/test_trainer_tuning.py`.
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
from unitok.decoder.lora import updates
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_training.recipes.decoder import load_recipe
from unitok_training.trainer.config import FROZEN, DecoderTuning, PartTuning, TableTuning, TrainConfig
from unitok_training.trainer.decoder import train

FIRST_NEW = 30
STILL = TableTuning(full=False)
UPDATES = PartTuning(full=False, lora_rank=2, learning_rate=1e-2)


def run(out: Path, tuning: DecoderTuning, config: TrainConfig = CONFIG, model: Decoder | None = None) -> Decoder:
    model, shards = decoder() if model is None else model, ToyShards(toy_shards.corpus())
    train(config, model, shards, toy_shards.vocabulary(), out, mixture=MIXTURE, tuning=tuning, first_new=FIRST_NEW)  # type: ignore[arg-type]
    return model


def changed(model: Decoder, before: Decoder) -> set[str]:
    """Names of weights that are other than before; of the tables, their old and new rows."""
    found, own = set(), dict(before.named_parameters())
    for name, value in model.named_parameters():
        plain = name.replace("parametrizations.", "").replace(".original", "")
        if plain not in own:
            found.add("updates")
        elif plain in ("embedding", "head"):
            for rows, part in (("old", slice(None, FIRST_NEW)), ("new", slice(FIRST_NEW, None))):
                if not torch.equal(value[part], own[plain][part]):
                    found.add(f"{plain}.{rows}")
        elif not torch.equal(value, own[plain]):
            found.add("blocks" if plain.startswith("blocks") else plain)
    return found


@pytest.mark.parametrize(
    ("tuning", "moved"),
    [
        (DecoderTuning(), {"blocks", "norm", "embedding.old", "embedding.new"}),
        (DecoderTuning(decoder=UPDATES), {"updates"}),
        (DecoderTuning(decoder=UPDATES, new_embeddings=TableTuning()), {"updates", "embedding.new"}),
        (DecoderTuning(decoder=FROZEN, embeddings=TableTuning()), {"embedding.old", "embedding.new"}),
        (DecoderTuning(embeddings=STILL), {"blocks", "norm"}),
        (DecoderTuning(embeddings=STILL, new_embeddings=TableTuning()), {"blocks", "norm", "embedding.new"}),
        (DecoderTuning(decoder=FROZEN, new_embeddings=TableTuning()), {"embedding.new"}),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_what_is_to_move_moves(tuning: DecoderTuning, moved: set[str], optimizer: str, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=3, log_every=3, optim=replace(CONFIG.optim, name=optimizer))
    assert changed(run(tmp_path, tuning, config), decoder()) == moved


def test_heads_of_their_own_are_tuned_as_the_embedding(tmp_path: Path) -> None:
    def made() -> Decoder:
        torch.manual_seed(0)
        size = toy_shards.vocabulary().size
        return Decoder(DecoderConfig(vocab_size=size, width=32, layers=1, heads=2, kv_heads=1, tied=False))

    tuning = DecoderTuning(decoder=FROZEN, new_embeddings=TableTuning())
    assert changed(run(tmp_path, tuning, model=made()), made()) == {"embedding.new", "head.new"}


def test_a_tuning_that_says_nothing_new_changes_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", DecoderTuning())
    apart = DecoderTuning(embeddings=TableTuning(learning_rate=CONFIG.optim.learning_rate))
    for one, other in zip(whole.parameters(), run(tmp_path / "apart", apart).parameters()):
        torch.testing.assert_close(one, other)  # but for the order in which the norm of the gradient is added up
    rows = replace(apart, new_embeddings=TableTuning(learning_rate=2 * CONFIG.optim.learning_rate, start_step=100))
    run(tmp_path / "rows", rows)


def test_new_rows_come_first_and_the_rest_joins_in(tmp_path: Path) -> None:
    late, late_rows = PartTuning(learning_rate=None, start_step=4), TableTuning(start_step=4)
    tuning = DecoderTuning(decoder=late, embeddings=late_rows, new_embeddings=TableTuning(learning_rate=1e-2))
    first = run(tmp_path / "first", tuning, replace(CONFIG, steps=4))
    assert changed(first, decoder()) == {"embedding.new"}
    assert changed(run(tmp_path / "all", tuning), decoder()) == {"blocks", "norm", "embedding.old", "embedding.new"}


@pytest.mark.parametrize(
    "tuning",
    [
        DecoderTuning(decoder=UPDATES, new_embeddings=TableTuning(learning_rate=1e-2)),
        DecoderTuning(decoder=PartTuning(start_step=3), embeddings=STILL, new_embeddings=TableTuning()),
    ],
)
def test_tuned_runs_continue_bit_for_bit(tuning: DecoderTuning, tmp_path: Path) -> None:
    whole, shards = run(tmp_path / "whole", tuning), ToyShards(toy_shards.corpus())
    options: dict[str, Any] = {"mixture": MIXTURE, "tuning": tuning, "first_new": FIRST_NEW}
    for stop in (2, 5, 8):
        parts = decoder()
        train(CONFIG, parts, shards, toy_shards.vocabulary(), tmp_path / "parts", stop_after=stop, **options)  # type: ignore[arg-type]
    assert equal(whole, parts)
    assert bool(updates(parts)) == bool(tuning.decoder.lora_rank)
    with pytest.raises(InputError, match="tuning"):
        run(tmp_path / "parts", DecoderTuning())


def test_what_may_change_is_said_and_the_rest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards: Any = ToyShards(toy_shards.corpus())

    def go_on(config: TrainConfig, *allowed: str) -> None:
        vocabulary = toy_shards.vocabulary()
        train(config, decoder(), shards, vocabulary, tmp_path, mixture=MIXTURE, allow_change=allowed)

    go_on(replace(CONFIG, steps=4))
    slower = replace(CONFIG, optim=replace(CONFIG.optim, learning_rate=1e-4))
    with pytest.raises(InputError, match=r"--allow-change train\.optim\.learning_rate"):
        go_on(slower)
    with pytest.raises(InputError, match="learning_rate"):
        go_on(slower, "train.optim.clip", "mixture")
    go_on(slower, "train.optim")
    assert "train.optim.learning_rate was 0.003 and is 0.0001 from here on" in capsys.readouterr().out
    go_on(replace(slower, steps=10, log_every=5, keep_checkpoints=1, eval_every=0))


def test_recipes_name_what_moves(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["tuning.decoder.full=false", "tuning.decoder.lora_rank=4"])
    assert recipe.tuning == DecoderTuning(decoder=PartTuning(full=False, lora_rank=4, learning_rate=None))
    rows = load_recipe("tiny", ["tuning.new_embeddings.learning_rate=1e-3", "tuning.embeddings.full=false"])
    assert rows.tuning.new_embeddings == TableTuning(learning_rate=1e-3) and rows.tuning.embeddings == STILL
    assert load_recipe("tiny", ["tuning.embeddings=null"]).tuning.embeddings is None
    for wrong, said in (
        ("tuning.new_embeddings.lora_rank=2", "full is true"),
        ("tuning.encoder.full=false", "unknown key"),
        ("tuning.embeddings=3", "group of keys"),
    ):
        with pytest.raises(InputError, match=said):
            load_recipe("tiny", [wrong])
    with pytest.raises(InputError, match="all frozen"):
        run(tmp_path, DecoderTuning(decoder=FROZEN))


def test_the_rate_that_is_told_is_the_one_that_is_used(tmp_path: Path) -> None:
    late, rows = PartTuning(learning_rate=None, start_step=4), list[dict[str, Any]]()
    tuning = DecoderTuning(decoder=late, embeddings=STILL, new_embeddings=TableTuning(learning_rate=1e-2))
    config = replace(CONFIG, steps=8, log_every=1, optim=replace(CONFIG.optim, warmup_steps=3, schedule="constant"))
    shards: Any = ToyShards(toy_shards.corpus())
    train(config, decoder(), shards, toy_shards.vocabulary(), tmp_path, mixture=MIXTURE, tuning=tuning,
          first_new=FIRST_NEW, on_row=rows.append)  # fmt: skip
    told, peak = [row["learning_rate"]["decoder"] for row in rows], config.optim.learning_rate
    assert told == pytest.approx([0, 0, 0, 0, peak / 3, 2 * peak / 3, peak, peak])
    assert [row["learning_rate"]["new_embeddings"] for row in rows[:3]] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])


def test_matrices_of_a_part_move_at_its_own_rate_too(tmp_path: Path) -> None:
    """Muon's matrices have a rate of their own: a part that is to move a hundredth as fast moves all of it so."""
    optim = replace(CONFIG.optim, name="muon", warmup_steps=0, schedule="constant")
    config, before = replace(CONFIG, steps=1, log_every=1, optim=optim), decoder()
    moved = []
    for share in (1.0, 0.01):
        slow = DecoderTuning(decoder=PartTuning(learning_rate=share * optim.learning_rate))
        after = run(tmp_path / str(share), slow, config)
        own = dict(before.named_parameters())
        moved.append({name: (value - own[name]).abs().max().item() for name, value in after.named_parameters()})
    for name, most in moved[0].items():
        assert most > 0 and moved[1][name] == pytest.approx(0.01 * most, rel=0.1), name
    lower = replace(config, optim=replace(optim, learning_rate=0.1 * optim.learning_rate))
    same = run(tmp_path / "same", DecoderTuning(decoder=PartTuning(learning_rate=optim.learning_rate)), lower)
    for name, value in same.named_parameters():
        assert (value - own[name]).abs().max().item() == pytest.approx(moved[0][name], rel=1e-3), name
