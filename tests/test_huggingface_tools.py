"""Tools that others train, measure and convert models with take an export; each is skipped where it is not installed.

`LLAMA_CPP` in the environment names a checkout of llama.cpp.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.hf_tools import convert_to_gguf, harness_loglikelihoods, tune_lora, tune_sft
from tests.support.tiny_model import tiny_model
from unitok.export import export_hf, import_hf
from unitok.generation.generate import score
from unitok.model import Model

pytest.importorskip("transformers", reason="the hf extra is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning")]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tools")
    model.save(root / "model")
    return export_hf(root / "model", root / "hf")


def check_tuned(model: Model, folder: Path, tuned: Path, losses: list[float], out: Path) -> None:
    """20 steps that learnt something, and a folder that becomes a model directory again."""
    assert len(losses) == 20 and losses[-1] < losses[0] - 0.2
    shutil.copytree(folder / "unitok", tuned / "unitok")
    back = Model.load(import_hf(tuned, out))
    assert back.vocabulary == model.vocabulary
    shapes = [
        (one.decoder.config.width, one.decoder.config.head_dim, one.decoder.config.ffn_dim) for one in (back, model)
    ]
    assert shapes[0] == shapes[1]
    assert not torch.equal(*(dict(one.decoder.named_parameters())["blocks.0.qkv"] for one in (back, model)))
    assert isinstance(back.translate("the green house", source="en", target="de").text, str)


def test_lora(model: Model, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    check_tuned(model, folder, tmp_path / "tuned", tune_lora(folder, tmp_path / "tuned"), tmp_path / "model")


def test_supervised_fine_tuning(model: Model, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed")
    check_tuned(model, folder, tmp_path / "tuned", tune_sft(folder, tmp_path / "tuned"), tmp_path / "model")


def test_the_evaluation_harness(model: Model, folder: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    [(found, _)] = harness_loglikelihoods(folder, [("the green house", " stands here today")])
    prompt, rest = (np.array(model.tokenizers.text.encode(text)) for text in ("the green house", " stands here today"))
    [expected] = score(model.decoder, [prompt], [rest])
    assert found == pytest.approx(float(expected.sum()), abs=1e-3)


def test_llama_cpp_converts_it(model: Model, folder: Path, tmp_path: Path) -> None:
    checkout = os.environ.get("LLAMA_CPP")
    if checkout is None:
        pytest.skip("LLAMA_CPP names no checkout of llama.cpp")
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    convert_to_gguf(Path(checkout) / "convert_hf_to_gguf.py", folder, tmp_path / "a.gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert len(reader.fields["tokenizer.ggml.tokens"].data) == model.vocabulary.size
    [table] = [tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"]
    assert np.array_equal(table.data, model.decoder.embedding.detach().numpy())
