"""Old files: what an early version wrote opens, answers, is evaluated and exported, and its unfinished run ends.

Run alone with `pytest tests/test_formats_artifacts.py`; `tests/support/artifacts.py` says how the files were made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.artifacts import FOLDER, MODELS, RUN, answers, assembled, continue_run, recordings, sums
from tests.support.command import works
from tests.support.recordings import write_pairs
from unitok.model import Model
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics

KEPT: dict[str, Any] = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
LARGEST = 2 * 2**20


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As they were written: sums over several threads come in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_they_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= LARGEST


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_it_did(name: str, tmp_path: Path) -> None:
    assert answers(Model.load(assembled(name, tmp_path / "model"))) == KEPT[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_saved_as_it_was_read(name: str, tmp_path: Path) -> None:
    """Whatever the present version writes, nothing of the old model is lost on the way."""
    Model.load(assembled(name, tmp_path / "old")).save(tmp_path / "new")
    assert answers(Model.load(tmp_path / "new")) == KEPT[name]


def test_tokenizers_and_shards_belong_together_still(tmp_path: Path) -> None:
    tokenizers = TokenizerSet.load(FOLDER / "plain/tokenizers")
    shards = Shards.open(FOLDER / "shards", check=True)
    vocabulary = Model.load(FOLDER / "plain").vocabulary
    for stream in tokenizers.infos():
        assert shards.streams[stream.name] == stream, "a fingerprint that changes orphans everybody's shards"
        vocabulary.check(stream, "the shards", "the model")
    assert len(shards) == 16
    works("validate", FOLDER / "shards")
    assert json.loads(works("inspect", FOLDER / "shards"))["rows"] == 16


@pytest.mark.parametrize("name", ["plain", "experts", "lora"])
def test_a_model_is_evaluated_and_goes_to_hugging_face_and_back(name: str, tmp_path: Path) -> None:
    model = assembled(name, tmp_path / "model")
    shutil.copytree(FOLDER / "shards", tmp_path / "shards")
    recordings(tmp_path).mkdir()
    write_pairs(recordings(tmp_path))
    found = json.loads(works("evaluate", model, tmp_path / "shards", "--limit", "2"))
    assert found["asr"]["count"] == 2 and found["lm"]["ppl"] > 1
    if name == "experts":
        return  # a stock class computes experts that all have one gate; these are exported by a test of their own
    works("export", model, tmp_path / "hf")
    works("import", tmp_path / "hf", tmp_path / "back")
    back = answers(Model.load(tmp_path / "back"))
    assert {key: back[key] for key in ("asr.tokens", "mt", "tts.units")} == {
        key: KEPT[name][key] for key in ("asr.tokens", "mt", "tts.units")
    }


def test_the_unfinished_run_goes_on_to_the_weights_that_it_had(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    model = continue_run(tmp_path / "run", FOLDER / "shards", Model.load(FOLDER / "plain"))
    steps = [row["step"] for row in read_metrics(tmp_path / "run" / METRICS_FILE) if "step" in row]
    assert steps[-1] == RUN.steps and RUN.steps // 2 in steps, "it continued, and did not begin anew"
    np.testing.assert_allclose(sums(model), KEPT["run"]["weights"], rtol=2e-4)
    assert {key: value for key, value in KEPT["run"].items() if key != "weights"} == answers(model)
