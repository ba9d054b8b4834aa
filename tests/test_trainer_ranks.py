"""Every objective gives with two and with four processes what it gives with one: losses, gradient norms, weights.

Float32. AdamW's ε is large, so that its steps are as far apart as the gradients are: with a small one the sign of what
should be 0 decides. Run alone with `pytest tests/test_trainer_ranks.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.support import toy_shards
from tests.support.launching import ranks
from tests.support.recordings import write_pairs
from tests.support.tiny_model import tiny_model
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_tokenizers.data.manifest import read_manifest
from unitok_training.data.examples import ExampleSource
from unitok_training.data.latent_examples import LatentSource, with_vectors
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import DataState
from unitok_training.objectives.latent import LatentBatch
from unitok_training.objectives.teacher import Teacher
from unitok_training.recipes.latent import LatentRecipe, tiny
from unitok_training.run_models.latent import make_front_end
from unitok_training.trainer.batches import LatentBatches
from unitok_training.trainer.config import FROZEN, DistillConfig, LatentTrainConfig, TrainConfig
from unitok_training.trainer.decoder import token_setup
from unitok_training.trainer.distributed import World, world_from_environment
from unitok_training.trainer.latent import latent_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.optimizer import OptimConfig
from unitok_training.trainer.setup import Setup

SCRIPT = "import sys; from tests.test_trainer_ranks import work; work(sys.argv[1])"
STEPS, PACKS = 3, 4
RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""How far figures and weights may be apart: float32 adds up in another order."""
OPTIM = OptimConfig(learning_rate=3e-2, warmup_steps=1, epsilon=1e-2)
TOKENS = TrainConfig(
    steps=STEPS, pack_size=128, packs_per_step=PACKS, window=64, precision="fp32", log_every=1, optim=OPTIM
)
MIXTURE = Mixture(tasks={"asr": 2.0, "tts.codes": 1.0, "mt": 1.0})
LATENT = LatentTrainConfig(
    steps=STEPS, pack_size=512, packs_per_step=PACKS, window=32, augment=False, log_every=1, ctc_weight=0.3, optim=OPTIM
)

# ---- token shards


def token_run(config: TrainConfig, world: World, distill: DistillConfig | None = None) -> tuple[Setup, list[Decoder]]:
    """(what is trained, whose weights are compared); the teacher has never met one of the two languages."""
    vocabulary = toy_shards.vocabulary()
    torch.manual_seed(world.rank)  # the first one's weights are broadcast
    decoder = Decoder(DecoderConfig(vocab_size=vocabulary.size, width=32, layers=2, heads=2, kv_heads=1))
    teacher, shards = None, toy_shards.ToyShards(toy_shards.corpus())
    if distill is not None:
        shape = DecoderConfig(vocab_size=vocabulary.size, width=48, layers=1, heads=2, kv_heads=1)
        made = Decoder(shape, generator=torch.Generator().manual_seed(9))
        made.embedding.data.mul_(20)
        teacher = Teacher(path="t", decoder=made, vocabulary=toy_shards.vocabulary(("de",)))
    source = ExampleSource(shards, vocabulary, MIXTURE, seed=0)
    return token_setup(config, decoder, source, world, distill=distill, teacher=teacher), [decoder]


# ---- recordings


class Uneven(LatentBatches):
    """The same four packs every step: three recordings; text alone; a recording of which no text is known; both."""

    def __init__(self, source: LatentSource, config: LatentTrainConfig) -> None:
        super().__init__(source, config)
        found = [source.document(index) for index in range(40)]
        heard, read = ([one for one in found if bool(one.heard) == wanted] for wanted in (True, False))
        silent = self.batch(heard[3:4])
        self.packs = [
            self.batch(heard[:3]),
            self.batch(read[:1]),
            replace(silent, labels=[torch.zeros(0, dtype=torch.int64)]),
            self.batch([read[1], heard[4]]),
        ]

    def steps(
        self, state: DataState, *, rank: int, world_size: int, pin: bool
    ) -> Iterator[tuple[list[LatentBatch], DataState]]:
        while True:
            yield self.packs[rank::world_size], state


def latent_run(
    manifest: Path, config: LatentTrainConfig, world: World, recipe: LatentRecipe
) -> tuple[Setup, list[torch.nn.Module]]:
    model = tiny_model()
    front = make_front_end(recipe, model.decoder, model.vocabulary.streams["text"].cardinalities[0])
    rows = [row for row in read_manifest(manifest) if row.split == "train"]
    mixture = Mixture(tasks={"asr": 1.0, "mt": 1.0})
    source = LatentSource(rows, mixture, model.tokenizers.text, model.vocabulary, front, seed=0, augmented=False)
    setup = latent_setup(config, recipe.tuning, front, model.decoder, source, world)
    return replace(setup, source=Uneven(source, config)), [front, model.decoder]


def runs(manifest: Path, world: World) -> Iterator[tuple[str, Any, tuple[Setup, list[Any]]]]:
    """(name, configuration, what is trained) of every objective."""
    slices = replace(TOKENS, output_slices=True)
    for name, config in (("tokens", TOKENS), ("smoothed slices", replace(slices, label_smoothing=0.1))):
        yield name, config, token_run(config, world)
    learned = DistillConfig(teacher="t", weight=0.7, temperature=2.0, tokens=0.5)
    for name, config, distill in (
        ("distilled", TOKENS, learned),
        ("distilled alone, slices", slices, replace(learned, tokens=0.0)),
        ("distilled sharded", replace(TOKENS, shard=True), learned),
    ):
        yield name, config, token_run(config, world, distill)
    whole = tiny()
    frozen = replace(whole, tuning=replace(whole.tuning, decoder=FROZEN))
    for name, recipe, latent in (
        ("latent", whole, LATENT),
        ("latent frozen, smoothed", frozen, replace(LATENT, label_smoothing=0.1)),
        ("latent sharded", whole, replace(LATENT, shard=True)),
        ("latent with dropout", replace(whole, encoder=replace(whole.encoder, dropout=0.2)), LATENT),
    ):
        yield name, latent, latent_run(manifest, latent, world, recipe)


