"""Float32 is float32: where bfloat16 raises, every stage of every command works in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command import Workshop, works
from tests.test_experiments_demo import short_demo, write_manifest
from tests.test_systems import OWN, TINY
from unitok_tokenizers.compute import PRECISION_VARIABLE
from unitok_tokenizers.files import write_json
from unitok_training.experiments.compare.recipes import load_compare_recipe
from unitok_training.experiments.compare.run import CompareConfig, settings_of, stages
from unitok_training.experiments.demo.run import demo_stages
from unitok_training.runs.stage_process import run_stage
from unitok_training.systems.registry import run_system

HALF = torch.bfloat16


@pytest.fixture(scope="module", autouse=True)
def no_bfloat16() -> Iterator[None]:
    """Autocast to bfloat16 and conversions to it raise; $UNITOK_PRECISION says float32."""
    autocast, to = torch.autocast.__init__, torch.Tensor.to

    def refuse(*given: object, **named: object) -> Any:
        raise RuntimeError("bfloat16 on a processor without units for it")

    def checked_autocast(self: torch.autocast, device_type: str, dtype: Any = None, *more: Any, **named: Any) -> None:
        wanted = dtype or torch.get_autocast_dtype(device_type)
        if wanted == HALF and (more[:1] or (named.get("enabled", True),))[0]:
            refuse()
        autocast(self, device_type, dtype, *more, **named)

    def checked_to(self: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        if HALF in [one for one in (*given, *named.values()) if isinstance(one, torch.dtype)]:
            refuse()
        return to(self, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PRECISION_VARIABLE, "fp32")
        patch.setattr(torch.autocast, "__init__", checked_autocast)
        patch.setattr(torch.Tensor, "to", checked_to)
        patch.setattr(torch.Tensor, "bfloat16", refuse)
        patch.setattr(torch.nn.Module, "bfloat16", refuse)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A manifest with its tokenizers, shards, model and a trained run."""
    return Workshop(tmp_path_factory.mktemp("shop"))


def test_the_guard_itself() -> None:
    with torch.autocast("cpu", dtype=HALF, enabled=False):
        assert torch.zeros(1).to(torch.float32).dtype == torch.float32
    for wrong in (
        lambda: torch.autocast("cpu", dtype=HALF),
        lambda: torch.autocast("cpu"),
        lambda: torch.zeros(1).to(HALF),
        lambda: torch.zeros(1).to(dtype=HALF),
        lambda: torch.zeros(1).bfloat16(),
        lambda: torch.nn.Linear(1, 1).to(HALF),
        lambda: torch.nn.Linear(1, 1).bfloat16(),
    ):
        with pytest.raises(RuntimeError, match="without units"):
            wrong()


def test_tokenizers_are_fitted(shop: Workshop, tmp_path: Path) -> None:
    steps = ("--encoder-steps", 2, "--codec-steps", 2, "--clusters", 4)
    works("fit-tokenizers", shop.manifest, tmp_path / "fit", *steps, "--precision", "fp32")
    works("prepare", shop.manifest, tmp_path / "shards", "--tokenizers", tmp_path / "fit")


@pytest.mark.parametrize("more", [(), ("--precision", "fp32"), ("--set", "train.optim.name=muon")])
def test_a_decoder_is_trained(shop: Workshop, tmp_path: Path, more: tuple[str, ...]) -> None:
    works(*shop.train(tmp_path / "run", "--set", "train.precision=auto", *more))


def test_a_latent_model_is_trained_probed_and_scored(shop: Workshop, tmp_path: Path) -> None:
    sizes = [
        word for one in ("steps=2", "window=8", "pack_size=256", "precision=auto") for word in ("--set", f"train.{one}")
    ]
    works("train-latent", "tiny", shop.manifest, "-o", tmp_path / "run", "--limit", "1", *sizes)
    works("train-latent", "tiny", shop.manifest, "-o", tmp_path / "two", "--limit", "1", *sizes, "--precision", "fp32")
    model = tmp_path / "run" / "model"
    works("evaluate", model, shop.manifest, "--limit", "1")
    works("generate", model, shop.root / "0.wav", "--task", "asr", "--lang", "en", "--front-end", "latent")
    few = ("--kinds", "linear", "--set", "train.steps=10")
    works("adapters", model, shop.manifest, "-o", tmp_path / "grid", *few, "--precision", "fp32")


def test_a_model_answers_and_is_scored_and_planned(shop: Workshop, tmp_path: Path) -> None:
    sound, out = shop.root / "0.wav", ("-o", tmp_path / "out.wav")
    works("generate", shop.model, sound, "--task", "asr", "--lang", "en")
    works("generate", shop.model, "we buy two books", "--task", "tts", "--lang", "en", "--voice", "anna", *out)
    works("generate", shop.model, sound, "--task", "slm", "--lang", "en", *out)
    works("evaluate", shop.model, shop.shards, "--limit", "1")
    works("cost", "demo")
    works("cost", "demo", "--device", "h100")


def test_lists_are_rescored_and_corrected(shop: Workshop, tmp_path: Path) -> None:
    lists = tmp_path / "l.jsonl"
    works("nbest", shop.model, shop.manifest, "-o", lists, "--size", "2", "--beams", "2")
    both = ("--dev", "train", "--masked", "1", "--head", "1")
    works("rescore", shop.model, lists, *both)
    works("rescore", shop.model, lists, *both, "--precision", "auto")
    encoder = shop.model / "tokenizers/units"
    for ways in (
        (), ("--lora", "2"), ("--noise-vectors", "2"), ("--experts", "2"),
        ("--hear", encoder, "--recordings", shop.manifest),
    ):  # fmt: skip
        works("correct", shop.model, lists, "--steps", "1", *ways, "--precision", "auto")


BENCHES = ("hubert", "seed_asr", "blsp", "coordinator", "uniaudio")
"""A system of each kind of training: masked prediction, minimum word errors, vectors in two stages, scripted turns, and
codes beside ids. What others of a bench do differently has no precision of its own."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHES)
def test_systems_are_checked(name: str, tmp_path: Path) -> None:
    from dataclasses import replace

    config = replace(TINY, overrides=OWN.get(name, TINY.overrides), precision="auto")
    assert run_system(name, tmp_path / "run", config, report=lambda line: None)


@pytest.mark.slow
def test_the_demo_s_stages(tmp_path: Path) -> None:
    from dataclasses import asdict, replace

    config = replace(short_demo(write_manifest(tmp_path)), precision="auto", evaluate_limit=2)
    run_all(tmp_path / "run", demo_stages(config), asdict(config))


@pytest.mark.slow
def test_the_comparison_s_stages(tmp_path: Path) -> None:
    automatic = [f"{arm}.train.precision=auto" for arm in ("start", "tokens", "cascade", "latent")]
    config = CompareConfig(
        manifest=str(write_manifest(tmp_path)), seeds=1, threads=1, preset="tiny", overrides=tuple(automatic)
    )
    recipe = load_compare_recipe("tiny", config.recipe_overrides)
    run_all(tmp_path / "run", stages(recipe, config), settings_of(recipe, config))


def run_all(run: Path, graph: Any, settings: dict[str, Any]) -> None:
    """Every stage in this process, where bfloat16 raises."""
    run.mkdir()
    write_json(run / "pipeline.json", settings)
    for stage in graph:
        run_stage(stage.function, run, *stage.arguments)
