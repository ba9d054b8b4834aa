"""Files that an early version of this repository wrote, and how: they must open, answer and continue ever after.

`tests/artifacts/` was written once, at the tag `before-house`, by

    OMP_NUM_THREADS=1 python -m tests.support.artifacts tests/artifacts

and is never written again: what a later version writes proves nothing about old files. A new format brings artifacts of
its own beside these.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.recordings import write_pairs
from tests.support.tiny_model import speech, tiny_model
from unitok.decoder.lora import LoraConfig, add_lora, updates
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.decoder.moe import MixtureConfig, expand, mixtures
from unitok.model import Model
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_training.data.mixture import Mixture
from unitok_training.recipes.latent import EncoderChoice
from unitok_training.recipes.latent import tiny as tiny_latent
from unitok_training.train_latent import train_latent
from unitok_training.trainer.config import PartTuning, TrainConfig, Tuning
from unitok_training.trainer.decoder import train
from unitok_training.trainer.optimizer import OptimConfig

FOLDER = Path(__file__).resolve().parents[1] / "artifacts"
RUN = TrainConfig(
    steps=8,
    pack_size=512,
    packs_per_step=1,
    window=16,
    precision="fp32",
    compile=False,
    log_every=1,
    checkpoint_every=4,
    optim=OptimConfig(learning_rate=3e-3, warmup_steps=2),
)
"""The unfinished run: it stopped after half of its steps."""
MIXTURE = Mixture(tasks={"asr": 2.0, "tts.codes": 1.0, "tts.units": 1.0, "mt": 1.0})
MODELS = ("plain", "latent", "lora", "experts")
"""The first is a whole directory; of the others only the files lie here that differ from it."""
TEXT = "the green house stands here"


def recordings(place: Path = Path()) -> Path:
    """Where the shards, at `place`, look for their recordings, which `write_pairs` makes again."""
    return place / "recordings"


def assembled(name: str, place: Path) -> Path:
    """The directory of one of the models, whole, at `place`."""
    shutil.copytree(FOLDER / MODELS[0], place)
    if name != MODELS[0]:
        shutil.copytree(FOLDER / name, place, dirs_exist_ok=True)
    return place


def continue_run(out: Path, shards: Path, model: Model, *, stop_after: int | None = None) -> Model:
    """Start the run on a model, or continue it; the model then has the weights that it ends with."""
    train(
        RUN, model.decoder, Shards.open(shards), model.vocabulary, out, mixture=MIXTURE, stop_after=stop_after
    )  # fmt: skip
    return model


def answers(model: Model) -> dict[str, Any]:
    """What a model says to a few requests, as whole numbers: greedy, on one thread, in float32."""
    found: dict[str, Any] = {}
    recording = speech(0.9, seed=3)
    for front_end in ("tokens",) if model.latent is None else ("tokens", "latent"):
        heard = model.transcribe(recording, lang="en", front_end=front_end)
        found[f"asr.{front_end}"] = heard.ids.tolist()
    found["mt"] = model.translate(TEXT, source="en", target="de").ids.tolist()
    said = model.synthesize(TEXT, lang="en", voice="anna", output="codes")
    found["tts.codes"] = said.ids.tolist()
    found["tts.units"] = model.synthesize(TEXT, lang="en", voice="anna", output="units").ids.tolist()
    assert said.audio is not None
    found["samples"] = len(said.audio)
    return found


def made(kind: str) -> Model:
    """The plain model, or the same with low-rank updates or with experts."""
    model = tiny_model()
    sizes = DecoderConfig(vocab_size=model.vocabulary.size, width=16, layers=2, heads=2, kv_heads=1)
    model.decoder = Decoder(sizes, generator=torch.Generator().manual_seed(1)).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for value in model.decoder.parameters():
            value.add_(0.3 * torch.randn_like(value))  # far enough from the start for answers that are no one id
    if kind == "plain":
        return model
    if kind == "experts":
        model.decoder = expand(model.decoder, MixtureConfig(experts=3, chosen=2)).eval()
        for feed in mixtures(model.decoder):
            for weight in feed.experts[1].parameters():
                weight.data.add_(torch.randn_like(weight) * 0.1)
    else:
        add_lora(model.decoder, LoraConfig(rank=2, targets=("q", "gate")))
        for update in updates(model.decoder).values():
            for value in update.b.values():
                torch.nn.init.normal_(value)
    return model


def write(folder: Path) -> None:
    """Write all of them into an empty folder."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # shards keep the path of a recording as it was given: a relative one means the same elsewhere
    folder = Path()
    models = {name: folder / name for name in MODELS}
    plain = models["plain"]
    for kind in ("plain", "lora", "experts"):
        made(kind).save(models[kind])
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        recordings().mkdir()
        manifest = write_pairs(recordings())
        prepare_shards(read_manifest(manifest), Model.load(plain).tokenizers, folder / "shards")
        update = PartTuning(full=False, lora_rank=2, learning_rate=1e-2)
        encoder = EncoderChoice(width=24, layers=1, heads=2, inner=48, dropout=0.0)
        recipe = replace(tiny_latent(), tuning=Tuning(encoder=update, decoder=update), encoder=encoder)
        recipe = replace(recipe, train=replace(recipe.train, steps=2, log_every=2))
        shutil.copytree(train_latent(recipe, manifest, place / "latent", start=plain, limit=1).folder, models["latent"])
        continue_run(folder / "run", folder / "shards", Model.load(plain), stop_after=RUN.steps // 2)
        shutil.copytree(folder / "run", place / "run")
        finished = continue_run(place / "run", folder / "shards", Model.load(plain))
    found: dict[str, Any] = {name: answers(Model.load(model)) for name, model in models.items()}
    found["run"] = {**answers(finished), "weights": sums(finished)}
    shutil.rmtree(folder / "run/tensorboard", ignore_errors=True)
    shutil.rmtree(recordings())
    (folder / "answers.json").write_text(in_lines(found), encoding="utf-8")
    for model in list(models.values())[1:]:
        for path in sorted(model.rglob("*"), reverse=True):
            original = plain / path.relative_to(model)
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and original.is_file() and path.read_bytes() == original.read_bytes():
                path.unlink()


def in_lines(found: dict[str, Any]) -> str:
    """JSON with a line for each answer."""
    models = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in answer.items())
        + "\n}"
        for name, answer in found.items()
    ]
    return "{\n" + ",\n".join(models) + "\n}\n"


def sums(model: Model) -> list[float]:
    """A number for each of the decoder's weights, that hardly depends on the machine."""
    return [float(np.round(value.detach().double().abs().sum().item(), 4)) for value in model.decoder.parameters()]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    sys.exit(0)
