"""Frames of a frozen encoder on disk: the same losses without its forward passes; what is torn or full."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.recordings import write_pairs
from tests.support.tiny_model import tiny_model
from unitok.frontends import frame_cache
from unitok.frontends.base import Encoded
from unitok.frontends.frame_cache import FrameCache, name_of
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.registry import ready_encoder
from unitok_tokenizers.errors import InputError
from unitok_training.data.latent_examples import LatentSource
from unitok_training.data.mixture import Mixture
from unitok_training.recipes.config import lasting
from unitok_training.recipes.latent import EncoderChoice, LatentRecipe, tiny
from unitok_training.run_models.latent import make_front_end
from unitok_training.trainer.config import FROZEN, FrameCacheConfig, PartTuning, Tuning
from unitok_training.trainer.distributed import World
from unitok_training.trainer.latent import latent_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.metrics import METRICS_FILE, read_metrics
from unitok_training.trainer.optimizer import OptimConfig
from unitok_training.trainer.parts import Part

ALONE = 41
"""Positions of a pack in which no two of the recordings have room."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_pairs`: eight rows that are trained on."""
    return write_pairs(tmp_path_factory.mktemp("frames"))


def recipe(
    folder: Path | None = None, *, augment: bool = False, views: int = 1, pack_size: int = 256, **changes: Any
) -> LatentRecipe:
    """Some steps behind an encoder that does not move."""
    base = tiny()
    steps = 28 if pack_size == ALONE else 8
    train = replace(
        base.train, steps=steps, log_every=1, pack_size=pack_size, window=16, augment=augment, precision="fp32"
    )
    frames = FrameCacheConfig() if folder is None else FrameCacheConfig(folder=str(folder), views=views)
    moved = PartTuning(learning_rate=3e-3)
    tuning = Tuning(encoder=FROZEN, adapter=moved, decoder=moved)
    changed = {"mixture": Mixture(tasks={"asr": 2.0, "s2tt": 1.0, "mt": 1.0}), "frames": frames, **changes}
    return replace(base, train=train, tuning=tuning, **changed)


class Run:
    """A run with the recordings that its encoder was given, and what was read for it."""

    def __init__(self, recipe: LatentRecipe, manifest: Path, out: Path) -> None:
        model = tiny_model()
        pieces = model.vocabulary.streams["text"].cardinalities[0]
        self.front = make_front_end(recipe, model.decoder, pieces)
        rows = [row for row in read_manifest(manifest) if row.split == "train"]
        source = LatentSource(
            rows, recipe.mixture, model.tokenizers.text, model.vocabulary, self.front,
            seed=0, augmented=recipe.train.augment,
        )  # fmt: skip
        self.given: list[int] = []
        self.front.encoder.register_forward_pre_hook(lambda _, inputs: self.given.append(len(inputs[0])))
        setup = latent_setup(
            recipe.train, recipe.tuning, self.front, model.decoder, source, World(), frames=recipe.frames
        )
        self.trainer = Trainer(recipe.train, setup, out)
        self.out = out

    def losses(self) -> list[tuple[float, float, float]]:
        self.trainer.run()
        return [(row["loss"], row["ctc_loss"], row["gradient_norm"]) for row in read_metrics(self.out / METRICS_FILE)]


@pytest.mark.parametrize(
    ("pack_size", "changes"),
    [
        (ALONE, {}),
        (256, {"adapter": replace(tiny().adapter, kind="blank_removal", stride=None)}),
        (256, {"encoder": EncoderChoice(kind="filterbank", beside="voice")}),
    ],
    ids=["a ctc head", "an adapter by content", "two encoders"],
)
def test_losses_are_those_without_it_and_every_recording_is_encoded_once(
    pack_size: int, changes: dict[str, Any], manifest: Path, tmp_path: Path
) -> None:
    changes = {**changes, "pack_size": pack_size}
    plain = Run(recipe(**changes), manifest, tmp_path / "plain")
    wanted = plain.losses()
    assert sum(plain.given) > 12, "anew for every example"
    first = Run(recipe(tmp_path / "frames", **changes), manifest, tmp_path / "first")
    found = first.losses()
    assert first.given == [1] * 8, "each of the recordings once, alone"
    again = Run(recipe(tmp_path / "frames", **changes), manifest, tmp_path / "again")
    assert again.losses() == found and again.given == [], "from disk, bit for bit, whatever was computed when"
    if pack_size == ALONE:
        assert found == wanted, "bit for bit, where each recording is encoded alone anyway"
    for one, other in zip(found, wanted):  # together with others a product may end in another bit
        assert one == pytest.approx(other, rel=1e-5)


