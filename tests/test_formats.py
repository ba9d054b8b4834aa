"""docs/formats.md names exactly the files, fields, dtypes and shapes that are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tests.support.tiny_ears import tiny_ears
from tests.support.tiny_model import RATE, WORDS, tiny_model, tokenizers
from tests.test_docs import write_recordings
from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.lora import LoraConfig, add_lora
from unitok.decoder.moe import MixtureConfig, expand
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.frontends.adapters.base import AdapterSizes
from unitok.frontends.adapters.registry import make_adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.model import Model
from unitok.nbest.lists import NBest, Recording, read_lists, write_lists
from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import COLUMNS, Shards
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TrunkConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_tokenizers.text.huggingface import HostText
from unitok_training.evaluation.asr_scorer import AsrScorer
from unitok_training.evaluation.evaluate import evaluate
from unitok_training.evaluation.run import Evaluation
from unitok_training.experiments.demo.plan import PLAN, DemoOptions, plan_demo
from unitok_training.experiments.demo.splits import corpus_figures
from unitok_training.experiments.demo.stages import training_summary, write_report
from unitok_training.fitting.ctc import CtcConfig
from unitok_training.recipes.decoder import DecoderRecipe, load_recipe
from unitok_training.runs.stage_graph import COMPUTE, WALL, StageRecord
from unitok_training.train import train_model
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.vocoder import Vocoder

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "formats.md"


@dataclass(frozen=True)
class Table:
    """The section of one file."""

    header: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    """First column without backticks → the other columns."""


def sections(text: str) -> dict[str, Table]:
    """Heading `### `file`` → its table, empty where there is none."""
    found: dict[str, Table] = {}
    parts = re.split(r"(?m)^### `([^`]+)`.*$", text)
    for name, body in zip(parts[1::2], parts[2::2]):
        body = re.split(r"(?m)^## ", body)[0]
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.split("\n") if line.startswith("|")]
        cells = [tuple(cell.strip() for cell in line) for line in lines]
        rows = {row[0].strip("`"): row[1:] for row in cells[2:]}
        assert len(rows) == len(cells[2:]), f"{name} documents a field twice"
        found[name] = Table(cells[0] if cells else (), rows)
    return found


DOCUMENTED = sections(DOCUMENT.read_text(encoding="utf-8"))


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    """Paths of the values in JSON, in the notation of the document."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from keys(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from keys(inner, f"{prefix}[]")
    elif value not in ({}, []) or not prefix:
        yield prefix


def pattern(name: str) -> re.Pattern[str]:
    """`a.<x>` matches every key below `a`."""
    return re.compile("".join(".+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<\w+>)", name)))


def compare(file: str, written: set[str], *, missing: tuple[str, ...] = ()) -> None:
    """Fail where a key is written and not documented, or documented and not written (but for `missing`)."""
    documented = DOCUMENTED[file].rows
    loose = [key for key in written if not any(pattern(name).fullmatch(key) for name in documented)]
    assert loose == [], f"{file} is written with fields that {DOCUMENT.name} does not name"
    absent = {name for name in documented if not any(pattern(name).fullmatch(key) for key in written)}
    assert absent == set(missing), f"{DOCUMENT.name} names fields that {file} is not written with"


def json_keys(*paths: Path) -> set[str]:
    return {key for path in paths for key in keys(json.loads(path.read_text(encoding="utf-8")))}


def compare_tensors(file: str, path: Path, sizes: dict[str, int], *, missing: tuple[str, ...] = ()) -> None:
    """Names, dtypes and shapes of a safetensors file."""
    with safe_open(path, "pt") as tensors:
        found = {name: tensors.get_slice(name) for name in tensors.keys()}
    compare(file, set(found), missing=missing)
    for name, tensor in found.items():
        (dtype, shape, _), *_ = [row for key, row in DOCUMENTED[file].rows.items() if pattern(key).fullmatch(name)]
        assert tensor.get_dtype() == dtype, f"{file}: {name}"
        assert tuple(tensor.get_shape()) == eval(shape, {}, sizes), f"{file}: {name} is documented as {shape}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything: shards, a run with its checkpoint, a model that speaks, a judge."""
    place = tmp_path_factory.mktemp("formats")
    (place / "my").mkdir()
    write_recordings(place / "my")
    rows = read_manifest(place / "my/metadata.jsonl")
    shards = prepare_shards(rows, tokenizers(), place / "shards")
    tokenizers().save(place / "tokenizers")
    sizes = [
        "train.steps=2",
        "train.log_every=1",
        "curriculum.asr=0.5",
        "decoder.attention_bias=true",
        "decoder.tied=false",
    ]
    train_model(load_recipe("tiny", sizes), shards=place / "shards", tokenizers=place / "tokenizers", out=place / "run")
    mel = MelVocoder(MelVocoderConfig(width=16, blocks=1), MelConfig()).eval()
    model = tiny_model()
    assert model.vocoder is not None
    speaking = Vocoder(mel, model.vocoder.units, model.vocoder.voices)
    tiny_model(vocoder=speaking, info={"tasks": list(TOKEN_VARIANTS)}).save(place / "model")
    chosen = [row for row in rows if row.split == "train"][:6]
    judge = AsrScorer.train(
        [row.load(RATE) for row in chosen],
        [row.text or "" for row in chosen],
        ["anna", "karl"] * 3,
        CtcConfig(steps=1),
    )
    (place / "judge").mkdir()
    judge.save(place / "judge")
    assert len(shards) == len(rows)
    return place


