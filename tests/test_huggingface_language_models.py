"""A language model that takes in speech is the language model that it was: logits, chats, how its new rows begin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.hf_hosts import TEXTS, write_chat, write_host
from tests.support.tiny_model import tokenizers
from tests.test_formats import compare, json_keys
from tests.test_huggingface_export import own_logits
from unitok.cli.main import build_parser, main
from unitok.decoder.lora import LoraConfig, add_lora, lora_config, updates, without_lora
from unitok.export import export_hf, import_hf
from unitok.huggingface.new_rows import NEW_ROWS, chosen_rows
from unitok.huggingface.weights import expand_vocabulary, load_core
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.host_settings import HostSettings
from unitok_training.first_weights import first_decoder, grown_values, open_start

transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")

FAMILIES = ["llama", "llama 3.1", "mistral", "qwen2", "qwen3 tied", "smollm2"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tokenizers"
    tokenizers().save(folder)
    return folder


@torch.no_grad()
def stock_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    logits: torch.Tensor = stock(torch.tensor(ids)[None]).logits[0]
    return logits


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_old_ids_keep_their_logits_bit_for_bit_with_updates_off(name: str, bundle: Path, tmp_path: Path) -> None:
    length = write_host(tmp_path / "host", name)
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model", tokenizers=bundle, languages=["en", "de"]))
    assert model.decoder.config.vocab_size > length + 500
    add_lora(model.decoder, LoraConfig(rank=4, targets=("q", "k", "v", "out", "gate", "up", "down")))
    model.save(tmp_path / "zero")  # updates that are there, and nothing yet
    every = [np.array(model.tokenizers.text.encode(text)) for text in TEXTS]
    before = load_core(tmp_path / "host")
    for ids in every:
        assert torch.equal(own_logits(model.decoder, ids)[:, :length], own_logits(before, ids)[:, :length])
    for update in updates(model.decoder).values():
        for value in update.b.values():
            value.normal_()
    assert not torch.equal(own_logits(model.decoder, every[0])[:, :length], own_logits(before, every[0])[:, :length])
    with without_lora(model.decoder):  # learned updates, switched off
        for ids in every:
            assert torch.equal(own_logits(model.decoder, ids)[:, :length], own_logits(before, ids)[:, :length])
    assert lora_config(Model.load(tmp_path / "zero").decoder) is not None
    export_hf(tmp_path / "zero", tmp_path / "hf")
    for ids in every:  # and in the classes of its makers
        wanted = stock_logits(tmp_path / "host", ids.tolist())[:, :length]
        assert torch.equal(stock_logits(tmp_path / "hf", ids.tolist())[:, :length], wanted)


CONVERSATION = [
    {"role": "system", "content": "the green house"},
    {"role": "user", "content": "  das grüne Haus <|im_end|>\n"},
]


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("name", ["llama 3.1", "qwen2", "qwen3", "smollm2"])
def test_chats_stay_what_they_were(name: str, as_file: bool, bundle: Path, tmp_path: Path) -> None:
    write_host(tmp_path / "host", name)
    write_chat(tmp_path / "host", as_file=as_file)
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model", tokenizers=bundle))
    model.save(tmp_path / "saved")
    export_hf(tmp_path / "saved", tmp_path / "hf")
    before, after = (transformers.AutoTokenizer.from_pretrained(tmp_path / place) for place in ("host", "hf"))
    for prompts in (False, True):
        ids = [
            one.apply_chat_template(CONVERSATION, add_generation_prompt=prompts, tokenize=True)["input_ids"]
            for one in (before, after)
        ]
        assert ids[0] == ids[1] and len(ids[0]) > 10
    if as_file:
        short = [
            one.apply_chat_template(CONVERSATION, chat_template="short", tokenize=False) for one in (before, after)
        ]
        assert short == ["the green house"] * 2
    compare(
        "text/host.json",
        json_keys(tmp_path / "saved/tokenizers/text/host.json") | {"template_files.x", "chat_template"},
    )
    assert (tmp_path / "hf/chat_template.jinja").exists() is as_file
    assert ("chat_template" in json.loads((tmp_path / "hf/tokenizer_config.json").read_text())) is not as_file
    found = json.loads((tmp_path / "hf/generation_config.json").read_text())
    assert found == {
        **json.loads((tmp_path / "host/generation_config.json").read_text()),
        "pad_token_id": model.vocabulary.pad,
    }
    import_hf(tmp_path / "hf", tmp_path / "back")
    export_hf(tmp_path / "back", tmp_path / "again")
    for path in (tmp_path / "hf").glob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    decoder = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    answer = decoder.generate(torch.tensor([ids[1]]), max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > len(ids[1])


def test_hosts_that_say_nothing_of_chats_leave_as_they_did(tmp_path: Path) -> None:
    assert HostSettings().completed({"bos_token": "<bos>"}) == {"bos_token": "<bos>"}
    assert HostSettings().generation_config({"do_sample": False}) == {"do_sample": False}
    own = {"eos_token_id": 9, "bos_token_id": 8}
    for said, ends in ((7, [7, 9]), ([7, 6], [7, 6, 9]), (9, 9), (None, 9)):  # where either ends, an answer does
        host = HostSettings(generation={"eos_token_id": said, "top_p": 0.9})
        assert host.generation_config(own) == {"eos_token_id": ends, "bos_token_id": 8, "top_p": 0.9}
    HostSettings().save(tmp_path)
    assert list(tmp_path.iterdir()) == [] and HostSettings.load(tmp_path) == HostSettings()
    for place in ("../x.jinja", "/x.jinja", "additional_chat_templates/../x.jinja"):
        with pytest.raises(InputError, match="no place of a chat template"):
            HostSettings(template_files={place: "x"}).write_templates(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InputError, match="not an object"):
        HostSettings.of_folder(tmp_path)


# -- new rows -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("rows") / "host"
    return folder, write_host(folder, "qwen2")


def test_the_mean_and_spread_are_drawn_as_ever(host: tuple[Path, int], bundle: Path, tmp_path: Path) -> None:
    folder, length = host
    model = Model.load(import_hf(folder, tmp_path / "model", tokenizers=bundle, seed=3))
    size, generator = model.vocabulary.size, torch.Generator().manual_seed(3)
    old, made = load_core(folder), model.decoder
    type(made)(made.config, generator=generator)  # the rows of a whole decoder are drawn before
    for table, new in ((old.embedding, made.embedding), (old.head, made.head)):
        assert table is not None and new is not None
        kept = table[:length].detach()
        drawn = torch.empty(size - length, kept.shape[1]).normal_(0.0, 1.0, generator=generator)
        assert torch.equal(new[length:], drawn.mul_(kept.std(0)).add_(kept.mean(0)))


def test_copies_are_rows_of_text_each_once_before_any_again(
    host: tuple[Path, int], bundle: Path, tmp_path: Path
) -> None:
    folder, length = host
    chosen = ["import", str(folder), str(tmp_path / "model"), "--tokenizers", str(bundle), "--new-rows", "text-copies"]
    assert main(chosen) == 0
    decoder = Model.load(tmp_path / "model").decoder
    assert decoder.head is not None and decoder.config.vocab_size > 2 * length
    pairs = torch.cat([decoder.embedding, decoder.head], 1).detach()  # of one id in both tables
    places = [int((pairs[:length] == row).all(1).nonzero()[0, 0]) for row in pairs[length:]]
    assert sorted(places[:length]) == list(range(length)) and places[:length] != list(range(length))
    assert places[length : 2 * length] == places[: min(length, len(places) - length)]


@torch.no_grad()
def test_centroids_keep_their_distances_on_the_scale_of_the_table(
    host: tuple[Path, int], bundle: Path, tmp_path: Path
) -> None:
    folder, length = host
    model = Model.load(import_hf(folder, tmp_path / "model", tokenizers=bundle, new_rows="centroids"))
    units = model.tokenizers.unit_tokenizer
    assert isinstance(units, UnitTokenizer)
    ids = torch.arange(units.cardinality) + int(model.vocabulary.to_ids("units", 0))
    for table in (model.decoder.embedding, model.decoder.head_weight):
        placed, old = table[ids], table[:length]
        assert torch.allclose(placed.mean(0), old.mean(0), atol=1e-5)
        assert torch.allclose(placed.std(0, correction=0), old.std(0), rtol=1e-4)
        flat = (placed - placed.mean(0)) / placed.std(0)
        far = torch.stack([torch.pdist(flat), torch.pdist(units.centroids.float())])
        assert torch.corrcoef(far)[0, 1] > 0.8
        other = table[model.vocabulary.id_of("<mt>")]
        assert torch.isfinite(other).all() and not torch.equal(other, old.mean(0))
    plain = Model.load(import_hf(folder, tmp_path / "plain", tokenizers=bundle))
    with pytest.raises(AssertionError):
        assert torch.equal(plain.decoder.embedding[ids], model.decoder.embedding[ids])
    again = Model.load(import_hf(folder, tmp_path / "again", tokenizers=bundle, new_rows="centroids"))
    assert torch.equal(again.decoder.embedding, model.decoder.embedding)


def test_marks_begin_as_line_breaks_with_little_of_their_own(
    host: tuple[Path, int], bundle: Path, tmp_path: Path
) -> None:
    folder, length = host
    model = Model.load(import_hf(folder, tmp_path / "model", tokenizers=bundle, new_rows="line-breaks"))
    table, vocabulary = model.decoder.embedding.detach(), model.vocabulary
    line_break = table[model.tokenizers.text.encode("\n")].mean(0)
    spread = table[:length].std(0)
    for mark in ("<asr>", "<gen:text>", "<lat>"):
        own = (table[vocabulary.id_of(mark)] - line_break) / spread
        assert 0 < float(own.abs().max()) < 0.6
    units = table[torch.arange(8) + int(vocabulary.to_ids("units", 0))]
    assert float(((units - line_break) / spread).abs().max()) > 1, "units are no marks"


@pytest.mark.parametrize("kind", NEW_ROWS)
def test_a_start_that_is_split_grows_as_one_that_is_whole(
    kind: str, host: tuple[Path, int], bundle: Path, tmp_path: Path
) -> None:
    start = import_hf(host[0], tmp_path / "text")  # without speech, which joins now
    base, both = Model.load(start), tokenizers()
    streams = {name: one for name, one in both.streams.items() if name != "text"}
    joined = type(both)(streams={"text": base.tokenizers.text, **streams})
    vocabulary = base.vocabulary
    for stream in joined.infos()[1:]:
        vocabulary = vocabulary.append_stream(stream) if stream.views is None else vocabulary
    for stream in joined.infos()[1:]:
        vocabulary = vocabulary.append_stream(stream) if stream.views is not None else vocabulary
    old = base.vocabulary.size
    if kind == "line-breaks":
        with pytest.raises(InputError, match="no control token or language joins"):
            chosen_rows(kind, joined, vocabulary, old=old, text=base.vocabulary.extents[0].size, where="here")
        return
    rows = chosen_rows(kind, joined, vocabulary, old=old, text=base.vocabulary.extents[0].size, where="here")
    shape = type(base.decoder.config)(**{**base.decoder.config.__dict__, "vocab_size": vocabulary.size})
    whole, _ = first_decoder(shape, open_start(start, split=False), old_size=old, seed=5, split=False, rows=rows)
    opened = open_start(start, split=True)
    assert opened is not None and opened.stored is not None
    bare, initial = first_decoder(shape, opened, old_size=old, seed=5, split=True, rows=rows)
    assert bare.embedding.is_meta and initial is not None
    found = dict(initial)
    assert all(torch.equal(found[name].whole(), value) for name, value in whole.named_parameters())
    parts = dict(grown_values(opened.stored, shape, old, 5, rows))
    assert torch.equal(parts["embedding"][old - 3 : old + 9], whole.embedding[old - 3 : old + 9])
    if kind == "text-copies":
        text = whole.embedding[: base.vocabulary.extents[0].size]
        assert all(bool((text == row).all(1).any()) for row in whole.embedding[old:])


def test_a_choice_that_says_nothing_is_refused(host: tuple[Path, int], bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no units that a tokenizer here makes"):
        import_hf(host[0], tmp_path / "out", new_rows="centroids")
    with pytest.raises(InputError, match="new_rows is 'zeros'.*mean-spread, text-copies, centroids"):
        import_hf(host[0], tmp_path / "out", tokenizers=bundle, new_rows="zeros")
    assert not (tmp_path / "out").exists()
    parser = build_parser()
    for kind in NEW_ROWS.keys() - {"letters"}:  # those are found in shards, which an import has none of
        assert parser.parse_args(["import", "a", "b", "--new-rows", kind]).new_rows == kind


@torch.no_grad()
def test_half_precision_tables_grow_by_every_choice(host: tuple[Path, int]) -> None:
    decoder = load_core(host[0], dtype=torch.bfloat16)
    for kind in ("mean-spread", "text-copies"):
        rows = chosen_rows(kind, tokenizers(), None, old=host[1], text=host[1], where="here")  # type: ignore[arg-type]
        grown = expand_vocabulary(decoder, host[1] + 9, host[1], generator=torch.Generator().manual_seed(0), rows=rows)
        assert grown.embedding.dtype == torch.bfloat16 and torch.isfinite(grown.embedding).all()