class Unsaved(Trainer):
    """A trainer whose checkpoints nobody reads: each would be written by a process that takes a second to begin."""

    def save(self, *, last: bool = False) -> Path:
        return self.checkpoints


def work(folder: str) -> None:
    """Run all objectives in this process of its world; what each gave goes to files of `folder`."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with world_from_environment("cpu") as world:
        out = Path(folder) / str(world.size)
        for name, config, (setup, modules) in runs(Path(folder) / "m.jsonl", world):
            rows: list[dict[str, Any]] = []
            Unsaved(config, setup, out / name, world=world).run(on_row=rows.append)
            held = {f"{n} {key}": value for n, one in enumerate(modules) for key, value in one.state_dict().items()}
            found[name] = {"rows": rows, "weights": held}
        torch.save(found, out / f"{world.rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All objectives with one, two and four processes."""
    root = tmp_path_factory.mktemp("ranks")
    write_pairs(root)
    (root / "script.py").write_text(SCRIPT, encoding="utf-8")
    work(str(root))
    for size in (2, 4):
        done = ranks([str(root / "script.py"), str(root)], size)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def given(folder: Path, size: int, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / str(size) / f"{rank}.pt")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_every_objective_gives_what_one_process_gives(folder: Path, size: int) -> None:
    alone, ranks = given(folder, 1), [given(folder, size, rank) for rank in range(size)]
    assert len(alone) == 9
    for name, one in alone.items():
        assert len(one["rows"]) == STEPS
        for row, shared in zip(one["rows"], ranks[0][name]["rows"]):
            for key in ("loss", "objective", "gradient_norm", "ctc_loss", "distill_loss"):
                if key in row:
                    wanted = pytest.approx(row[key], rel=RELATIVE, abs=ABSOLUTE)
                    assert shared[key] == wanted, (name, key, json.dumps([row, shared]))
            assert shared["loss_by_task"] == pytest.approx(row["loss_by_task"], rel=RELATIVE)
            for key in ("tokens", "supervised_tokens"):
                assert shared[key] == row[key], name
        first, last = (one["rows"][at]["objective"] for at in (0, -1))
        assert last < 0.97 * first, f"{name} has not learned: {first} to {last} would hide a difference"
        for key, value in one["weights"].items():
            mine = ranks[0][name]["weights"][key]
            torch.testing.assert_close(
                mine, value, rtol=RELATIVE, atol=ABSOLUTE, msg=lambda said, at=(name, key): f"{at}: {said}"
            )  # fmt: skip
            assert all(torch.equal(other[name]["weights"][key], mine) for other in ranks[1:]), (name, key)


def by_hand(folder: Path) -> dict[str, float]:
    """The first step of "latent" before anything has moved: each document alone, sums ÷ counts of all packs."""
    setup, (front, decoder) = latent_run(folder / "m.jsonl", LATENT, World(), tiny())
    sums, counts = {"tokens": 0.0, "ctc": 0.0}, {"tokens": 0, "ctc": 0}
    source: Any = setup.source
    for batch in source.packs:
        inputs, labels = iter(batch.inputs), iter(batch.labels)
        for document in batch.documents:
            vectors, one = None, document
            for _ in document.heard:
                latents = front([next(inputs)])
                vectors, (group,), said = latents.vectors, latents.groups, next(labels)
                one = with_vectors(document, latents.lengths, source.vocabulary)
                if len(said):
                    logs = group.frames.ctc[0].log_softmax(-1)
                    lost = functional.ctc_loss(logs, said, torch.tensor(len(logs)), torch.tensor(len(said)))
                    sums["ctc"] += float(lost.detach()) * len(said)  # torch's mean divides by the labels
                    counts["ctc"] += len(said)
            ids, weight = torch.from_numpy(one.ids).long(), torch.from_numpy(one.loss_weight)
            length = len(ids)
            holes = (ids == source.vocabulary.control("<lat>")).nonzero()[:, 0]
            hidden = decoder(
                ids, torch.arange(length, dtype=torch.int32), torch.tensor([0, length], dtype=torch.int32), length,
                vectors=vectors, vector_index=None if vectors is None else holes,
            )  # fmt: skip
            lost = functional.cross_entropy(decoder.logits(hidden)[:-1], ids[1:], reduction="none")
            sums["tokens"] += float((lost * weight[1:]).sum().detach())
            counts["tokens"] += int((weight[1:] > 0).sum())
    assert len({len(one) for batch in source.packs for one in batch.labels}) > 2, "packs of unequal counts"
    means = {name: sums[name] / counts[name] for name in sums}
    return {**means, "objective": means["tokens"] + LATENT.ctc_weight * means["ctc"], "labels": counts["tokens"]}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_latent_losses_of_unequal_packs_are_sums_over_counts(folder: Path, size: int) -> None:
    wanted, row = by_hand(folder), given(folder, size)["latent"]["rows"][0]
    assert row["loss"] == pytest.approx(wanted["tokens"], rel=RELATIVE)
    assert row["ctc_loss"] == pytest.approx(wanted["ctc"], rel=RELATIVE)
    assert row["objective"] == pytest.approx(wanted["objective"], rel=RELATIVE)
    assert row["supervised_tokens"] == wanted["labels"]
