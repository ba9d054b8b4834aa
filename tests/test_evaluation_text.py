"""Text ability by files: perplexity and minimal pairs are what the makers' own classes say, before and after.

Run alone with `pytest tests/test_evaluation_text.py`.
"""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command import Workshop, refused, works
from tests.support.hf_hosts import write_host
from tests.support.tiny_model import tiny_model
from tests.test_formats import DOCUMENTED, compare, keys, pattern
from unitok.decoder.model import Decoder
from unitok.export import import_hf
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json
from unitok_training.evaluation.text_ability import TextEvals, evaluate_text, read_text_evals

transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")

LINES = ("the green house stands here", "we buy two books now", "Das grüne Haus", "a")
PAIRS = (
    ("the house stands here", "the here house stands", "order"),
    ("two books", "books two", "order"),
    ("we buy two books now", "buy now books we two", "order"),
    ("a house", "an house", "articles"),
    ("an hour", "a hour", "articles"),
)


def write_evals(folder: Path) -> tuple[Path, Path]:
    """A text file, and pairs of two sets as BLiMP writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lines.txt").write_text("\n\n".join(LINES) + "\n", encoding="utf-8")
    rows = [{"sentence_good": good, "sentence_bad": bad, "UID": name} for good, bad, name in PAIRS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "lines.txt", folder / "pairs.jsonl"


@torch.no_grad()
def logprobs(stock: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of ids after the first, by the makers' class, among the host's ids."""
    logs = stock(torch.tensor(ids)[None]).logits[0].double()[:, : stock.length].log_softmax(-1)
    return logs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_scores_of_an_imported_model_are_those_of_its_makers_class(name: str, tmp_path: Path) -> None:
    length = write_host(tmp_path / "host", name)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "host").eval()
    stock.length = length
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model"))
    text, vocabulary = model.tokenizers.text, model.vocabulary
    evals = read_text_evals(write_evals(tmp_path))
    found = evaluate_text(model.decoder, text, vocabulary, evals)["text"]
    bos = [vocabulary.bos] if vocabulary.bos < length else []
    told = torch.cat(
        [logprobs(stock, [*bos, *text.encode(line)]) for line in LINES if len(text.encode(line)) + len(bos) > 1]
    )
    assert found["ids"] == len(told) and found["texts"] == len(LINES)
    assert found["perplexity"] == pytest.approx(math.exp(-told.mean()), rel=1e-4)
    opener = vocabulary.bos if vocabulary.bos < length else vocabulary.eos
    right: dict[str, list[bool]] = {}
    for good, bad, group in PAIRS:
        sums = [float(logprobs(stock, [opener, *text.encode(one)]).sum()) for one in (good, bad)]
        right.setdefault(group, []).append(sums[0] > sums[1])
    shares = {group: sum(values) / len(values) for group, values in right.items()}
    assert found["blimp"] == pytest.approx(shares) and found["blimp_pairs"] == len(PAIRS)
    assert found["blimp_mean"] == pytest.approx(sum(shares.values()) / 2)
    turned = TextEvals(
        texts={}, pairs={k: [type(p)(good=p.bad, bad=p.good) for p in v] for k, v in evals.pairs.items()}
    )
    other = evaluate_text(model.decoder, text, vocabulary, turned)["text"]
    assert other["blimp"] == pytest.approx({group: 1 - share for group, share in shares.items()})
    same = TextEvals(texts={}, pairs={"same": [type(evals.pairs["order"][0])(good="a house", bad="a house")]})
    assert evaluate_text(model.decoder, text, vocabulary, same)["text"]["blimp"] == {"same": 0.0}, "a tie is not right"


def test_a_decoder_that_sees_what_is_given_both_ways_is_measured_too(tmp_path: Path) -> None:
    model = tiny_model()
    seeing = Decoder(replace(model.decoder.config, prefix_lm=True)).eval()
    seeing.load_state_dict(model.decoder.state_dict())
    evals = read_text_evals(write_evals(tmp_path))
    found, plain = (
        evaluate_text(one, model.tokenizers.text, model.vocabulary, evals) for one in (seeing, model.decoder)
    )
    assert found["text"]["perplexity"] == pytest.approx(plain["text"]["perplexity"], rel=1e-5), "nothing is given"


def test_several_files_and_texts_longer_than_a_model_reads(tmp_path: Path) -> None:
    write_host(tmp_path / "host", "llama", max_position_embeddings=16)
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model"))
    long = " ".join(LINES[:2] * 4)
    (tmp_path / "one.txt").write_text(long, encoding="utf-8")
    with gzip.open(tmp_path / "two.en.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\ufeff" + "\r\n".join(LINES))

    def scored(*names: str) -> dict[str, Any]:
        evals = read_text_evals([tmp_path / name for name in names])
        return evaluate_text(model.decoder, model.tokenizers.text, model.vocabulary, evals)["text"]

    one, two, both = scored("one.txt"), scored("two.en.txt.gz"), scored("one.txt", "two.en.txt.gz")
    assert one["ids"] == len(model.tokenizers.text.encode(long)), "every id, none dropped"
    assert both["by_file"] == {"one": {"perplexity": one["perplexity"]}, "two": {"perplexity": two["perplexity"]}}
    pooled = (math.log(one["perplexity"]) * one["ids"] + math.log(two["perplexity"]) * two["ids"]) / both["ids"]
    assert both["ids"] == one["ids"] + two["ids"] and both["perplexity"] == pytest.approx(math.exp(pooled))
    (tmp_path / "long.jsonl").write_text(json.dumps({"good": long, "bad": "a"}))
    evals = read_text_evals([tmp_path / "long.jsonl"])
    assert list(evals.pairs) == ["long"]
    (tmp_path / "short.jsonl").write_text(json.dumps({"good": "a house", "bad": "house a"}))
    every = read_text_evals([tmp_path / name for name in ("one.txt", "two.en.txt.gz", "short.jsonl")])
    names = set(keys(evaluate_text(model.decoder, model.tokenizers.text, model.vocabulary, every)))
    documented = [name for name in DOCUMENTED["metrics.json"].rows if name.startswith("text.")]
    assert all(any(pattern(name).fullmatch(one) for name in documented) for one in names)
    assert all(any(pattern(name).fullmatch(one) for one in names) for name in documented)
    with pytest.raises(InputError, match="leave the pair out"):
        evaluate_text(model.decoder, model.tokenizers.text, model.vocabulary, evals)


