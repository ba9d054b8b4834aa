"""Every adapter alone, between an encoder that hears and a decoder that knows the text, neither of which moves.

Run alone with `pytest tests/test_experiments_adapter_grid.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.recordings import write_pairs
from unitok.cli.main import main
from unitok.frontends.adapters.registry import ADAPTERS
from unitok.model import Model
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.errors import InputError
from unitok_training.experiments.adapter_grid import train_adapter
from unitok_training.recipes.latent import AdapterChoice, LatentRecipe, tiny
from unitok_training.train_latent import train_latent
from unitok_training.trainer.config import FROZEN

QUERIES = ("cross_attention", "qformer")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(manifest, model directory): a tiny model that has learned eight recordings through stacked frames."""
    root = tmp_path_factory.mktemp("grid")
    manifest = write_pairs(root)
    recipe = tiny()
    done = train_latent(replace(recipe, train=replace(recipe.train, steps=120, log_every=120)), manifest, root / "run")
    assert done.scores["asr"]["wer"] < 0.1
    return manifest, done.folder


def recipe() -> LatentRecipe:
    base = tiny()
    return replace(base, train=replace(base.train, steps=1000, log_every=5))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_adapter_halves_the_loss_alone(kind: str, trained: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, folder = trained
    model = Model.load(folder)
    choice = AdapterChoice(kind=kind, queries=8 if kind in QUERIES else None)
    frozen = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    found = train_adapter(model, read_manifest(manifest), choice, recipe(), tmp_path)
    assert found.halved is not None and found.halved <= 1000, found
    assert found.last <= found.first / 2 and found.parameters > 0
    assert all(bool((value == frozen[name]).all()) for name, value in model.decoder.state_dict().items())


def test_the_command_trains_the_adapters_it_is_told(trained: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, folder = trained
    small = ["train.steps=10", "train.log_every=5", "train.window=32", "train.augment=false"]
    options = [word for value in small for word in ("--set", value)]
    out = tmp_path / "grid"
    given = ["adapters", str(folder), str(manifest), "-o", str(out), "--kinds", "linear", "pooling", *options]
    assert main(given) == 0
    found = json.loads((out / "adapters.json").read_text(encoding="utf-8"))
    assert [one["kind"] for one in found] == ["linear", "pooling"] and all(one["first"] > 0 for one in found)


def test_another_adapter_begins_behind_the_encoder_of_the_start(trained: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, folder = trained
    changed = replace(recipe(), adapter=AdapterChoice(kind="linear", stride=4))
    still = replace(changed, train=replace(changed.train, steps=1, log_every=1))
    before = Model.load(folder).latent
    after = train_latent(replace(still, tuning=replace(still.tuning, encoder=FROZEN)), manifest, tmp_path, start=folder,
                         limit=1).model.latent  # fmt: skip
    assert before is not None and after is not None and after.adapter.name == "linear"
    for name, value in before.encoder.state_dict().items():
        assert bool((after.encoder.state_dict()[name] == value).all()), name


def test_a_model_without_an_encoder_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, folder = trained
    model = Model.load(folder)
    model.latent = None
    with pytest.raises(InputError, match="no latent front end"):
        train_adapter(model, read_manifest(manifest), AdapterChoice(), recipe(), tmp_path)
