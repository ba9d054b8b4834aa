"""Llamas that write codes among their ids come in by which rows are codes, move no id, and go out as they came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.codebook_hosts import FLAT, fine_tune, write_flat
from tests.support.command import refused, works
from tests.support.hf_hosts import write_host
from tests.test_huggingface_export import own_logits
from unitok.export import export_native, import_hf
from unitok.generation.sampling import Sampling
from unitok.generation.token_request import TokenRequest
from unitok.huggingface.codebooks.orpheus import LEVELS, SIZE, from_snac, to_snac
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton, Ranges

transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")

STREAMS = {"orpheus": "snac", "llasa": "xcodec2"}
FIRST = {"orpheus": "<custom_token_10>", "llasa": "<|s_0|>"}
PROMPT = np.array([5, 9, 30, 11, 7])
FRAMES = 4


@pytest.fixture(scope="module", params=FLAT)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def host(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(family) / "host"
    write_flat(folder, family)
    return folder


@pytest.fixture(scope="module")
def model(host: Path) -> Path:
    works("import", host, host.parent / "model")
    return host.parent / "model"


def first_code(host: Path, family: str) -> int:
    tokens = json.loads((host / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    return next(int(one["id"]) for one in tokens if one["content"] == FIRST[family])


def test_no_id_moves_and_every_row_is_kept(host: Path, model: Path, family: str) -> None:
    found, first = Model.load(model), first_code(host, family)
    stream = found.vocabulary.streams[STREAMS[family]]
    assert found.vocabulary.main("codes") == stream and list(found.elsewhere) == [stream.name]
    start = first
    for codebook, size in enumerate(stream.cardinalities):
        assert found.vocabulary.block_ranges(stream.name, codebook) == [(start, start + size)]
        start += size
    table = load_file(host / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(found.decoder.embedding[: len(table)], table)
    assert found.vocabulary.control("<asr>") >= len(table) == found.info["host"]["rows"]
    assert found.tokenizers.text.size == first == found.vocabulary.text.cardinalities[0]
    assert found.tokenizers.text.decode(found.tokenizers.text.encode(" <|s_1|> the")) == " <|s_1|> the"


@torch.no_grad()
def test_logits_of_every_slot_are_those_of_its_makers(host: Path, model: Path, family: str) -> None:
    stock = transformers.AutoModelForCausalLM.from_pretrained(host).eval()
    found = Model.load(model)
    stream = found.vocabulary.streams[STREAMS[family]]
    random = np.random.default_rng(0)
    codes = np.stack([random.integers(0, size, FRAMES) for size in stream.cardinalities], 1)
    books = range(len(stream.cardinalities))
    ids = np.stack([found.vocabulary.to_ids(stream.name, codes[:, book], book) for book in books], 1).ravel()
    whole = np.concatenate([PROMPT, ids])
    ours, theirs = own_logits(found.decoder, whole), stock(torch.from_numpy(whole)[None]).logits[0]
    assert theirs.std() > 0.3, "logits that say nothing would be equal whatever the rows were"
    assert (ours[:, : theirs.shape[1]] - theirs).abs().max() <= 1e-4


UNGUARDED = Sampling(temperature=0.0, loop_guard=False)
"""Greedy; what follows an automaton without a vocabulary cannot be guarded."""


class Frames(Automaton):
    """Codes, frame after frame, behind any prompt: what a model writes of itself, without this project's grammar."""

    def __init__(self, ranges: list[tuple[int, int]], prompt: np.ndarray) -> None:
        self.ranges, self.place, self.given, self.finished = ranges, 0, len(prompt), False

    @property
    def kind(self) -> str:
        return "codes"

    @property
    def state_key(self) -> Ranges:
        return (self.ranges[self.place % len(self.ranges)],)

    def advance(self, token: int) -> None:
        self.place += 1


