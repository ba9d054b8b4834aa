"""Everything a user can get wrong is one message that says what, where and the remedy, and exit code 2.

`UNITOK_MESSAGES=FILE` collects the messages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile

from tests.support.command import COMMAND, Ended, Workshop, check_refusal, environment, refused, works, write_rows
from tests.support.tiny_model import RATE, model_folder, speech
from unitok_tokenizers.files import read_json, sha256_file, write_json
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


# -- manifests ----------------------------------------------------------------------------------------------------

GOOD = '{"text": "we buy two books now"}\n'
MANIFESTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("no rows", "write one")),
    "blank lines": (b"\n \n\n", ("no rows", "write one")),
    "not JSON": (GOOD.encode() + b"{nonsense\n", (":2:", "write one JSON object")),
    "cut short": (GOOD.encode() + b'{"text": "we b', (":2:", "not JSON")),
    "a list": (b"[1, 2]\n", (":1:", "list", "write {")),
    "nothing to use": (b'{"lang": "en"}\n', (":1:", "neither audio nor text")),
    "text of another type": (b'{"text": {"a": 1}}\n', (":1:", "text is {'a': 1}", "write a string")),
    "unknown language": (b'{"text": "a", "lang": "../e n"}\n', (":1:", "'../e n'", "write a code")),
    "negative offset": (b'{"audio": "0.wav", "offset": -1}\n', (":1:", "offset is -1", "0 or more")),
    "words upside down": (b'{"text": "a", "words": [["a", 2, 1]]}\n', (":1:", "words is", "rising")),
    "negative units": (b'{"units": [3, -1]}\n', (":1:", "units is [3, -1]", "none negative")),
    "id twice": (b'{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}\n', (":2:", "'x'", "line 1", "unique")),
    "extras": (b'{"text": "a", "extras": 3}\n', (":1:", "extras is 3", "JSON object")),
    "Latin-1": ("{'text': 'grün'}".encode("latin-1"), ("UTF-8",)),
    "a null in a path": (b'{"audio": "a\\u0000.wav"}\n', (":1:", "null character")),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_bad_manifest_names_its_line(name: str, shop: Workshop, tmp_path: Path) -> None:
    content, needles = MANIFESTS[name]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    refused("prepare", path, tmp_path / "out", "--tokenizers", shop.tokenizers, saying=(path, *needles))
    refused("fit-tokenizers", path, tmp_path / "out", saying=(path, *needles))
    assert not (tmp_path / "out").exists()


def test_missing_manifests(shop: Workshop, tmp_path: Path) -> None:
    here = ("--tokenizers", shop.tokenizers)
    refused("prepare", tmp_path / "no.jsonl", tmp_path / "out", *here, saying=("no manifest", "no.jsonl", "give"))
    refused("fit-tokenizers", tmp_path / "no.jsonl", tmp_path / "out", saying=("no manifest", "no.jsonl", "give"))
    refused("prepare", tmp_path, tmp_path / "out", *here, saying=("no manifest", tmp_path, "give"))
    refused("demo", "--manifest", tmp_path / "no.jsonl", "-o", tmp_path / "run", saying=("no.jsonl", "give"))


def test_bad_tables(shop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text("text\tlang\nwe buy\ten\ntwo\ten\tmore\n", encoding="utf-8")
    refused("prepare", path, tmp_path / "out", "--tokenizers", shop.tokenizers, saying=(f"{path}:3", "columns"))
    path.write_text("text\tlang\nwe buy\n", encoding="utf-8")
    refused("prepare", path, tmp_path / "out", "--tokenizers", shop.tokenizers, saying=(f"{path}:2", "columns"))


def test_bad_transcripts(shop: Workshop, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    refused("manifest", shop.root, lines, "-o", tmp_path / "m.jsonl", saying=("no transcript file", lines, "write"))
    refused("manifest", tmp_path / "no", lines, "-o", tmp_path / "m.jsonl", saying=("no folder", tmp_path / "no"))
    lines.write_text("0 we buy\n1\n", encoding="utf-8")
    refused("manifest", shop.root, lines, "-o", tmp_path / "m.jsonl", saying=(f"{lines}:2", "'1'", "write"))
    lines.write_text("nobody we buy\n", encoding="utf-8")
    refused("manifest", shop.root, lines, "-o", tmp_path / "m.jsonl", saying=("nobody", lines))
    lines.write_bytes("0 grün\n".encode("latin-1"))
    refused("manifest", shop.root, lines, "-o", tmp_path / "m.jsonl", saying=(lines, "UTF-8"))


# -- audio --------------------------------------------------------------------------------------------------------


def encoded(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> bytes:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path.read_bytes()


def bad_audio(kind: str, path: Path) -> Path:
    """A recording that cannot be used, beside `path`."""
    good = speech(1.0)
    match kind:
        case "missing":
            return path.with_name("nowhere.wav")
        case "a folder":
            path.mkdir()
        case "zero bytes":
            path.write_bytes(b"")
        case "text":
            path.write_text("this is no sound\n" * 50, encoding="utf-8")
        case "no samples":
            encoded(path, good[:0])
        case "header cut":
            path.write_bytes(encoded(path, good)[:20])
        case "WAV cut":
            path.write_bytes(encoded(path, good)[:-9000])
        case "FLAC cut" | "OGG cut":
            path = path.with_suffix(f".{kind.split()[0].lower()}")
            whole = encoded(path, speech(4.0))
            path.write_bytes(whole[: len(whole) // 2])
        case "NaN":
            encoded(path, np.where(np.arange(len(good)) == 999, np.nan, good), subtype="FLOAT")
        case "infinite":
            encoded(path, np.where(np.arange(len(good)) == 999, np.inf, good), subtype="FLOAT")
        case "absurdly loud":
            encoded(path, good * 1e9, subtype="FLOAT")
        case "absurd rate":
            encoded(path, good, rate=7)
    return path


AUDIO: dict[str, tuple[str, ...]] = {
    "missing": ("no audio file", "check the path"),
    "a folder": ("no audio file", "check the path"),
    "zero bytes": ("cannot read audio", "convert it"),
    "text": ("cannot read audio", "convert it"),
    "no samples": ("holds no samples", "mend the file"),
    "header cut": ("audio", ";"),
    "WAV cut": ("cut short", "copy the file again"),
    "FLAC cut": ("audio", ";"),
    "OGG cut": ("cut short", "copy the file again"),
    "NaN": ("not finite", "mend the file"),
    "infinite": ("not finite", "mend the file"),
    "absurdly loud": ("the value", "scale it"),
    "absurd rate": ("7 Hz", "give 1000"),
}


@pytest.mark.parametrize("kind", AUDIO)
def test_bad_audio_names_its_file_and_row(kind: str, shop: Workshop, tmp_path: Path) -> None:
    path = bad_audio(kind, tmp_path / "bad.wav")
    manifest = write_rows(tmp_path / "m.jsonl", [{"audio": path.name, "text": "we buy", "id": "seven"}])
    prepare = ("prepare", manifest, tmp_path / "out", "--tokenizers", shop.tokenizers)
    refused(*prepare, saying=("row seven", path, *AUDIO[kind]))
    refused("fit-tokenizers", manifest, tmp_path / "fit", "--encoder", "mfcc", saying=("row seven", path, *AUDIO[kind]))
    refused("generate", shop.model, path, "--task", "asr", "--lang", "en", saying=(path, *AUDIO[kind]))
    assert json.loads(works(*prepare, "--keep-going"))["skipped"] == {"unreadable": 1}


# -- languages and tasks ------------------------------------------------------------------------------------------


def test_unknown_languages_and_tasks(shop: Workshop, tmp_path: Path) -> None:
    wav = shop.root / "0.wav"
    refused("generate", shop.model, wav, "--task", "asr", "--lang", "xx", saying=("'xx'", "de, en"))
    refused(
        "generate", shop.model, wav, "--task", "s2tt", "--source", "en", "--target", "xx", saying=("'xx'", "de, en")
    )
    refused("demo", "--languages", "xx", "-o", tmp_path / "run", saying=("'xx'", "en"))
    refused("generate", shop.model, wav, "--task", "sing", "--lang", "en", saying=("'sing'", "asr", "--help"))
    refused(*shop.train(tmp_path / "r", "--set", "mixture.sing=1"), saying=("mixture.sing", "asr"))
    refused(*shop.train(tmp_path / "r", "--set", "mixture.asr.brass=1"), saying=("brass", "asr"))
    refused(*shop.train(tmp_path / "r", "--set", "mixture.only={s2st: 1}"), saying=("s2st", "rows"))


# -- shards -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(shop: Workshop, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shop.shards, tmp_path / "shards"))


def rewritten(shards: Path, change: object) -> None:
    """Change a shard's table and make the checksum fit, as somebody else's writer would."""
    path = shards / "part-00000.arrow"
    with pyarrow.OSFile(str(path)) as source:
        table = change(pyarrow.ipc.open_stream(source).read_all())  # type: ignore[operator]
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    manifest = read_json(shards / "manifest.json")
    manifest["files"][0]["sha256"] = sha256_file(path)
    write_json(shards / "manifest.json", manifest)


def reading(shop: Workshop, shards: Path, tmp_path: Path) -> list[tuple[object, ...]]:
    """Every command that reads shards."""
    return [
        ("inspect", shards),
        ("validate", shards),
        shop.train(tmp_path / "run", "--shards", shards),
        ("evaluate", shop.model, shards),
    ]


def test_a_flipped_byte_in_a_shard(shop: Workshop, shards: Path, tmp_path: Path) -> None:
    path = shards / "part-00000.arrow"
    for place in (0.01, 0.5, 0.99):
        data = bytearray((shop.shards / path.name).read_bytes())
        data[int(len(data) * place)] ^= 4
        path.write_bytes(bytes(data))
        for command in reading(shop, shards, tmp_path):
            refused(*command, saying=(path, "checksum", "prepare this folder again"))


def test_shards_cut_missing_and_not_ours(shop: Workshop, shards: Path, tmp_path: Path) -> None:
    path, manifest = shards / "part-00000.arrow", shards / "manifest.json"
    path.write_bytes(path.read_bytes()[:-100])
    for command in reading(shop, shards, tmp_path):
        refused(*command, saying=(path, "checksum", "prepare"))
    path.unlink()
    for command in reading(shop, shards, tmp_path):
        refused(*command, saying=(path.name, "missing", "unitok prepare"))
    shutil.copyfile(shop.shards / path.name, path)
    text = manifest.read_text(encoding="utf-8")
    for content, needle in (
        (text[: len(text) // 2], "JSON"),
        ("[]", "format None"),
        (text.replace('"format": 1', '"format": 99'), "format 99"),
        (text.replace('"streams"', '"strems"'), "streams"),
        (text.replace('"part-00000.arrow"', '"../part-00000.arrow"'), "leaves the folder"),
    ):
        manifest.write_text(content, encoding="utf-8")
        for command in reading(shop, shards, tmp_path):
            refused(*command, saying=(shards, needle))
    manifest.unlink()
    for command in reading(shop, shards, tmp_path):
        refused(*command, saying=("no shards", shards, "unitok prepare"))


def test_shards_of_another_schema(shop: Workshop, shards: Path, tmp_path: Path) -> None:
    rewritten(shards, lambda table: table.drop_columns(["speaker"]))
    for command in reading(shop, shards, tmp_path):
        refused(*command, saying=(shards, "'speaker' is missing", "prepare again"))
    shutil.copytree(shop.shards, shards, dirs_exist_ok=True)
    wide = pyarrow.list_(pyarrow.int64())
    rewritten(shards, lambda table: table.set_column(
        table.schema.get_field_index("units"), "units", table["units"].cast(wide)
    ))  # fmt: skip
    for command in reading(shop, shards, tmp_path):
        refused(*command, saying=(shards, "'units'", "int64", "prepare again"))
    shutil.copytree(shop.shards, shards, dirs_exist_ok=True)
    rewritten(shards, lambda table: table.slice(1))
    refused("validate", shards, saying=("3 rows", "4", "prepare again"))
    shutil.copytree(shop.shards, shards, dirs_exist_ok=True)
    far = pyarrow.array([[99999]] * 4, pyarrow.list_(pyarrow.int32()))
    rewritten(shards, lambda table: table.set_column(table.schema.get_field_index("units"), "units", far))
    refused("validate", shards, saying=("column units", "outside its tokenizer", "prepare again"))
    refused(*shop.train(tmp_path / "run", "--shards", shards), saying=("'units'", "99999", "prepare again"))


def test_shards_of_another_vocabulary(shop: Workshop, tmp_path: Path) -> None:
    own = TokenizerSet.load(shop.tokenizers)
    text = SentencePieceText.train(["completely different words are read here every other day"] * 20, 300)
    TokenizerSet.of(text, own.unit_tokenizer, own.codec).save(tmp_path / "other")
    works("prepare", shop.manifest, tmp_path / "shards", "--tokenizers", tmp_path / "other")
    refused(*shop.train(tmp_path / "run", "--shards", tmp_path / "shards"), saying=("text", "prepare"))
    refused("evaluate", shop.model, tmp_path / "shards", saying=("text", "prepare"))
    other = ("--shards", tmp_path / "shards", "--tokenizers", tmp_path / "other")
    refused(*shop.train(tmp_path / "run", *other, "--start", shop.model), saying=shop.model)


# -- checkpoints and models ---------------------------------------------------------------------------------------


@pytest.fixture
def run(shop: Workshop, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shop.run, tmp_path / "run"))


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step_*"))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
def test_a_checkpoint_cut_short_or_without_a_file(file: str, shop: Workshop, run: Path, tmp_path: Path) -> None:
    step = newest(run)
    for other in (run / "checkpoints").glob("step_*"):
        if other != step:
            shutil.rmtree(other)
    path = step / file
    path.write_bytes(path.read_bytes()[:-50])
    refused(*shop.train(tmp_path / "new", "--start", step), saying=(path,))
    refused(*shop.train(run, "--set", "train.steps=3"), saying=(run / "checkpoints", "none is whole", "remove"))
    path.unlink()
    refused(
        *shop.train(tmp_path / "new", "--start", step),
        saying=(step, "holds no checkpoint" if file == "state.json" else "missing"),
    )
    refused(*shop.train(run, "--set", "train.steps=3"), saying=(run / "checkpoints",))


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(shop: Workshop, tmp_path: Path) -> None:
    steps = ("--set", "train.checkpoint_every=1")
    works(*shop.train(tmp_path / "run", *steps))
    before, last = sorted((tmp_path / "run/checkpoints").glob("step_*"))
    whole = (last / "model.safetensors").read_bytes()
    (last / "model.safetensors").write_bytes(whole[:100])
    assert "damaged" in works(*shop.train(tmp_path / "run", *steps))
    assert (last / "model.safetensors").read_bytes() == whole and before.exists()


def test_starts_that_are_none(shop: Workshop, tmp_path: Path) -> None:
    refused(*shop.train(tmp_path / "r", "--start", tmp_path / "no"), saying=(tmp_path / "no", "no checkpoint"))
    refused(*shop.train(tmp_path / "r", "--start", shop.tokenizers), saying=(shop.tokenizers, "no checkpoint"))
    wider = shop.train(tmp_path / "r", "--start", newest(shop.run), "--set", "decoder.width=32")
    refused(*wider, saying=("does not fit",))


def test_models_with_damaged_parts(shop: Workshop, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    wav = shop.root / "0.wav"
    files = sorted(path for path in model.rglob("*") if path.is_file() and path.name != "generation_config.json")
    assert len(files) > 10  # the one left out is for transformers alone
    for path in files:
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"", None):
            path.unlink()
            if damaged is None and path.name == "voices.safetensors":
                continue  # a model may have none
            if damaged is not None:
                path.write_bytes(damaged)
            refused("generate", model, wav, "--task", "asr", "--lang", "en", saying=(model,))
        path.write_bytes(content)
    works("generate", model, wav, "--task", "asr", "--lang", "en")


# -- recipes ------------------------------------------------------------------------------------------------------

RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown key": ("preset: tiny\ntrain: {stepps: 3}", ("train.stepps", "train.steps")),
    "unknown group": ("preset: tiny\ntrian: {steps: 3}", ("trian", "train")),
    "unknown preset": ("preset: tny", ("'tny'", "'tiny'")),
    "no preset": ("train: {steps: 3}", ("names no preset", "begin with")),
    "not YAML": ("preset: [tiny", ("is not YAML", "correct")),
    "a list": ("- tiny", ("names no preset", "begin with")),
    "empty": ("", ("names no preset", "begin with")),
    "a group as a number": ("preset: tiny\ntrain: 3", ("train is 3", "train.")),
    "a number as text": ("preset: tiny\ntrain: {steps: many}", ("train.steps", "'many'", "whole number")),
    "a fraction": ("preset: tiny\ntrain: {steps: 1.5}", ("train.steps", "1.5", "whole number")),
    "negative": ("preset: tiny\ntrain: {steps: -1}", ("train.steps", "-1", "from 0")),
    "infinite": ("preset: tiny\ntrain: {optim: {learning_rate: .inf}}", ("train.optim.learning_rate", "inf")),
    "zero width": ("preset: tiny\ndecoder: {width: 0}", ("width", "0")),
    "heads that do not divide": ("preset: tiny\ndecoder: {heads: 3, kv_heads: 2}", ("heads", "3")),
    "unknown precision": ("preset: tiny\ntrain: {precision: fp7}", ("precision", "'fp7'", "fp32")),
    "a Python object": ("preset: !!python/object/apply:os.system [true]", ("is not YAML",)),
    "larger than any memory": ("preset: tiny\ndecoder: {width: 1048576, layers: 900}", ("GB", "lower")),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_bad_recipe_names_its_key(name: str, shop: Workshop, tmp_path: Path) -> None:
    text, needles = RECIPES[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    refused(*shop.train(tmp_path / "run", recipe=path), saying=needles)
    assert not (tmp_path / "run/checkpoints").exists()


def test_recipes_that_are_no_files(shop: Workshop, tmp_path: Path) -> None:
    refused(*shop.train(tmp_path / "run", recipe=tmp_path / "no.yaml"), saying=("no.yaml", "give a preset"))
    refused(*shop.train(tmp_path / "run", recipe=tmp_path / "no.json"), saying=("no.json", "check the path"))
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    refused(*shop.train(tmp_path / "run", recipe=tmp_path / "r.yaml"), saying=("r.yaml",))
    refused(*shop.train(tmp_path / "run", "--set", "train.stepps=3"), saying=("train.stepps", "train.steps"))
    refused(*shop.train(tmp_path / "run", "--set", "steps"), saying=("'steps'", "key=value"))


# -- places that cannot be written --------------------------------------------------------------------------------


def test_output_paths_that_cannot_be_written(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    hf = tmp_path / "hf"
    works("export", shop.model, hf)
    lines = tmp_path / "lines.txt"
    lines.write_text("0 we buy\n", encoding="utf-8")
    for out in (tmp_path / "file/out", tmp_path / ("x" * 300), "/proc/unitok"):
        speak = ("generate", shop.model, "hi", "--task", "tts", "--lang", "en", "-o")
        for command in (
            ("fit-tokenizers", shop.manifest, out),
            ("prepare", shop.manifest, out, "--tokenizers", shop.tokenizers),
            shop.train(Path(out)),
            ("export", shop.model, out),
            ("import", hf, out),
            ("manifest", shop.root, lines, "-o", f"{out}/m.jsonl"),
            (*speak, f"{out}/a.wav"),
            ("demo", "--manifest", shop.manifest, "-o", out),
        ):
            refused(*command, saying=("cannot write", out, ";"))
    assert (tmp_path / "file").read_text() == ""


def test_folders_of_others_are_not_replaced(shop: Workshop, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years", encoding="utf-8")
    refused("fit-tokenizers", shop.manifest, mine, saying=(mine, "thesis.txt", "choose"))
    refused("export", shop.model, mine, saying=(mine, "thesis.txt", "choose"))
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "years"


def test_a_format_that_cannot_be_written(shop: Workshop, tmp_path: Path) -> None:
    speak = ("generate", shop.model, "hi", "--task", "tts", "--lang", "en", "-o")
    refused(*speak, tmp_path / "a.xyz", saying=("a.xyz", ".wav"))
    assert list(tmp_path.iterdir()) == []


# -- processes ----------------------------------------------------------------------------------------------------


def test_processes_end_with_2_and_one_line(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{", encoding="utf-8")
    for arguments, needle in (
        (("prepare", tmp_path / "bad.jsonl", tmp_path / "out", "--tokenizers", shop.tokenizers), "bad.jsonl:1"),
        (shop.train(tmp_path / "run", "--set", "train.stepps=3"), "train.steps"),
    ):
        command = [*COMMAND, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.stdout == "" and len(done.stderr.splitlines()) == 1
        check_refusal(Ended(code=done.returncode, out=done.stdout, err=done.stderr), needle)