def test_a_run_that_stopped_continues_as_if_it_had_not(manifest: Path, tmp_path: Path) -> None:
    config = recipe(tmp_path / "one", augment=True, views=2)
    whole = Run(config, manifest, tmp_path / "whole")
    whole.trainer.run()
    parts = replace(config, frames=replace(config.frames, folder=str(tmp_path / "two")))
    Run(parts, manifest, tmp_path / "parts").trainer.run(stop_after=5)
    second = Run(parts, manifest, tmp_path / "parts")
    assert second.trainer.resume() and second.trainer.step == 5
    second.trainer.run()
    for one, other in zip(whole.trainer.parts, second.trainer.parts):
        for name, value in one.module.state_dict().items():
            assert torch.equal(value, other.module.state_dict()[name]), name
    other = Run(replace(parts, frames=replace(parts.frames, views=3)), manifest, tmp_path / "parts")
    with pytest.raises(InputError, match=r"frames\.views"):
        other.trainer.resume()


def test_a_recording_has_as_many_views_as_asked_for(manifest: Path, tmp_path: Path) -> None:
    config = recipe(tmp_path / "frames", augment=True, views=2, mixture=Mixture(tasks={"asr": 1.0}))
    run = Run(config, manifest, tmp_path / "run")
    batches: Any = run.trainer.source
    by_row: dict[int, list[torch.Tensor]] = {}
    for index in range(4 * 8):
        document = batches.source.document(index)
        (inputs,) = batches.source.inputs(document, 2)
        by_row.setdefault(document.heard[0], []).append(inputs[0])
        (name,), (other,) = batches.source.names(document, 2), batches.source.names(replace(document, epoch=7), 2)
        assert (name == other) == (document.epoch % 2 == 1)
    for first, second, third, fourth in by_row.values():
        assert torch.equal(first, third) and torch.equal(second, fourth)
        assert first.shape != second.shape or not torch.equal(first, second)
    run.losses()
    assert len(batches.kept) <= 16


def encoder() -> FrameEncoder:
    return ready_encoder("filterbank")


def frames(seed: int, count: int = 50) -> Encoded:
    return Encoded(count * 4, torch.randn(count, 80, generator=torch.Generator().manual_seed(seed)))


def cache(folder: Path, *, precision: str = "fp32", most: int = 1 << 20) -> FrameCache:
    return FrameCache(folder, encoder(), precision=precision, most_bytes=most)


def test_what_one_process_wrote_another_reads(tmp_path: Path) -> None:
    writer, reader = cache(tmp_path), cache(tmp_path)
    writer.put(name_of(["a"]), frames(0))
    assert reader.get(name_of(["a"])) is None, "not finished"
    writer.flush()
    found = reader.get(name_of(["a"]))
    assert found is not None and torch.equal(found.hidden, frames(0).hidden) and found.size == 200 and len(reader) == 1
    half = Encoded(8, torch.randn(2, 80).bfloat16(), torch.randn(2, 5))
    writer.put(name_of(["b"]), half)
    writer.flush()
    found = reader.get(name_of(["b"]))
    assert found is not None and torch.equal(found.hidden, half.hidden) and found.hidden.dtype == torch.bfloat16
    assert found.ctc is not None and half.ctc is not None and torch.equal(found.ctc, half.ctc)
    assert cache(tmp_path, precision="bf16").get(name_of(["a"])) is None, "of another precision"


