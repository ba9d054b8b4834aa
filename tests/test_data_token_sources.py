"""Files of ids: whatever they come in, the same ids, and what is no ids is refused with file and row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

from unitok.token_files import read_ids, utterances_of
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.token_sources import matched, open_tokens
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet

UNITS = StreamInfo("hubert", "units", "h", Fraction("62.5"), (9,), deduplicated=True)
CODES = StreamInfo("mimi", "codes", "m", Fraction(25, 2), (4, 70_000))
Tokens = dict[str, np.ndarray]
UNIT_IDS: Tokens = {"a": np.array([8, 8, 0]), "b/c": np.array([1]), "é": np.array([3, 4, 4, 5])}
CODE_IDS: Tokens = {name: np.stack([ids % 4, ids * 7000], axis=1) for name, ids in UNIT_IDS.items()}


def npz(place: Path, tokens: Tokens, name: str) -> Path:
    np.savez(place / "t.npz", allow_pickle=True, **tokens)
    return place / "t.npz"


def folder(place: Path, tokens: Tokens, name: str) -> Path:
    for key, ids in tokens.items():
        path = place / "t" / f"{key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, ids)
    return place / "t"


def tensors(place: Path, tokens: Tokens, name: str) -> Path:
    save_file({key: np.ascontiguousarray(ids) for key, ids in tokens.items()}, place / "t.safetensors")
    return place / "t.safetensors"


def table(tokens: Tokens, name: str) -> Any:
    ids = [one.tolist() for one in tokens.values()]
    return pyarrow.table({"id": list(tokens), "text": ["x"] * len(tokens), name: ids})


def arrow(place: Path, tokens: Tokens, name: str) -> Path:
    held = table(tokens, name)
    with pyarrow.OSFile(str(place / "t.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, held.schema) as writer:
        writer.write_table(held, max_chunksize=2)
    return place / "t.arrow"


def parquet(place: Path, tokens: Tokens, name: str) -> Path:
    pyarrow.parquet.write_table(table(tokens, name), place / "t.parquet", row_group_size=2)
    return place / "t.parquet"


def saved(place: Path, tokens: Tokens, name: str) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict(table(tokens, name).to_pydict()).save_to_disk(str(place / "saved"))
    return place / "saved"


def lines(place: Path, tokens: Tokens, name: str) -> Path:
    rows = [json.dumps({"id": key, name: ids.tolist()}, ensure_ascii=False) + "\n" for key, ids in tokens.items()]
    (place / "t.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return place / "t.jsonl"


FORMS = (npz, folder, tensors, arrow, parquet, saved, lines)
by_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
Form = Callable[[Path, Tokens, str], Path]


@by_form
def test_every_form_holds_the_same(form: Form, tmp_path: Path) -> None:
    for stream, tokens in ((UNITS, UNIT_IDS), (CODES, CODE_IDS)):
        place = tmp_path / stream.name
        place.mkdir()
        path = form(place, {key: ids.astype(np.int32) for key, ids in tokens.items()}, stream.name)
        source = open_tokens(path, stream.name)
        assert sorted(source.places) == sorted(tokens)
        for key, ids in tokens.items():
            found = source.read(key, stream)
            assert found.dtype == np.int64 and np.array_equal(found, ids)
        if path.is_file():
            utterances = list(utterances_of(path, stream.kind, stream))
            assert sorted(one.key for one in utterances) == sorted(tokens)
            assert all(np.array_equal(one.ids, tokens[one.key]) for one in utterances)


WRONG: tuple[tuple[Any, StreamInfo, tuple[str, ...]], ...] = (
    (np.array([1.0, 2.0]), UNITS, ("whole numbers",)),
    (np.array([1, -2]), UNITS, ("id -2",)),
    (np.array([1, 9]), UNITS, ("id 9", "9 ids from 0 on")),
    (np.array([[1], [2]]), UNITS, ("(2, 1)", "(N,)")),
    (np.array([1, 2]), CODES, ("(2,)", "(F, 2)")),
    (np.array([[1, 2, 3], [1, 2, 3]]), CODES, ("(2, 3)", "transpose")),
    (np.array([[1, 2], [4, 3]]), CODES, ("id 4 in codebook 0",)),
    (np.array([[1, 70_000]]), CODES, ("id 70000 in codebook 1",)),
)


@by_form
@pytest.mark.parametrize(("ids", "stream", "saying"), WRONG, ids=[" ".join(saying) for *_, saying in WRONG])
def test_what_is_no_ids_is_refused(form: Form, ids: Any, stream: StreamInfo, saying: Any, tmp_path: Path) -> None:
    path = form(tmp_path, {"bad": ids}, stream.name)
    places = ("bad", "[0]", ":1")
    refused_with((str(path), *saying), places, lambda: open_tokens(path, stream.name).read("bad", stream))
    if path.is_file():
        refused_with((str(path), *saying), places, lambda: read_ids(path, stream.kind, stream))


def refused_with(needles: Sequence[str], places: Sequence[str], read: Callable[[], Any]) -> None:
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert all(needle in message for needle in needles) and any(place in message for place in places), message


def test_empty_ragged_and_null_are_refused(tmp_path: Path) -> None:
    for number, (value, saying) in enumerate((([], "are empty"), ([[1, 2], [3]], "no list of ids"), (None, "no ids"))):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps({"id": "r", "mimi": value}) + "\n", encoding="utf-8")
        with pytest.raises(InputError, match=saying):
            open_tokens(path, "mimi").read("r", CODES)
    held = pyarrow.table({"id": ["r"], "mimi": pyarrow.array([None], pyarrow.list_(pyarrow.int32()))})
    pyarrow.parquet.write_table(held, tmp_path / "n.parquet")
    with pytest.raises(InputError, match=r"n.parquet\[0\]: mimi is null"):
        open_tokens(tmp_path / "n.parquet", "mimi").read("r", CODES)
    np.savez(tmp_path / "o.npz", allow_pickle=True, r=np.array([[1], [1, 2]], dtype=object))
    with pytest.raises(InputError, match="o.npz.'r'"):
        open_tokens(tmp_path / "o.npz", "mimi").read("r", CODES)


def test_other_files_and_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"PK")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    (tmp_path / "t.csv").write_text("id,hubert\n")
    arrow(tmp_path, UNIT_IDS, "other")
    twice = [json.dumps({"id": "r", "hubert": [1]}) + "\n"] * 2
    (tmp_path / "twice.jsonl").write_text("".join(twice), encoding="utf-8")
    (tmp_path / "nameless.jsonl").write_text('{"hubert": [1]}\n', encoding="utf-8")
    for name, saying in (
        ("empty", "neither files"),
        ("none.npz", "check the path"),
        ("broken.npz", "damaged"),
        ("broken.safetensors", "damaged"),
        ("t.csv", ".safetensors"),
        ("t.arrow", "no column 'hubert'.*other"),
        ("twice.jsonl", "'r' occurs twice.*line 2"),
        ("nameless.jsonl", "row's id"),
    ):
        with pytest.raises(InputError, match=saying):
            open_tokens(tmp_path / name, "hubert")


def test_ids_that_do_not_meet_are_counted(tmp_path: Path) -> None:
    source = open_tokens(npz(tmp_path, UNIT_IDS, "hubert"), "hubert")
    assert matched("hubert", source, ["a", "b/c", "é"]) == []
    first, second = matched("hubert", source, ["a", "x", "y"])
    assert "2 rows have no hubert" in first and "'x'" in first and "2 ids" in second and "'b/c'" in second
    with pytest.raises(InputError, match="no id of it.*'a'.*'x'"):
        matched("hubert", source, ["x"])


@pytest.fixture(scope="module")
def text_only() -> TokenizerSet:
    return TokenizerSet.of(SentencePieceText.train(["ab ba abba", "b a b"] * 20, vocab_size=270))


def test_shards_do_not_depend_on_where_ids_come_from(text_only: TokenizerSet, tmp_path: Path) -> None:
    described = {"hubert": UNITS, "mimi": CODES}
    rows = [Row(id=name, group=name, lang="en", text="ab") for name in (*UNIT_IDS, "bare")]
    tokens = {row: {"hubert": ids, "mimi": CODE_IDS[row]} for row, ids in UNIT_IDS.items()}
    inside = [replace(row, tokens=tokens.get(row.id, {})) for row in rows]
    one = prepare_shards(inside, text_only, tmp_path / "one", external=described)
    told: list[str] = []
    paths = {"hubert": arrow(tmp_path, UNIT_IDS, "hubert"), "mimi": tensors(tmp_path, CODE_IDS, "mimi")}
    sources = {name: open_tokens(path, name) for name, path in paths.items()}
    other = prepare_shards(rows, text_only, tmp_path / "other", external=described, sources=sources, notice=told.append)
    assert one.manifest == other.manifest and len(told) == 2 and "'bare'" in told[0]
    assert one.ragged("hubert_durations")[0].tolist() == [2, 1, 1, 1, 2, 1]
    assert np.array_equal(other.codes(2, "mimi"), CODE_IDS["é"])
    with pytest.raises(InputError, match="row a: hubert are in the manifest and in"):
        prepare_shards(inside, text_only, tmp_path / "twice", external=described, sources=sources)
    with pytest.raises(InputError, match="have no description|are not described"):
        prepare_shards(rows, text_only, tmp_path / "none", sources=sources)


@pytest.mark.parametrize("name", ["split", "seconds", "text_ids", "other_durations"])
def test_a_stream_is_not_called_like_a_column(text_only: TokenizerSet, name: str, tmp_path: Path) -> None:
    streams = [StreamInfo(one, "units", "h", None, (9,)) for one in ("other", name)]
    rows = [Row(id="r", group="r", lang="en", text="ab", tokens={one.name: np.array([1]) for one in streams})]
    with pytest.raises(InputError, match="shards have a column"):
        prepare_shards(rows, text_only, tmp_path, external={one.name: one for one in streams})
