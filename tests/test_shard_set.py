"""Several folders of shards: exact shares, tasks limited to some, nothing mixed, and a run that knows its own."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import toy_shards
from tests.support.command import Workshop, refused, works
from tests.support.toy_shards import ToyShards, corpus, vocabulary
from unitok_tokenizers.data.shards import RowOffsets, Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture, Shares
from unitok_training.recipes.decoder import load_recipe
from unitok_training.shard_set import RECORD, ShardFolder, ShardSet, continued, open_shards, record
from unitok_training.train import train_model

PIECES = ["▁x"] * toy_shards.TEXT_PIECES


def toy(name: str, rows: list[dict[str, Any]], *, names: tuple[str, ...] = tuple(toy_shards.streams())) -> ToyShards:
    """Toy shards whose rows are named after their folder."""
    shards = ToyShards([{**row, "id": f"{name}:{row['id']}"} for row in rows], names)
    shards.folder = Path(name)
    return shards


def source(folders: list[ShardFolder], weights: dict[str, float], seed: int = 0, **options: Any) -> ExampleSource:
    return ExampleSource(
        ShardSet.of(folders), vocabulary(), Mixture(tasks=weights), seed=seed, options=ExampleOptions(**options),
        pieces=PIECES,
    )  # fmt: skip


A, B = toy("a", corpus(6)), toy("b", corpus(3, speakers=("c", "d")))


def folders_of(found: ExampleSource, count: int, start: int = 0) -> Counter[tuple[str, str]]:
    """(task, folder) → examples."""
    documents = found.documents(np.arange(start, start + count))
    names = [documents.name(number).split() for number in range(count)]
    return Counter((name[0], name[-1].partition(":")[0]) for name in names)


@pytest.mark.parametrize("parts", [2, 5, 60])
def test_one_folder_is_drawn_from_as_it_always_was(parts: int) -> None:
    """In files as in one, alone in a set as without one, with a weight as without."""
    rows = [*corpus(), *toy_shards.dialogues(), *toy_shards.mixtures(corpus(2))]
    weights = dict.fromkeys(TOKEN_VARIANTS, 1.0)
    chosen = np.arange(300)
    plain = ExampleSource(ToyShards(rows), vocabulary(), Mixture(tasks=weights), seed=3, pieces=PIECES)
    cut = source([ShardFolder(shards=ToyShards(rows, parts=parts), weight=7.0)], weights, seed=3)
    ids, weight = plain.documents(chosen).rendered(chosen)
    others, their_weight = cut.documents(chosen).rendered(chosen)
    assert np.array_equal(ids, others) and np.array_equal(weight, their_weight)
    assert plain.report() == cut.report()


def test_every_1024_examples_of_a_task_hold_exact_shares() -> None:
    found = source([ShardFolder(shards=A, weight=3.0), ShardFolder(shards=B)], {"asr": 1.0})
    for start in (0, 4096):
        assert folders_of(found, 1024, start) == {("asr", "a"): 768, ("asr", "b"): 256}
    shares = Shares([1.0, 2.0, 5.0], 4)
    places, before = shares.draw_all(np.arange(5000))
    for place in range(3):
        assert before[places == place].tolist() == list(range(int((places == place).sum())))
    some = np.array([4999, 17, 2048])
    again = shares.draw_all(some)
    assert again[0].tolist() == places[some].tolist() and again[1].tolist() == before[some].tolist()


def test_an_epoch_of_a_folder_is_a_permutation_of_its_rows() -> None:
    found = source([ShardFolder(shards=A), ShardFolder(shards=B, weight=2.0)], {"asr": 1.0})
    documents = found.documents(np.arange(4000))
    for name, rows in (("a", 24), ("b", 12)):
        said = [documents.name(number).split()[-1] for number in range(4000)]
        mine = [one for one in said if one.startswith(f"{name}:")]
        for start in range(0, len(mine) - rows, rows):
            assert len(set(mine[start : start + rows])) == rows


def test_an_example_is_a_function_of_its_index_and_not_of_the_order_of_folders() -> None:
    weights = dict.fromkeys(
        (key for key, one in TOKEN_VARIANTS.items() if not (one.task.replies or one.task.answer_named)), 1.0
    )
    one = source([ShardFolder(shards=A, weight=3.0), ShardFolder(shards=B)], weights, condition_noise=0.2)
    other = source([ShardFolder(shards=B), ShardFolder(shards=A, weight=3.0)], weights, condition_noise=0.2)
    together = one.documents(np.arange(200))
    ids, _ = together.rendered(np.arange(200))
    alone = [other.document(index) for index in range(200)]
    assert np.array_equal(ids, np.concatenate([document.ids for document in alone]))
    assert [document.name for document in alone] == [together.name(number) for number in range(200)]


def test_pairs_replies_and_voices_stay_within_a_folder() -> None:
    """Names of groups, rows and speakers mean something only there: here both folders have the same ones."""
    english = [row for row in corpus(6) if row["lang"] == "en"]
    german = [row for row in corpus(6) if row["lang"] == "de"]
    with pytest.raises(InputError, match="mixture.s2tt: no folder of shards has a row for it"):
        source([ShardFolder(shards=toy("e", english)), ShardFolder(shards=toy("g", german))], {"s2tt": 1.0})
    spoken = toy("b", [{**row, "codes": np.zeros_like(row["codes"])} for row in corpus(5)])
    found = source([ShardFolder(shards=A), ShardFolder(shards=spoken)], {"tts.codes": 1.0}, voice_share=1.0)
    voiced = Counter[bool]()
    for index in range(200):
        silent = found.document(index).name.split()[-1].startswith("b:")
        voice = next(span for span in found.plan(index).conditions if span.kind == "voice")
        assert (not voice.content.any()) == silent
        voiced[silent] += 1
    assert min(voiced.values()) > 50


def test_tasks_are_drawn_from_the_folders_that_are_for_them() -> None:
    weights = {"asr": 1.0, "mt@en-de": 1.0, "slm": 1.0}
    found = source([ShardFolder(shards=A), ShardFolder(shards=B, weight=2.0, tasks=("mt", "slm"))], weights)
    counts = folders_of(found, 3072)
    assert set(counts) == {("asr", "a"), ("mt@en-de", "a"), ("mt@en-de", "b"), ("slm", "a"), ("slm", "b")}
    assert counts["slm", "b"] == pytest.approx(2 * counts["slm", "a"], rel=0.05)
    lines = found.report()
    assert "asr: 24 items of a" in lines and "slm: 12 items of b" in lines and "asr: 12 items of b" not in lines
    assert found.usable() == {"asr": 24, "mt@en-de": 9, "slm": 36}


def test_what_a_folder_lacks_another_has() -> None:
    text = toy("t", corpus(4), names=("text",))
    found = source([ShardFolder(shards=A), ShardFolder(shards=text)], {"asr": 1.0, "lm": 1.0})
    assert set(folders_of(found, 2048)) == {("asr", "a"), ("lm", "a"), ("lm", "t")}
    assert any(line.startswith("asr: skips 16 rows of t: no units") for line in found.report())
    with pytest.raises(InputError, match=r"t, which was named for it: mixture.asr: none of the 16 rows"):
        source([ShardFolder(shards=A), ShardFolder(shards=text, tasks=("asr", "lm"))], {"asr": 1.0, "lm": 1.0})
    with pytest.raises(InputError, match=r"b is named for task 'tts', which the mixture does not have: it has asr"):
        source([ShardFolder(shards=A), ShardFolder(shards=B, tasks=("tts",))], {"asr": 1.0})
    with pytest.raises(InputError, match="mixture.lm: no folder of shards has a row for it.*a: not for this task"):
        source([ShardFolder(shards=A, tasks=("asr",)), ShardFolder(shards=B, tasks=("asr",))], {"asr": 1.0, "lm": 1.0})
    with pytest.raises(InputError, match=r"row b:\d-\w\w-\w of b can have"):
        long = toy("b", [{**row, "units": np.arange(90) % 9, "units_durations": np.ones(90, int)} for row in corpus(2)])
        source([ShardFolder(shards=A), ShardFolder(shards=long)], {"slm": 1.0}).check(100)


def test_streams_of_one_name_must_be_the_same() -> None:
    other = toy("b", corpus(3))
    other.streams["units"] = replace(other.streams["units"], fingerprint="u1")
    with pytest.raises(
        InputError, match=r"(a and b|b and a) have 'units' of two kinds, .*prepare one with the tokenizers"
    ):
        ShardSet.of([ShardFolder(shards=A), ShardFolder(shards=other)])
    with pytest.raises(InputError, match="hold the same rows; give them once, with a weight"):
        ShardSet.of([ShardFolder(shards=A), ShardFolder(shards=toy("a", corpus(6)))])


def test_offsets_of_parts_are_offsets_of_the_whole() -> None:
    random = np.random.default_rng(0)
    for counts in ([3], [0], [2, 0, 3], [0, 0, 1, 7, 0], list(range(9))):
        sizes = [random.integers(0, 5, count) for count in counts]
        parts = [
            (np.concatenate([[0], np.cumsum(size)]) + 3 * place).astype(np.int32) for place, size in enumerate(sizes)
        ]
        found, every = RowOffsets.of(parts), np.concatenate(sizes)
        assert len(found) == len(every) and found.lengths().tolist() == every.tolist()
        assert found.whole().tolist() == [0, *np.cumsum(every).tolist()]
        rows = random.integers(0, len(every), 20) if len(every) else np.zeros(0, int)
        start, length = found.places(rows)
        assert start.tolist() == found.whole()[rows].tolist() and length.tolist() == every[rows].tolist()
        assert found.some().tolist() == (every > 0).tolist()


@pytest.mark.parametrize(("longest", "kind"), [(4000, "uint16"), (9000, "int32")])
def test_offsets_of_long_rows_take_the_bytes_that_hold_them(
    longest: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitok_tokenizers.data.shards.STRETCH", 100)  # some end within a block
    random = np.random.default_rng(1)
    sizes = [random.integers(longest // 2, longest, count) for count in (333, 1, 90, 41)]
    long = RowOffsets.of([np.asarray([0, 2**31 - 1], np.int32)] * 2 + [np.asarray([0, 5], np.int32)])
    assert long.whole().tolist() == [0, 2**31 - 1, 2**32 - 2, 2**32 + 3], "more than 2³¹ ids in one column"
    found = RowOffsets.of([np.concatenate([[0], np.cumsum(size)]).astype(np.int32) for size in sizes])
    every = np.concatenate(sizes)
    assert found.near.dtype == kind and found.blocks is not None and found.blocks.dtype == "int32"
    assert found.lengths().tolist() == every.tolist() and found.some().all()
    start, length = found.places(np.arange(len(every)))
    assert start.tolist() == [0, *np.cumsum(every)[:-1].tolist()] and length.tolist() == every.tolist()


# ---- on disk


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def second(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of other rows of the same tokenizers."""
    lines = shop.manifest.read_text(encoding="utf-8").splitlines()
    manifest = shop.manifest.with_name("second.jsonl")
    manifest.write_text("".join(f"{line}\n" for line in lines[: len(lines) // 2]), encoding="utf-8")
    made = tmp_path_factory.mktemp("second") / "shards"
    works("prepare", manifest, made, "--tokenizers", shop.tokenizers)
    return made


def test_folders_are_read_with_weights_and_tasks(shop: Workshop, second: Path, tmp_path: Path) -> None:
    one = open_shards(shop.shards)
    assert one.alone and one.folders[0].weight == 1.0 and one.folders[0].tasks == ()
    found = {folder.name: folder for folder in open_shards([f"{shop.shards}=3", f"{second}:asr,mt"]).folders}
    assert found[str(shop.shards)].weight == 3.0 and found[str(second)].tasks == ("asr", "mt")
    assert next(iter(open_shards([f"{second}=0.5:lm"]).folders)).weight == 0.5
    odd = tmp_path / "a=b:c"
    shutil.copytree(second, odd)
    assert open_shards([odd]).folders[0].name == str(odd), "what is there is what was meant"
    for text, words in {
        f"{second}=x": ("'x' is no number", "FOLDER=3"), f"{second}=0": ("weight is 0.0", str(second)),
        f"{second}=-1": ("weight is -1",), f"{second}=nan": ("weight is nan",), f"{second}=1:": ("without a name",),
        f"{tmp_path}/no=2": ("no holds no shards",), f"{tmp_path}/none": ("none holds no shards",),
    }.items():  # fmt: skip
        with pytest.raises(InputError) as error:
            open_shards([text])
        assert all(word in str(error.value) for word in words), str(error.value)


def test_a_run_says_what_it_was_trained_on_and_refuses_other_shards(
    shop: Workshop, second: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train = ("train", "tiny", "-o", run, "--tokenizers", shop.tokenizers, "--set", "train.window=16")
    sets = ("--set", "train.pack_size=512", "--set", "train.checkpoint_every=2", "--set")
    works(*train, *sets, "train.steps=2", "--shards", shop.shards)
    known = json.loads((run / RECORD).read_text(encoding="utf-8"))
    assert [folder["path"] for folder in known["folders"]] == [str(shop.shards)]
    longer = (*train, *sets, "train.steps=4", "--shards")
    message = refused(*longer, f"{shop.shards}=3", second, saying=("is new", "--allow-change shards", "weight of"))
    assert str(second) in message
    refused(*longer, second, saying=("is new", "is gone"))
    refused(*longer, shop.shards, second, "--allow-change", "train.steps", saying="--allow-change shards")
    moved = tmp_path / "moved"
    shutil.copytree(shop.shards, moved)
    works(*longer, moved)  # the same rows in another place
    longest = (*train, *sets, "train.steps=6", "--shards")
    works(*longest, f"{shop.shards}=3", f"{second}:asr", "--allow-change", "shards")
    known = json.loads((run / RECORD).read_text(encoding="utf-8"))
    assert sorted((one["weight"], *one["tasks"]) for one in known["folders"]) == [(1.0, "asr"), (3.0,)]
    works(*longest, f"{second}:asr", f"{shop.shards}=3")  # as it is now, in whatever order
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(row.get("step", 0) for row in rows) == 6
    found = json.loads(works("evaluate", run / "model", shop.shards, second, "--split", "train", "--limit", "1"))
    assert set(found["folders"]) == {str(shop.shards), str(second)}
    assert all(scores["asr"]["count"] == 1 for scores in found["folders"].values())


def test_a_change_of_shards_is_noted_in_the_report(tmp_path: Path) -> None:
    before, now = ShardSet.of(A), ShardSet.of([ShardFolder(shards=A, weight=2.0), ShardFolder(shards=B)])
    assert continued(tmp_path, now) == now, "nothing to compare with"
    record(tmp_path, before)
    assert continued(tmp_path, now) == now, "it has not begun"
    (tmp_path / "checkpoints/step_00000001").mkdir(parents=True)
    assert continued(tmp_path, before) == before
    (note,) = continued(tmp_path, now, may_change=True).notes
    assert "b is new (12 rows)" in note and "weight of a: 1.0, now 2.0" in note
    grown = ShardSet.of(toy("a", corpus(8)))
    with pytest.raises(InputError, match=r"trained on other shards: a has other rows now \(32, before 24\)\. Continue"):
        continued(tmp_path, grown)
    changed = continued(tmp_path, now, may_change=True)
    assert ExampleSource(changed, vocabulary(), Mixture(tasks={"asr": 1.0}), seed=0).report()[0] == note
    (tmp_path / RECORD).write_text('{"folders": [3]}', encoding="utf-8")
    with pytest.raises(InputError, match=f"{RECORD} is damaged"):
        continued(tmp_path, now)


def test_of_several_processes_one_reads_the_files_through(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = tmp_path / "shards"
    shutil.copytree(shop.shards, altered)
    manifest = json.loads((altered / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][0]["sha256"] = "0" * 64
    (altered / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="checksum"):
        train_model(load_recipe("tiny"), shards=altered, out=tmp_path / "run")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match="no tokenizers"):  # the next thing to be missing
        train_model(load_recipe("tiny"), shards=altered, out=tmp_path / "run")
    assert len(Shards.open(altered)) == len(Shards.open(shop.shards))
