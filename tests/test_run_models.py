"""What a run can do while it trains: checkpoints of every kind of run as models, and scores of held-out examples.

Run alone with `pytest tests/test_run_models.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.support.command import check_refusal, refused, unitok, works, write_rows
from tests.support.launching import ranks
from tests.support.recordings import write_pairs
from tests.support.tiny_model import model_folder, tiny_model, tokenizers
from tests.test_formats import compare, json_keys
from tests.test_trainer_validation import VALIDATED, run
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json
from unitok_training.checkpoint.files import best_checkpoint, is_checkpoint, list_checkpoints
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.run import Evaluation
from unitok_training.evaluation.tokens import put_token_scores, token_documents
from unitok_training.recipes.decoder import load_recipe
from unitok_training.run_models.checkpoint import model_at, model_of
from unitok_training.shard_set import RECORD, reopened
from unitok_training.train import teacher_of, train_model
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.metrics import VALIDATION_FILE, named, read_metrics
from unitok_training.trainer.setup import HeldOutScorer, Score

SMALL = ("steps=4", "pack_size=512", "window=64", "log_every=2", "checkpoint_every=2")
VALIDATE = ("eval_every=2", "eval_batches=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with held-out rows, its shards, tokenizers and a model."""
    place = tmp_path_factory.mktemp("runs")
    manifest = write_pairs(place)
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    rows += [{**row, "id": f"{row['id']}d", "split": "dev"} for row in rows if row["split"] == "train"]
    write_rows(manifest, rows)
    tokenizers().save(place / "tokenizers")
    model_folder(place / "model")
    works("prepare", manifest, place / "shards", "--tokenizers", place / "tokenizers")
    return place


def sets(*changes: str) -> tuple[str, ...]:
    return tuple(
        part for one in changes for part in ("--set", one if one.startswith(("mix", "tun", "mod")) else f"train.{one}")
    )


def train(root: Path, out: Path, *changes: str) -> tuple[object, ...]:
    given = ("--shards", root / "shards", "--tokenizers", root / "tokenizers", "-o", out)
    return ("train", "tiny", *given, *sets(*SMALL, "mixture.mt=1", "mixture.tts.codes=1", *changes))