def test_every_file_that_is_written_is_documented(root: Path) -> None:
    known = {*DOCUMENTED, "tensorboard"}
    for folder in ("tokenizers", "shards", "run", "model", "judge"):
        for path in (root / folder).rglob("*"):
            name = re.sub(r"part-\d+", "part-00000", path.relative_to(root).as_posix())
            name = name.replace("codes/units/", "units/").replace("judge/", "judge/units/encoder/", 1)
            fits = [one for one in known if name.endswith(f"/{one}") or f"/{one}/" in f"/{name}"]
            fits += [one for one in known if one.startswith("speakers") and path.name == one]
            assert path.is_dir() or fits, f"{path.relative_to(root)} has no section in {DOCUMENT.name}"


def test_manifest_columns() -> None:
    source = (DOCUMENT.parents[1] / "tokenizers/unitok_tokenizers/data/manifest.py").read_text(encoding="utf-8")
    read = set(re.findall(r'value(?:\.get\(|\[)"(\w+)"|_field\(value, "(\w+)"', source))
    columns = {one or other for one, other in read} | {"units", "codes"}
    assert set(DOCUMENTED["manifest.jsonl"].rows) == columns


def test_tokenizers(root: Path, tmp_path: Path) -> None:
    bundle = root / "tokenizers"
    words = {word: index for index, word in enumerate(dict.fromkeys(WORDS))}
    HostText(Tokenizer(WordLevel(words, unk_token="the")).to_str(), {"bos": 1}).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "tokenizer.json"}
    compare("text/config.json", json_keys(bundle / "text/config.json", tmp_path / "config.json"))
    compare("units/config.json", json_keys(bundle / "units/config.json"))
    compare("units/encoder/config.json", json_keys(bundle / "units/encoder/config.json"))
    compare("codes/config.json", json_keys(bundle / "codes/config.json"), missing=("name", "config.<field>"))
    compare_tensors("units/centroids.safetensors", bundle / "units/centroids.safetensors", {"K": 12, "W": 16})


def test_shards(root: Path) -> None:
    shards = root / "shards"
    compare("manifest.json", json_keys(shards / "manifest.json"), missing=("skipped.<reason>", "streams[].merged_from"))
    compare("part-00000.arrow.json", json_keys(shards / "part-00000.arrow.json"), missing=("skipped.<reason>",))
    with pyarrow.memory_map(str(shards / "part-00000.arrow")) as source:
        schema = pyarrow.ipc.open_stream(source).schema
    documented = {name: row[0] for name, row in DOCUMENTED["part-00000.arrow"].rows.items()}
    assert documented == {field.name: str(field.type) for field in schema}
    assert set(COLUMNS) <= set(documented)


def test_recipe(root: Path) -> None:
    compare("recipe.json", json_keys(root / "run/recipe.json"), missing=("plans.dropped_conditions[]",))
    compare("shards.json", json_keys(root / "run/shards.json"), missing=("folders[].tasks[]",))
    latent = (
        "manifest",
        "languages[]",
        "text_per_vector",
        "encoder",
        "beside",
        "encoder_weights",
        "beside_weights",
    )  # tests/test_run_models.py
    compare("origin.json", json_keys(root / "run/origin.json"), missing=("streams.<kind>", *latent))
    DecoderRecipe(name="x").save(root / "plain.json")
    plain = json.loads((root / "plain.json").read_text(encoding="utf-8"))
    for name, (_, default, _) in DOCUMENTED["recipe.json"].rows.items():
        if default:
            value = plain
            for part in name.removesuffix("[]").split("."):
                value = value[part]
            assert json.loads(default.strip("`")) == value, f"default of {name}"