def test_what_is_torn_or_of_another_version_is_told_and_not_read(tmp_path: Path) -> None:
    writer = cache(tmp_path)
    for number in range(3):
        writer.put(str(number), frames(number))
        writer.flush()
    whole, torn, foreign = sorted(writer.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    torn.write_bytes(torn.read_bytes()[:-7])
    foreign.write_bytes(foreign.read_bytes().replace(b'"format":"1"', b'"format":"2"'))
    (writer.folder / f".{whole.name}.part").write_bytes(b"what a killed process left")
    reader = cache(tmp_path)
    assert reader.get("0") is not None and reader.get("1") is None and reader.get("2") is None
    told = " ".join(reader.told())
    assert torn.name in told and foreign.name in told and "another version" in told and not reader.told()
    reader.put("1", frames(1))
    reader.flush()
    assert cache(tmp_path).get("1") is not None


def test_a_full_folder_takes_no_more_and_says_so_once(tmp_path: Path) -> None:
    size = frames(0).hidden.numel() * 4
    writer = cache(tmp_path, most=2 * size + 4000)
    for number in range(5):
        writer.put(str(number), frames(number))
        writer.flush()
    assert len(writer) == 2 and writer.get("4") is None
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= writer.most_bytes
    assert [line for line in writer.told() if "frames.max_gb" in line] and not writer.told()
    other = cache(tmp_path, precision="bf16", most=2 * size + 4000)
    other.put("0", frames(0))
    assert len(other) == 0, "the bound is that of all encoders"


def test_an_encoder_that_moves_has_no_frames_to_keep(manifest: Path, tmp_path: Path) -> None:
    config = replace(recipe(tmp_path / "frames"), tuning=tiny().tuning)
    with pytest.raises(InputError, match=r"tuning\.encoder\.full=false"):
        Run(config, manifest, tmp_path / "run")
    with pytest.raises(InputError, match=r"frames\.folder"):
        FrameCacheConfig(views=2)
    assert "frames" not in lasting(recipe()) and "frames" in lasting(recipe(tmp_path))


def test_sizes_are_known_without_asking_the_device(manifest: Path, tmp_path: Path) -> None:
    run = Run(recipe(), manifest, tmp_path)
    batches: Any = run.trainer.source
    batch = batches.batch([batches.source.document(index) for index in range(6)])
    known = [run.front.encoder.frames_in(one) for one in batch.inputs]
    sizes = run.front._sizes(known)
    assert sizes is not None
    for one, count, size in zip(batch.inputs, known, sizes):
        frames = run.front.encoder([one])
        assert frames.hidden.shape[1] == count == int(frames.lengths[0])
        assert int(run.front.adapter(frames.hidden, frames.lengths)[1][0]) == size


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_parts_are_held_in_the_precision_of_the_run(precision: str) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(8, 4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    compute = Compute(device=torch.device("cpu"), precision=precision, threads=1, compiles=False)
    part = Part("encoder", module, FROZEN, OptimConfig(), compute, World())
    assert module.weight.dtype == compute.products and not part.tensors()
    part.restore()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    moving = Part("adapter", torch.nn.Linear(8, 4), PartTuning(), OptimConfig(), compute, World())
    assert {value.dtype for value in moving.module.parameters()} == {torch.float32}


def test_a_full_disk_costs_the_next_run_time_and_this_one_nothing(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Run(recipe(), manifest, tmp_path / "plain").losses()

    def full(path: Path, data: bytes) -> None:
        raise InputError(f"cannot write {path}: no space left on device")

    monkeypatch.setattr(frame_cache, "atomic_write_bytes", full)
    kept = cache(tmp_path / "alone")
    kept.put("a", frames(1))
    kept.flush()
    (told,) = kept.told()
    assert "no space left" in told and "computed every time" in told and kept.get("a") is None
    capsys.readouterr()
    found = Run(recipe(tmp_path / "frames"), manifest, tmp_path / "run").losses()
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    assert "no space left" in capsys.readouterr().out, "what is written at the end is told of too"
