"""Folders of CSM come in as a decoder and a depth layout that compute the same, and go out as they came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.codebook_hosts import fine_tune, write_csm
from tests.support.command import works
from tests.test_huggingface_codebooks import UNGUARDED, Frames
from unitok.decoder.model import Decoder, PackedAttend
from unitok.generation.engine import Engine
from unitok.generation.framed import FrameIds, SlotOptions
from unitok.generation.token_request import TokenRequest
from unitok.huggingface.codebooks.base import Brought, HostFolder, Leaving
from unitok.huggingface.codebooks.csm import Csm
from unitok.huggingface.codebooks.registry import family_of
from unitok.layouts.base import CodebookLayout
from unitok.layouts.depth import DepthLayout
from unitok.model import Model
from unitok_tokenizers.errors import InputError

transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")

TEXT = torch.tensor([5, 9, 30, 11, 7])
FRAMES = 6


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("csm") / "host"
    write_csm(folder)
    return folder


def read(folder: Path) -> Brought:
    found = family_of(folder)
    assert found is not None and found[0].name == "csm"
    return found[0].read(found[1])


@torch.no_grad()
def states(decoder: Decoder, layout: CodebookLayout, ids: Tensor, index: Tensor, slots: Tensor) -> Tensor:
    """(T, C) what predicts the ids of one document."""
    x = decoder.embed(ids).index_add(0, index, layout.vectors(slots))
    bounds = torch.tensor([0, len(ids)], dtype=torch.int32)
    return decoder.run(x, torch.arange(len(ids)), PackedAttend(bounds, len(ids)))


@torch.no_grad()
def test_logits_of_every_slot_are_those_of_its_makers(host: Path) -> None:
    stock = transformers.CsmForConditionalGeneration.from_pretrained(host).eval()
    config, brought = stock.config, read(host)
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, config.vocab_size, (FRAMES, config.num_codebooks)))
    embeds = torch.cat([stock.embed_text_tokens(TEXT), stock.backbone_model.embed_tokens(codes[None])[0]])
    theirs = stock(inputs_embeds=embeds[None]).logits[0]
    last = stock.backbone_model(inputs_embeds=embeds[None]).last_hidden_state[0]
    before = slice(len(TEXT) - 1, -1)
    known = torch.cat([torch.zeros(FRAMES, 1, dtype=torch.int64), codes[:, :-1]], 1)
    deep = stock.depth_decoder(input_ids=known, backbone_last_hidden_state=last[before].clone()).logits
    decoder, layout, rows = brought.decoder, brought.layout, config.text_vocab_size
    assert isinstance(layout, DepthLayout)
    ids = torch.cat([TEXT, rows + codes[:, 0]])
    hidden = states(decoder, layout, ids, torch.arange(len(TEXT), len(ids)), codes[:, 1:])
    logits = decoder.logits(hidden)
    assert theirs.std() > 0.3 and deep.std() > 0.3
    assert (logits[:, rows : rows + config.vocab_size] - theirs).abs().max() <= 1e-4
    assert not logits[:, :rows].any(), "it writes no text"
    ours = layout.heads.logits(layout.states(hidden[before], decoder.embed(ids[len(TEXT) :]), codes[:, 1:-1]))
    assert (ours - deep).abs().max() <= 1e-4


@torch.no_grad()
def test_greedy_frames_are_those_of_its_makers(host: Path) -> None:
    stock = transformers.CsmForConditionalGeneration.from_pretrained(host).eval()
    config, brought = stock.config, read(host)
    theirs = stock.generate(
        TEXT[None], attention_mask=torch.ones_like(TEXT)[None], do_sample=False, depth_decoder_do_sample=False,
        max_new_tokens=FRAMES,
    )[0]  # fmt: skip
    assert theirs.shape == (FRAMES, config.num_codebooks) and len(theirs.unique()) > 4
    decoder, layout, rows = brought.decoder, brought.layout, config.text_vocab_size
    assert layout is not None
    ids, slots = TEXT, torch.zeros(0, config.num_codebooks - 1, dtype=torch.int64)
    for frame in range(FRAMES):
        hidden = states(decoder, layout, ids, torch.arange(len(TEXT), len(ids)), slots)[-1:]
        first = decoder.logits(hidden)[:, rows : rows + config.vocab_size].argmax(-1) + rows
        place = torch.tensor([frame])
        found, _ = layout.step(
            hidden, decoder.embed(first), place, lambda slot, logits: (logits.argmax(-1), logits.amax(-1))
        )
        ids, slots = torch.cat([ids, first]), torch.cat([slots, found])
    assert torch.equal(torch.cat([ids[len(TEXT) :, None] - rows, slots], 1), theirs)
    # And so does the engine, with keys and values kept.
    span = (rows, rows + config.vocab_size)
    request = TokenRequest(
        prompt=TEXT.numpy(), limit=FRAMES, automaton=Frames([span], TEXT.numpy()), sampling=UNGUARDED,
        slots=SlotOptions(ids=FrameIds(held=(span,))),
    )  # fmt: skip
    (answer,) = Engine(decoder, layout=layout).run([request])
    assert answer.slots is not None
    assert (answer.ids - rows).tolist() == theirs[:, 0].tolist() and answer.slots.tolist() == theirs[:, 1:].tolist()


def test_every_weight_goes_out_as_it_came(host: Path) -> None:
    brought, theirs = read(host), load_file(host / "model.safetensors")
    config = json.loads((host / "config.json").read_text())
    leaving = Leaving(
        decoder=brought.decoder, rows=brought.rows, config=config, layout=brought.layout, rest=brought.rest,
        notes=brought.notes,
    )  # fmt: skip
    ours = Csm().state(leaving)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("codec_model.") for name in theirs), "the codec goes along"
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_by_commands_it_comes_in_and_goes_out(host: Path, tmp_path: Path) -> None:
    works("import", host, tmp_path / "model", "--languages", "en", "de")
    model = Model.load(tmp_path / "model")
    layout = model.parts["layout"]
    assert isinstance(layout, DepthLayout) and model.vocabulary.framed == layout.pattern
    assert model.vocabulary.streams["mimi"].cardinalities == (19,) * 4
    works("export", "--native", tmp_path / "model", tmp_path / "out")
    theirs, ours = (load_file(one / "model.safetensors") for one in (host, tmp_path / "out"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text()) == json.loads((host / name).read_text()), name
    transformers.CsmForConditionalGeneration.from_pretrained(tmp_path / "out")
    works("export", tmp_path / "model", tmp_path / "hf")  # a Llama, and everything else beside it
    works("import", tmp_path / "hf", tmp_path / "back")
    works("export", "--native", tmp_path / "back", tmp_path / "again")
    again = load_file(tmp_path / "again/model.safetensors")
    assert again.keys() == theirs.keys() and all(torch.equal(again[name], value) for name, value in theirs.items())


def test_it_fine_tunes_from_the_command_line(host: Path, tmp_path: Path) -> None:
    """Text to units to codes; the depth decoder learns with the rest, and the codec leaves as it came."""
    works("import", host, tmp_path / "model")
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for index in range(24):
        letters = random.integers(0, 6, random.integers(2, 4))
        row = {"id": f"r{index}", "text": "".join("abcdef"[one] for one in letters), "lang": "en", "split": "train"}
        codes = [[int((one * 3 + book) % 19) for book in range(4)] for one in letters]
        rows.append({**row, "speaker": "eva", "units": letters.tolist(), "mimi": codes})
    fine_tune(tmp_path, rows, {
        "mimi": {"kind": "codes", "fingerprint": "csm-mimi-19", "frame_rate": "25/2", "cardinalities": [19] * 4},
        "units": {"kind": "units", "fingerprint": "letters", "frame_rate": "25/2", "cardinalities": [6]},
    }, task="tts.codes", steps=16)  # fmt: skip
    said = tmp_path / "said.npy"
    works("generate", tmp_path / "run/model", "abc", "--task", "tts", "--lang", "en", "--output", "codes", "-o", said)
    assert np.load(said).shape[1] == 4
    works("export", "--native", tmp_path / "run/model", tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (host, tmp_path / "out"))
    assert {name: one.shape for name, one in before.items()} == {name: one.shape for name, one in after.items()}
    same = {name for name, one in before.items() if torch.equal(one, after[name])}
    assert {name for name in before if name.startswith("codec_model.")} <= same
    assert not {name for name in before if name.startswith("depth_decoder.")} & same
    transformers.CsmForConditionalGeneration.from_pretrained(tmp_path / "out")


REFUSED = {
    "tie_codebooks_embeddings": {"tie_codebooks_embeddings": False},
    "attention_bias or mlp_bias": {"attention_bias": True},
    "num_codebooks is 3": {"num_codebooks": 3},
    "text_vocab_size is None": {"text_vocab_size": None},
    "config.json means": {"vocab_size": 18, "depth_decoder_config": {"vocab_size": 18}},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_computed_is_refused(message: str, host: Path) -> None:
    config = json.loads((host / "config.json").read_text())
    changes = dict(REFUSED[message])
    changes["depth_decoder_config"] = {**config["depth_decoder_config"], **changes.get("depth_decoder_config", {})}
    with pytest.raises(InputError, match=message):
        Csm().read(HostFolder(root=host, config={**config, **changes}, tokens={}))