def train_latent(root: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("train-latent", "tiny", root / "m.jsonl", "-o", out, "--limit", "2", *sets(*SMALL), *more)


def weights(model: Model) -> dict[str, torch.Tensor]:
    assert model.latent is not None
    front = {f"latent.{name}": value for name, value in model.latent.state_dict().items()}
    return {**model.decoder.state_dict(), **front}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# -- checkpoints as models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [False, True])
def test_a_checkpoint_of_a_latent_run_is_the_model_that_it_would_have_written(
    starts: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing, and from a model with a frozen encoder and low-rank updates, by relative paths."""
    monkeypatch.chdir(root)
    given: tuple[object, ...] = ()
    if starts:
        tuned = ("tuning.encoder.full=false", "tuning.decoder.full=false", "tuning.decoder.lora_rank=2")
        given = ("--start", "model", *sets(*tuned))
    works(*train_latent(Path(), tmp_path / "run", *given))
    first, last = list_checkpoints(tmp_path / "run/checkpoints")
    monkeypatch.chdir(tmp_path)
    written, found = Model.load(tmp_path / "run/model"), model_at(last)
    assert same(weights(found), weights(written)) and not same(weights(model_at(first)), weights(written))
    assert found.limits == written.limits and found.languages == written.languages and found.info == written.info
    shutil.move(tmp_path / "run", tmp_path / "moved")
    asked = (root / "m.jsonl", "--limit", "2")
    scored = [json.loads(works("evaluate", tmp_path / "moved" / name, *asked)) for name in ("checkpoints", "model")]
    assert scored[0] == scored[1] and {"asr"} <= scored[0].keys()
    compare("origin.json", json_keys(tmp_path / "moved/origin.json"), missing=("streams.<kind>",))


def test_a_latent_checkpoint_whose_start_is_another_one_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "model", tmp_path / "start")
    works(*train_latent(root, tmp_path / "run", "--start", tmp_path / "start", *sets("steps=1")))
    where = tmp_path / "run/checkpoints"
    refused(*train_latent(root, tmp_path / "two", "--start", where), saying="name one of them")
    works(*train_latent(root, tmp_path / "two", "--start", where / "step_00000001", *sets("steps=1")))
    assert weights(model_at(tmp_path / "two/checkpoints")).keys() == weights(model_of(where)).keys()
    model = Model.load(tmp_path / "start")
    model.vocabulary = model.vocabulary.append_language("fr")
    shutil.rmtree(tmp_path / "start")
    refused("evaluate", where, root / "m.jsonl", saying=str(tmp_path / "start"))
    model.save(tmp_path / "start")
    refused("evaluate", where, root / "m.jsonl", saying=("another vocabulary", tmp_path / "start"))
    origin = read_json(tmp_path / "two/origin.json")
    (tmp_path / "two/origin.json").write_text(json.dumps({**origin, "learns_from": "dreams"}), encoding="utf-8")
    refused("evaluate", tmp_path / "two/checkpoints", root / "m.jsonl", saying=("dreams", "later version"))


def test_a_run_stands_for_its_newest_checkpoint_wherever_a_model_is_named(root: Path, tmp_path: Path) -> None:
    works(*train(root, tmp_path / "run"))
    assert is_checkpoint(tmp_path / "run") and not is_checkpoint(tmp_path / "run/model")
    newest = list_checkpoints(tmp_path / "run/checkpoints")[-1]
    named = (tmp_path / "run", tmp_path / "run/checkpoints", newest, tmp_path / "run/model")
    first, *rest = (model_of(path).decoder.state_dict() for path in named)
    assert all(torch.equal(value, one[name]) for one in rest for name, value in first.items())
    recipe = load_recipe("tiny", [f"distill.teacher={tmp_path / 'run'}"])
    teacher = teacher_of(recipe)
    assert teacher is not None and teacher.decoder.config == model_of(newest).decoder.config
    with pytest.raises(InputError, match="no model directory"):
        model_of(tmp_path)


def test_a_checkpoint_is_exported_as_its_model_is(root: Path, tmp_path: Path) -> None:
    works(*train(root, tmp_path / "run"))
    works("export", tmp_path / "run/checkpoints/step_00000004", tmp_path / "one")
    works("export", tmp_path / "run/model", tmp_path / "other")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    files.remove(Path("unitok/unitok.json"))  # its tasks stand in another order
    assert Path("model.safetensors") in files
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)


def test_shards_of_a_run_are_found_from_anywhere(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(root, tmp_path / "a", ignore=shutil.ignore_patterns("*.wav"))
    monkeypatch.chdir(tmp_path / "a")
    works(*train(Path(), Path("runs/one"), "steps=2"))
    monkeypatch.chdir(tmp_path)
    (noted,) = read_json(tmp_path / "a/runs/one" / RECORD)["folders"]
    assert noted["path"] == "shards" and noted["absolute"] == str(tmp_path / "a/shards")
    assert reopened(Path("a/runs/one")).name == str(tmp_path / "a/shards")
    model_at(tmp_path / "a/runs/one/checkpoints")
    (tmp_path / "shards").mkdir()  # others of that name
    shutil.copy(tmp_path / "a/shards/manifest.json", tmp_path / "shards/manifest.json")
    kept = json.loads((tmp_path / "shards/manifest.json").read_text(encoding="utf-8"))
    kept["files"] = []
    (tmp_path / "shards/manifest.json").write_text(json.dumps(kept), encoding="utf-8")
    (tmp_path / "a").rename(tmp_path / "b")  # all together
    assert reopened(tmp_path / "b/runs/one").name == str(tmp_path / "b/shards")
    record = tmp_path / "b/runs/one" / RECORD
    told = read_json(record)
    del told["folders"][0]["absolute"]  # of an earlier version
    record.write_text(json.dumps(told), encoding="utf-8")
    assert reopened(tmp_path / "b/runs/one").name == str(tmp_path / "b/shards")
    (tmp_path / "b/shards").rename(tmp_path / "elsewhere")
    told["folders"][0]["absolute"] = str(tmp_path / "b/shards")
    record.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(InputError, match="no longer at .*b/shards: put them back"):
        reopened(tmp_path / "b/runs/one")


# -- scores of held-out examples ----------------------------------------------------------------------------------


def test_scores_change_nothing_and_are_those_of_evaluate(root: Path, tmp_path: Path) -> None:
    works(*train(root, tmp_path / "with", *VALIDATE, "eval_examples=3"))
    works(*train(root, tmp_path / "without"))
    kept = [read_checkpoint(tmp_path / name / "checkpoints/step_00000004") for name in ("with", "without")]
    assert same(kept[0].model, kept[1].model) and same(kept[0].optimizer, kept[1].optimizer)
    assert same(kept[0].rng, kept[1].rng)
    assert Model.load(tmp_path / "with/model").limits == Model.load(tmp_path / "without/model").limits
    rows = read_metrics(tmp_path / "with" / VALIDATION_FILE)
    asked = (root / "shards", "--split", "dev", "--limit", "3")
    for row, path in zip(rows, list_checkpoints(tmp_path / "with/checkpoints"), strict=True):
        found = json.loads(works("evaluate", path, *asked))
        assert row["scores"]["asr"] == found["asr"] and row["scores"]["mt"] == found["mt"]
        by_hand = Evaluation(model=model_at(path), shards=reopened(tmp_path / "with").folders[0].shards, split="dev")
        for key in ("tts.units", "tts.codes"):
            put_token_scores(by_hand, key, token_documents(by_hand, key, by_hand.shards, 3))
        assert row["scores"]["tokens"] == by_hand.metrics["tokens"]
    assert rows[0]["scores"] != rows[1]["scores"]


def test_scores_of_a_latent_run_change_nothing_and_are_those_of_evaluate(root: Path, tmp_path: Path) -> None:
    more = sets("mixture.mt=1")
    works(*train_latent(root, tmp_path / "with", *more, *sets(*VALIDATE, "eval_examples=3")))
    works(*train_latent(root, tmp_path / "without", *more))
    assert same(weights(Model.load(tmp_path / "with/model")), weights(Model.load(tmp_path / "without/model")))
    rows = read_metrics(tmp_path / "with" / VALIDATION_FILE)
    asked = (root / "m.jsonl", "--split", "dev", "--limit", "3")
    for row, path in zip(rows, list_checkpoints(tmp_path / "with/checkpoints"), strict=True):
        assert row["scores"] == json.loads(works("evaluate", path, *asked))
        assert row["scores"]["asr"]["rows"] == 3


@pytest.mark.parametrize(("layout", "layers"), [("depth", "depth_layers"), ("first_nar", "second_layers")])
def test_codes_beside_ids_are_scored_in_half_precision_and_change_nothing(
    layout: str, layers: str, root: Path, tmp_path: Path
) -> None:
    """By the weights that are rounded; the layout of `first_nar` has none at all."""
    given = ("precision=bf16-pure", f"model.layout={layout}", f"model.{layers}=1")
    works(*train(root, tmp_path / "with", *given, *VALIDATE, "eval_examples=2"))
    works(*train(root, tmp_path / "without", *given))
    kept = [read_checkpoint(tmp_path / name / "checkpoints/step_00000004") for name in ("with", "without")]
    assert same(kept[0].model, kept[1].model) and same(kept[0].optimizer, kept[1].optimizer)
    for row in read_metrics(tmp_path / "with" / VALIDATION_FILE):
        assert {"asr", "mt", "tokens"} <= row["scores"].keys() and "codes" in row["scores"]["tokens"]["tts"]


def test_what_is_not_scored_is_refused(root: Path, tmp_path: Path) -> None:
    scored = (*VALIDATE, "eval_examples=2")
    message = refused(*train(root, tmp_path / "run", *scored, "best_by=asr.bleu"), saying="'asr.bleu'")
    for name in ("loss", "asr.wer", "mt.bleu", "tokens.tts.codes.token_accuracy"):
        assert name in message
    refused(*train(root, tmp_path / "run", *VALIDATE, "best_by=asr.wer"), saying="train.eval_examples too")
    refused(*train(root, tmp_path / "run", "eval_examples=2"), saying="train.eval_every")
    refused(*train(root, tmp_path / "run", *scored, "shard=true"), saying=("train.shard", "unitok evaluate"))
    assert not (tmp_path / "run/checkpoints").exists()
    ended = unitok(*train_latent(root, tmp_path / "run", *sets(*scored, "best_by=mt.bleu")))
    check_refusal(ended, "'mt.bleu'", "loss, asr.wer")


@pytest.mark.slow
def test_two_processes_score_what_one_does(root: Path, tmp_path: Path) -> None:
    changes = (*VALIDATE, "eval_examples=2", "packs_per_step=2", "best_by=tokens.tts.codes.token_accuracy")
    works(*train(root, tmp_path / "one", *changes))
    done = ranks(["-m", "unitok", *map(str, train(root, tmp_path / "two", *changes))], 2)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (read_metrics(tmp_path / name / VALIDATION_FILE) for name in ("one", "two"))
    assert len(one) == len(two) == 2 and [row["best_step"] for row in one] == [row["best_step"] for row in two]
    for alone, shared in zip(one, two):
        key = "tokens.tts.codes.ppl"
        assert named(shared["scores"], key) == pytest.approx(named(alone["scores"], key), rel=1e-3)


# -- the best by a score ------------------------------------------------------------------------------------------


class Series(HeldOutScorer):
    """Scores that are known before."""

    def __init__(self, values: Iterator[float]) -> None:
        self.values = values

    @property
    def scores(self) -> list[Score]:
        return [Score(name="mt.bleu", higher=True), Score(name="asr.wer", higher=False)]

    def measure(self, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
        assert not modules["decoder"].training
        value = next(self.values)
        return {"mt": {"bleu": value}, "asr": {"wer": value}}


def scored(out: Path, values: tuple[float, ...], by: str, **changes: Any) -> list[int]:
    """Best step after each validation of a run whose scores are these."""
    stop = changes.pop("stop_after", None)
    fields = {"take_best": True, "keep_checkpoints": 1, "checkpoint_every": 1, "eval_examples": 1, **changes}
    config: TrainConfig = replace(VALIDATED, best_by=by, **fields)
    model = run(out, config, scorer=Series(iter(values)), stop_after=stop)
    best = best_checkpoint(out / "checkpoints")
    assert best is not None
    if stop is None:
        kept = read_checkpoint(best).model
        assert all(torch.equal(value, kept[name]) for name, value in model.named_parameters())
    return [row["best_step"] for row in read_metrics(out / VALIDATION_FILE)]


def test_the_best_is_told_by_a_score_that_may_be_high_or_low(tmp_path: Path) -> None:
    assert scored(tmp_path / "high", (1.0, 7.0, 7.0, 3.0), "mt.bleu") == [2, 4, 4, 4]
    assert scored(tmp_path / "low", (1.0, 0.5, 0.25, 0.5), "asr.wer") == [2, 4, 6, 6]
    assert scored(tmp_path / "none", (float("nan"), 0.5, float("inf"), 0.4), "asr.wer") == [2, 4, 4, 8]
    rows = read_metrics(tmp_path / "none" / VALIDATION_FILE)
    assert [row["scores"]["asr"]["wer"] for row in rows] == [None, 0.5, None, 0.4]
    ended = scored(tmp_path / "ends", (3.0, 2.0, 1.0, 9.0), "mt.bleu", patience=2)
    assert ended == [2, 2, 2], "two validations that were no better end it"


def test_a_run_that_stopped_remembers_the_best_by_its_score(tmp_path: Path) -> None:
    scored(tmp_path, (5.0, 2.0), "mt.bleu", stop_after=5)
    state = read_json(list_checkpoints(tmp_path / "checkpoints")[-1] / "state.json")
    assert {**state["best"], "loss": 0} == {"step": 2, "loss": 0, "worse": 1, "by": "mt.bleu", "score": 5.0}
    assert scored(tmp_path, (4.0, 3.0), "mt.bleu") == [2, 2, 2, 2]


@pytest.mark.parametrize("change", [{"by": "asr.wer"}, {"eval_examples": 2}])
def test_a_best_by_something_else_is_none(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(tmp_path, (5.0, 2.0), "mt.bleu", stop_after=5)
    assert scored(tmp_path, (4.0, 4.5), change.pop("by", "mt.bleu"), **change)[2] == 6
    assert "is sought anew from here" in capsys.readouterr().out


# -- what a run is begun from, and where -------------------------------------------------------------------------------


def test_a_run_is_not_continued_behind_another_start(root: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        model = tiny_model()
        torch.manual_seed(seed)
        model.decoder.embedding.data += 0.1 * torch.randn_like(model.decoder.embedding)
        model.save(tmp_path / name)
    given = ("train", "tiny", "--shards", root / "shards", "-o", tmp_path / "run", *sets(*SMALL, "mixture.mt=1"))
    latent = train_latent(root, tmp_path / "latent")
    for command in (given, latent):
        works(*command, "--start", tmp_path / "a")
        refused(*command, "--start", tmp_path / "b", saying=("other weights of its start", "--allow-change start"))
        works(*command, "--start", tmp_path / "a")
    refused(*given, "--tokenizers", root / "tokenizers", saying=("other weights of its start", "none"))
    Model.load(tmp_path / "b").save(tmp_path / "a")  # trained on in its place
    refused(*given, "--start", tmp_path / "a", saying=("other weights of its start",))
    refused("evaluate", tmp_path / "latent" / "checkpoints", root / "m.jsonl", saying=("other weights than when",))
    works(*given, "--start", tmp_path / "a", "--allow-change", "start")


def test_a_training_writes_over_nothing_that_is_not_its_own(root: Path, tmp_path: Path) -> None:
    given = ("train", "tiny", "--shards", root / "shards", "--tokenizers", root / "tokenizers", *sets("steps=1"))
    for name in ("model", "metrics.jsonl", "recipe.json", "tokenizers"):
        place = tmp_path / name
        place.mkdir()
        (place / name).mkdir() if "." not in name else (place / name).write_text("mine")
        refused(*train_latent(root, place), saying=(name, "would be lost"))
        if name != "tokenizers":
            refused(*given, "-o", place, saying=(name, "would be lost"))
        assert [one.name for one in place.iterdir()] == [name]


def test_scores_of_a_latent_model_leave_out_what_its_start_does_on_tokens(root: Path, tmp_path: Path) -> None:
    model = tiny_model()
    model.info = {"tasks": ["asr", "tts", "asr.codes"]}
    model.save(tmp_path / "start")
    works(*train_latent(root, tmp_path / "run", "--start", tmp_path / "start"))
    assert "asr.codes" in Model.load(tmp_path / "run" / "model").info["tasks"]
    found = works("evaluate", tmp_path / "run" / "model", root / "m.jsonl", "--limit", "2")
    assert "asr" in json.loads(found[found.index("{") :])
    with pytest.warns(UserWarning, match="without its latent front end"):
        train_model(
            replace(load_recipe("tiny", [f"train.{one}" for one in SMALL]), mixture=Mixture(tasks={"mt": 1.0})),
            shards=root / "shards", start=tmp_path / "run" / "model", out=tmp_path / "on",
        )  # fmt: skip
    again = Model.load(tmp_path / "on" / "model")
    assert again.latent is None and not any(one.startswith("latent.") for one in again.info["tasks"])


def test_a_front_end_that_is_kept_is_not_called_another(root: Path, tmp_path: Path) -> None:
    """A start has its own encoder: what else a recipe names would change nothing and be written down as true."""
    works(*train_latent(root, tmp_path / "first", "--start", root / "model"))
    start, judge = ("--start", tmp_path / "first/model"), root / "model/tokenizers/units"
    named = sets("steps=1", "tuning.encoder.full=false")
    for change in (("encoder.kind=pretrained", f"encoder.folder={judge}"), ("encoder.layer=1",)):
        more = [part for one in change for part in ("--set", one)]
        refused(*train_latent(root, tmp_path / "second", *start, *named, *more), saying="has an encoder of its own")
    match = ("--set", "adapter.match_scale=true")
    refused(*train_latent(root, tmp_path / "second", *start, *match), saying=("match_scale", "leave it out"))
    works(*train_latent(root, tmp_path / "second", *start))


def test_a_checkpoint_is_not_opened_behind_an_encoder_that_has_changed(root: Path, tmp_path: Path) -> None:
    judge = tmp_path / "judge"
    shutil.copytree(root / "model/tokenizers/units", judge)
    given = ("encoder.kind=pretrained", f"encoder.folder={judge}", "tuning.encoder.full=false")
    more = [part for one in given for part in ("--set", one)]
    works(*train_latent(root, tmp_path / "run", *more))
    newest = tmp_path / "run/checkpoints"
    works("evaluate", newest, root / "m.jsonl")
    file = next(judge.rglob("*.safetensors"))
    tensors = load_file(file)
    save_file({name: value + 1 if value.is_floating_point() else value for name, value in tensors.items()}, file)
    refused("evaluate", newest, root / "m.jsonl", saying=("other weights than when this run was begun with it",))


def test_scores_of_a_latent_run_with_a_frozen_encoder_are_those_of_float32_weights(root: Path, tmp_path: Path) -> None:
    changes = sets("precision=bf16", "steps=2", "log_every=2", "eval_every=2", "eval_batches=1", "eval_examples=2")
    still = ("--set", "tuning.encoder.full=false")
    works(*train_latent(root, tmp_path / "run", "--start", root / "model", *changes, *still))
    found = read_metrics(tmp_path / "run" / VALIDATION_FILE)[-1]["scores"]
    numbers = [value for one in found.values() for value in one.values() if isinstance(value, float)]
    assert numbers and bool(torch.isfinite(torch.tensor(numbers)).all())