def test_checkpoint(root: Path) -> None:
    step = root / "run/checkpoints/step_00000002"
    config = load_recipe("tiny").decoder.config(tokenizers().vocabulary(["de", "en"]).size)
    sizes = dict(
        V=config.vocab_size, C=config.width, H=config.heads, G=config.kv_heads, D=config.head_dim, I=config.ffn_dim
    )
    compare_tensors("step_00000002/model.safetensors", step / "model.safetensors", sizes)
    compare_tensors("step_00000002/rng.safetensors", step / "rng.safetensors", {})
    laid = ("settings.layout.<field>", "settings.second_pass.<field>")
    best = ("best.step", "best.loss", "best.by", "best.score", "best.worse")  # of a run that validates
    compare("step_00000002/state.json", json_keys(step / "state.json"), missing=(*best, *laid))
    with safe_open(step / "optimizer.safetensors", "pt") as tensors:
        assert {name.split("|")[1] for name in tensors.keys()} == {"exp_avg", "exp_avg_sq", "step"}
    rare = ("<term>_loss", "bits_per_second.<stream>", "learning_rate.<part>")  # of more parts, of codes
    for row in (root / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines():
        compare("metrics.jsonl", set(keys(json.loads(row))), missing=rare)


def test_model_directory(root: Path) -> None:
    model = root / "model"
    compare("unitok.json", json_keys(model / "unitok.json"), missing=("elsewhere[]",))  # it has tokenizers for all
    rare = ("mains.<kind>", "streams[].merged_from", "patterns[].<field>")  # it has one of each kind, and flat
    compare("vocabulary.json", json_keys(model / "vocabulary.json"), missing=rare)
    for name in ("config.json", "generation_config.json"):
        scaled = ("rope_scaling.<field>",) if name == "config.json" else ()  # of imported models
        compare(f"core/{name}", json_keys(model / "core" / name), missing=scaled)
    trained = load_recipe("tiny").decoder.config(tokenizers().vocabulary(["de", "en"]).size)
    sizes = dict(V=trained.vocab_size, C=64, H=2, G=1, D=trained.head_dim, I=trained.ffn_dim)
    compare_tensors("core/model.safetensors", root / "run/model/core/model.safetensors", sizes)
    compare_tensors("voices.safetensors", model / "voices.safetensors", {"F": 10, "Q": 3})


def test_latent_modules(tmp_path: Path) -> None:
    model = tiny_model()
    encoder = ConformerEncoder(TrunkConfig(width=16, layers=1, heads=2, inner=16))
    add_lora(encoder, LoraConfig(rank=2))
    sizes = AdapterSizes(frames=16, vectors=32)
    add_lora(model.decoder, LoraConfig(rank=2))
    adapter = make_adapter("transformer", sizes)
    add_lora(adapter, LoraConfig(rank=2))
    replace(model, latent=LatentFrontEnd(encoder, adapter)).save(tmp_path / "model")
    for name in ("modules/latent.json", "modules/lora.json"):
        compare(name, json_keys(tmp_path / "model" / name))


def test_parts_beside_the_decoder(tmp_path: Path) -> None:
    model = tiny_model()
    model.parts = {
        "noise_vector": NoiseVector(NoiseVectorConfig(width=32)),
        "cross_attention": CrossAttentionAdapter(CrossAttentionConfig(frames=4, size=8), model.decoder.config),
        "frame_encoder": ConformerEncoder(TrunkConfig(width=16, layers=1, heads=2, inner=16)),
    }
    config = model.decoder.config
    replace(model, decoder=expand(model.decoder, MixtureConfig(experts=3, chosen=2))).save(tmp_path / "model")
    for name in ("noise_vector", "cross_attention", "frame_encoder", "mixture"):
        compare(f"modules/{name}.json", json_keys(tmp_path / f"model/modules/{name}.json"))
    path = tmp_path / "model/modules/mixture.safetensors"
    compare_tensors("modules/mixture.safetensors", path, {"X": 3, "C": config.width, "I": config.ffn_dim})


def test_lists(tmp_path: Path) -> None:
    """What is written is documented, the examples are read, and the defaults are those of the table."""
    one = NBest(
        id="a", lang="en", target="de", reference="r", hypotheses=(Transcript(text="t", logprob=-1.0, tokens=2),),
        recording=Recording(id="b", snr=5.0, seed=1),
    )  # fmt: skip
    write_lists(tmp_path / "l.jsonl", [one])
    written = json.loads((tmp_path / "l.jsonl").read_text(encoding="utf-8"))
    compare("lists.jsonl", set(keys(written)), missing=("hypotheses[]",))
    section = DOCUMENT.read_text(encoding="utf-8").partition("### `lists.jsonl`")[2]
    (tmp_path / "e.jsonl").write_text(section.split("```jsonl\n")[1].split("```")[0], encoding="utf-8")
    scored, plain = read_lists(tmp_path / "e.jsonl")
    assert scored.split == "dev" and plain.split == "test" and plain.reference is None and plain.target is None
    assert plain.hypotheses == (Transcript(text="the dog", logprob=0.0, tokens=1), Transcript(text="a dog"))
    assert read_lists(tmp_path / "l.jsonl")[0] == one and plain.recording is None
    for line in ('{"id": "a", "lang": "en", "hypotheses": []}', '{"lang": "en", "hypotheses": ["x"]}', "[]"):
        (tmp_path / "bad.jsonl").write_text(f"\n{line}\n", encoding="utf-8")
        with pytest.raises(InputError, match="bad.jsonl:2: no n-best list"):
            read_lists(tmp_path / "bad.jsonl")


def test_vocoder_and_judge(root: Path) -> None:
    vocoder = root / "model/vocoder"
    for name in ("vocoder/config.json", "vocoder/units/config.json", "vocoder/mel/config.json"):
        compare(name, json_keys(root / "model" / name))
    compare_tensors("vocoder/voices.safetensors", vocoder / "voices.safetensors", {"E": 4})
    with safe_open(root / "judge/speakers.safetensors", "pt") as tensors:
        width = tensors.get_slice("mean").get_shape()[0]
    compare_tensors("speakers.safetensors", root / "judge/speakers.safetensors", {"X": width, "P": 2})
    assert json.loads((root / "judge/speakers.json").read_text(encoding="utf-8")) == ["anna", "karl"]


def test_figures(root: Path, tmp_path: Path) -> None:
    """Everything that an evaluation and a demo run say of a model that can do everything."""
    run = Evaluation(
        model=Model.load(root / "model"),
        shards=Shards.open(root / "shards"),
        judge=AsrScorer.load(root / "judge"),
        ears=tiny_ears(tmp_path / "ears"),
    )
    metrics = evaluate(run).metrics
    metrics["checkpoint"] = "0" * 64  # the demo's last stage adds these two
    row = Row(id="a", group="a", lang="en", text="the green house stands", split="train")
    metrics["corpus"] = corpus_figures([row, replace(row, split="test")])
    write_json(tmp_path / WALL, {"seconds": 1.0, "peak_bytes": 1})
    write_json(tmp_path / "evaluation.json", metrics)
    write_json(tmp_path / "pipeline.json", {"manifest": None, "languages": ["en"]})
    write_json(tmp_path / COMPUTE, resolve("cpu").to_json())
    (tmp_path / "train").symlink_to(root / "run")
    (tmp_path / "examples").mkdir()
    write_json(tmp_path / "examples/examples.json", [])
    write_report(tmp_path, {"corpus": StageRecord(key="k", seconds=1.0, peak_bytes=1)})
    assert np.isfinite(training_summary(root / "run")["padding_share"])
    # this model has tokenizers for all streams, and this corpus one voice that a level tells from silence
    elsewhere = (
        "tokens.<task>",
        "tokens.<task>.by_stream.<stream>",
        "not_scored.<task>",
        "ears.recordings.similarity_impostor",
    )
    # mixtures of such corpora are scored in test_evaluation_remaking.py
    elsewhere += tuple(name for name in DOCUMENTED["metrics.json"].rows if name.startswith(("se.", "tse.")))
    # what `--text-evals` adds is compared where it is written (test_evaluation_text.py)
    elsewhere += tuple(name for name in DOCUMENTED["metrics.json"].rows if name.startswith("text."))
    compare("metrics.json", json_keys(tmp_path / "metrics.json"), missing=elsewhere)
    compare("compute.json", json_keys(tmp_path / COMPUTE))


def test_plan(tmp_path: Path) -> None:
    plan = plan_demo(tmp_path, DemoOptions(size="S"), report=lambda line: None)
    measured = replace(plan, measurement={"ctc": 0.2}, seconds={"units": 70.0})
    measured.save(tmp_path / PLAN)
    compare("plan.json", json_keys(tmp_path / PLAN))


def test_a_wrong_document_is_noticed() -> None:
    """The comparison itself."""
    file = "units/config.json"
    compare(file, {"class", "name"})
    for written in ({"class"}, {"class", "name", "new"}):
        with pytest.raises(AssertionError):
            compare(file, written)
    assert set(keys({"a": {"b": [{"c": 1}], "d": []}, "e": None})) == {"a.b[].c", "e"}
    assert pattern("a.<x>").fullmatch("a.b.c") and not pattern("a.<x>").fullmatch("ab.c")