def test_greedy_frames_are_those_of_its_makers(host: Path, model: Path, family: str) -> None:
    found = Model.load(model)
    stream = found.vocabulary.streams[STREAMS[family]]
    ranges = [found.vocabulary.block_ranges(stream.name, book)[0] for book in range(len(stream.cardinalities))]
    count = FRAMES * len(ranges)
    request = TokenRequest(prompt=PROMPT, limit=count, automaton=Frames(ranges, PROMPT), sampling=UNGUARDED)
    ours = found.engine.run([request])[0].ids
    stock = transformers.AutoModelForCausalLM.from_pretrained(host).eval()

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        return list(range(*ranges[(len(ids) - len(PROMPT)) % len(ranges)]))

    theirs = stock.generate(
        torch.from_numpy(PROMPT)[None], attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        do_sample=False, max_new_tokens=count, min_new_tokens=count, prefix_allowed_tokens_fn=allowed,
    )  # fmt: skip
    assert ours.tolist() == theirs[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_goes_out_as_it_came(host: Path, model: Path, dtype: str, tmp_path: Path) -> None:
    folder = host
    if dtype == "bfloat16":
        folder = tmp_path / "half"
        write_flat(folder, "llasa", tie_word_embeddings=True)
        stock = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        stock.save_pretrained(folder)
        model = import_hf(folder, tmp_path / "model")
    works("export", "--native", model, tmp_path / "out")
    theirs, ours = (load_file(one / "model.safetensors") for one in (folder, tmp_path / "out"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text()) == json.loads((folder / name).read_text()), name
    works("import", tmp_path / "out", tmp_path / "again")
    one, other = (path / "core/model.safetensors" for path in (model, tmp_path / "again"))
    assert one.read_bytes() == other.read_bytes()


def test_with_our_rows_it_goes_to_stock_classes_and_back(model: Path, tmp_path: Path) -> None:
    works("export", model, tmp_path / "hf")
    works("import", tmp_path / "hf", tmp_path / "back")
    one, other = (path / "core/model.safetensors" for path in (model, tmp_path / "back"))
    assert one.read_bytes() == other.read_bytes()
    assert Model.load(tmp_path / "back").vocabulary == Model.load(model).vocabulary
    works("export", "--native", tmp_path / "back", tmp_path / "native")


def test_frames_of_orpheus_are_codes_of_snac() -> None:
    codes = np.arange(14).reshape(2, 7) + np.array([[0], [100]])
    first, second, third = to_snac(codes)
    assert first.tolist() == [0, 107] and second.tolist() == [1, 4, 108, 111]
    assert third.tolist() == [2, 3, 5, 6, 109, 110, 112, 113]
    assert np.array_equal(from_snac(first, second, third), codes)
    with pytest.raises(InputError, match="1, 2 and 4"):
        from_snac(first, second[:-1], third)
    with pytest.raises(InputError, match="7 codes"):
        to_snac(codes[:, :6])


def test_orpheus_fine_tunes_from_the_command_line(tmp_path: Path) -> None:
    """Text to codes, whose rows it has."""
    write_flat(tmp_path / "host", "orpheus")
    works("import", tmp_path / "host", tmp_path / "model")
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for index in range(24):
        letters = random.integers(0, 6, random.integers(2, 4))
        row = {"id": f"r{index}", "text": "".join("abcdef"[one] for one in letters), "lang": "en", "split": "train"}
        codes = [[int(one * 7 + slot) for slot in range(len(LEVELS))] for one in letters]
        rows.append({**row, "speaker": "eva", "snac": codes})
    snac = {"kind": "codes", "fingerprint": "snac-24khz", "frame_rate": "375/32", "cardinalities": [SIZE] * 7}
    fine_tune(tmp_path, rows, {"snac": snac}, task="vtts")
    said = tmp_path / "said.npy"
    works("generate", tmp_path / "run/model", "abc", "--task", "vtts", "--lang", "en", "-o", said)
    assert np.load(said).shape[1] == len(LEVELS)
    works("export", "--native", tmp_path / "run/model", tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "host", tmp_path / "out"))
    assert {name: one.shape for name, one in before.items()} == {name: one.shape for name, one in after.items()}
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


def test_what_is_no_such_folder_is_refused(tmp_path: Path) -> None:
    write_flat(tmp_path / "host", "llasa")
    path = tmp_path / "host/tokenizer.json"
    value = json.loads(path.read_text("utf-8"))
    value["added_tokens"] = [one for one in value["added_tokens"] if one["content"] != "<|s_20|>"]
    path.write_text(json.dumps(value), "utf-8")
    refused("import", tmp_path / "host", tmp_path / "out", saying=("<|s_…|>", "follow one another"))
    write_flat(tmp_path / "short", "llasa", padding=-1)
    refused("import", tmp_path / "short", tmp_path / "out", saying="tokenizer that belongs to the model")
    write_host(tmp_path / "plain", "llama")
    works("import", tmp_path / "plain", tmp_path / "text")
    with pytest.raises(InputError, match="without --native"):
        export_native(tmp_path / "text", tmp_path / "out")
    assert not (tmp_path / "out").exists()
