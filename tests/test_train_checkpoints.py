"""The model at a checkpoint of a run, and a language model that learns speech with `finetune`.

Run alone with `pytest tests/test_train_checkpoints.py`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import Workshop, refused, unitok, works
from tests.support.hf_hosts import write_host
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.model import Model
from unitok_tokenizers.files import read_json
from unitok_training.checkpoint.files import list_checkpoints
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.evaluation.text_ability import text_ability
from unitok_training.run_models.checkpoint import model_at


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


def test_a_checkpoint_is_the_model_that_the_run_would_have_written(shop: Workshop, tmp_path: Path) -> None:
    steps = ("--set", "train.steps=4", "--set", "train.checkpoint_every=2")
    works(*shop.train(tmp_path / "run", *steps))
    paths = list_checkpoints(tmp_path / "run/checkpoints")
    assert [path.name for path in paths] == ["step_00000002", "step_00000004"]
    last, written = model_at(paths[1]), Model.load(tmp_path / "run/model")
    for name, value in written.decoder.state_dict().items():
        assert torch.equal(value, last.decoder.state_dict()[name])
    assert last.limits == written.limits and last.prompts.keys() == written.prompts.keys()
    earlier = model_at(paths[0]).decoder.state_dict()
    kept = read_checkpoint(paths[0]).model
    assert all(torch.equal(earlier[name], value) for name, value in kept.items())
    scored = [
        unitok("evaluate", place, shop.shards, "--limit", "2", "--split", "train").out
        for place in (paths[1], tmp_path / "run/model")
    ]
    assert json.loads(scored[0]) == json.loads(scored[1])
    (tmp_path / "run/origin.json").unlink()
    refused("evaluate", paths[1], shop.shards, saying=("origin.json", "unitok train"))


def test_text_ability_is_the_perplexity_of_the_hosts_ids_alone(shop: Workshop) -> None:
    model = Model.load(shop.model)
    texts = [np.asarray(model.tokenizers.text.encode(text)) for text in ("the house", "a", "one two three four")]
    found = text_ability(model.decoder, texts, model.vocabulary)
    size, total, count = model.vocabulary.text.cardinalities[0], 0.0, 0
    for text in texts:
        hidden = model.decoder(
            torch.from_numpy(text), torch.arange(len(text)), torch.tensor([0, len(text)], dtype=torch.int32), len(text)
        )
        logs = model.decoder.logits(hidden)[:, :size].log_softmax(-1)
        for place in range(len(text) - 1):
            total, count = total - float(logs[place, text[place + 1]].detach()), count + 1
    assert found.ids == count and found.perplexity == pytest.approx(math.exp(total / count), rel=1e-4)
    louder = Decoder(DecoderConfig(**{**model.decoder.config.__dict__, "vocab_size": model.vocabulary.size + 5}))
    with torch.no_grad():
        for name, value in model.decoder.state_dict().items():
            own = dict(louder.named_parameters())[name]
            own[: len(value)].copy_(value) if name == "embedding" else own.copy_(value)
    assert text_ability(louder, texts, model.vocabulary).perplexity == pytest.approx(found.perplexity, rel=1e-5)


def test_an_imported_model_learns_new_rows_first_and_is_measured(shop: Workshop, tmp_path: Path) -> None:
    write_host(tmp_path / "hf", "llama")
    works("import", tmp_path / "hf", tmp_path / "host", "--tokenizers", shop.tokenizers, "--languages", "en", "de")
    host = Model.load(tmp_path / "host")
    works("prepare", shop.manifest, tmp_path / "shards", "--tokenizers", tmp_path / "host/tokenizers")
    given = ("--start", tmp_path / "host", "--shards", tmp_path / "shards", "-o", tmp_path / "run")
    changes = ("train.steps=4", "train.packs_per_step=1", "train.pack_size=512", "train.window=32")
    changes += ("train.checkpoint_every=2", "mixture.only={asr: 1, lm: 1}")
    changes += ("tuning.decoder.start_step=2", "tuning.embeddings.start_step=2")
    works("train", "finetune", *given, *(part for change in changes for part in ("--set", change)))
    size = host.vocabulary.text.cardinalities[0]
    first = read_checkpoint(tmp_path / "run/checkpoints/step_00000002").model
    last = read_checkpoint(tmp_path / "run/checkpoints/step_00000004").model
    for name, value in host.decoder.state_dict().items():
        if name in ("embedding", "head"):
            assert torch.equal(first[name][:size], value[:size]) and not torch.equal(first[name][size:], value[size:])
            assert not torch.equal(last[name][:size], value[:size])
        else:
            assert torch.equal(first[name], value) and not torch.equal(last[name], value)
    told = read_json(tmp_path / "run/text_ability.json")
    assert told["before"]["ids"] == told["after"]["ids"] > 0
    assert told["after"]["perplexity"] != told["before"]["perplexity"]