def test_two_files_of_pairs_without_a_set_are_not_one(tmp_path: Path) -> None:
    for place, uid in (("pairs.en.jsonl", None), ("pairs.de.jsonl", None), ("named.jsonl", "order")):
        pair = {"good": "two books", "bad": "books two", **({} if uid is None else {"UID": uid})}
        (tmp_path / place).write_text(json.dumps(pair), encoding="utf-8")
    assert set(read_text_evals([tmp_path / "pairs.en.jsonl", tmp_path / "named.jsonl"]).pairs) == {"pairs", "order"}
    with pytest.raises(InputError, match=r"pairs\.de\.jsonl: its pairs name no set"):
        read_text_evals([tmp_path / "pairs.en.jsonl", tmp_path / "pairs.de.jsonl"])


BAD = {
    "x.csv": (b"a", "rename it"),
    "empty.txt": (b"\n \n", "holds nothing"),
    "latin.txt": ("grün".encode("latin-1"), "cannot be read"),
    "cut.txt.gz": (gzip.compress(b"some words" * 9)[:-9], "cannot be read"),
    "plain.jsonl": (b"words", r"plain\.jsonl:1: not JSON"),
    "half.jsonl": (b'{"good": "a", "bad": "b"}\n{"good": "a"}', r"half\.jsonl:2: no pair"),
    "list.jsonl": (b'["a", "b"]', "no pair"),
    "blank.jsonl": (b'{"good": "a", "bad": " "}', "no pair"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_not_understood_are_refused(name: str, tmp_path: Path) -> None:
    data, said = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        read_text_evals([tmp_path / name])
    with pytest.raises(InputError, match="cannot be read"):
        read_text_evals([tmp_path / "nowhere.txt"])
    (tmp_path / "more").mkdir()
    for place in (tmp_path / "t.txt", tmp_path / "more/t.txt"):
        place.write_text("a")
    with pytest.raises(InputError, match="has the name 't' too"):
        read_text_evals([tmp_path / "t.txt", tmp_path / "more/t.txt"])


def test_commands_measure_before_and_after(tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "shop")
    files = write_evals(tmp_path)
    write_host(tmp_path / "hf", "smollm2")
    works("import", tmp_path / "hf", tmp_path / "host", "--tokenizers", shop.tokenizers, "--languages", "en", "de")
    before = json.loads(works("evaluate", tmp_path / "host", "--text-evals", *files))
    assert before.keys() == {"text"} and before["text"].keys() > {"perplexity", "blimp"}
    works("prepare", shop.manifest, tmp_path / "shards", "--tokenizers", tmp_path / "host/tokenizers")
    given = ("--start", tmp_path / "host", "--shards", tmp_path / "shards", "-o", tmp_path / "run")
    changes = ("train.steps=2", "train.packs_per_step=1", "train.pack_size=512", "train.window=32")
    changes += ("mixture.only={lm: 1}", "tuning.decoder.start_step=0", "tuning.embeddings.start_step=0")
    done = works(
        "train", "finetune", *given, *(part for change in changes for part in ("--set", change)), "--text-evals", *files
    )
    told = read_json(tmp_path / "run/text_ability.json")
    compare("text_ability.json", set(keys(told)))
    assert told["before"]["text"] == before["text"]
    assert told["before"]["ids"] == told["after"]["ids"] > 0, "held-out texts are measured as ever"
    assert "text.perplexity: " in done and " before, " in done
    after = json.loads(works("evaluate", tmp_path / "run/model", "--text-evals", *files))
    assert told["after"]["text"] == after["text"] and after["text"]["perplexity"] != before["text"]["perplexity"]
    both = json.loads(
        works("evaluate", tmp_path / "run/model", tmp_path / "shards", "--limit", "1", "--split", "train",
              "--text-evals", *files)
    )  # fmt: skip
    assert both["text"] == after["text"] and len(both) > 1
    refused("evaluate", tmp_path / "host", saying=("nothing to score", "--text-evals"))
    refused("evaluate", tmp_path / "host", "--limit", "2", "--text-evals", *files, saying=("--limit changes nothing",))
    refused("evaluate", tmp_path / "host", "--text-evals", tmp_path / "no.txt", saying=("no.txt",))
    refused(
        "train", "finetune", *given, "--set", "tuning.new_rows=text-copies",
        saying=("tuning.new_rows is 'text-copies'", "unitok import --new-rows"),
    )  # fmt: skip
    refused("train", "finetune", *given, "--set", "tuning.new_rows=zeros", saying=("mean-spread, text-copies",))
