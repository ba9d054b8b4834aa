"""Folders of Moshi and of Kyutai's speech to text come in as a decoder and a layout, and go out as they came."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.codebook_hosts import write_kyutai_stt, write_moshi
from tests.support.command import refused, works
from tests.test_huggingface_codebooks import UNGUARDED, Frames
from tests.test_huggingface_csm import states
from unitok.generation.engine import Engine
from unitok.generation.framed import FrameIds, SlotOptions
from unitok.generation.token_request import TokenRequest
from unitok.huggingface.codebooks.base import Brought
from unitok.huggingface.codebooks.registry import family_of
from unitok.layouts.registry import layout_from_config
from unitok.layouts.step_depth import StepDepthLayout
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.positions import Frames as Beside

transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")

FRAMES, BOOKS = 6, 4
WRITERS = {"moshi": write_moshi, "kyutai_stt": write_kyutai_stt}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kyutai")
    for name, write in WRITERS.items():
        write(root / name)
    return {name: root / name for name in WRITERS}


def read(folder: Path) -> Brought:
    found = family_of(folder)
    assert found is not None and found[0].name == folder.name
    return found[0].read(found[1])


def drawn(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def beside(codes: Tensor, absent: int) -> Tensor:
    """Codes as slots hold them: absence is -1."""
    return torch.where(codes == absent, ABSENT, codes)


@torch.no_grad()
def test_logits_of_every_slot_of_moshi(hosts: dict[str, Path]) -> None:
    stock = transformers.MoshiForConditionalGeneration.from_pretrained(hosts["moshi"]).eval()
    size, rows = stock.config.audio_vocab_size, stock.config.vocab_size
    text = torch.cat([torch.tensor([rows]), drawn(rows, FRAMES - 1)])
    codes = drawn(size, FRAMES, 2 * BOOKS)
    codes[0], codes[1, [1, 5]] = size, size  # nothing has been said at first, and what is delayed comes later
    theirs = stock(
        input_ids=text[None], moshi_audio_codes=codes[None, :, :BOOKS].mT, user_audio_codes=codes[None, :, BOOKS:].mT
    )  # fmt: skip
    last = theirs.last_hidden_state[0]
    own = codes[:, :BOOKS]
    known = torch.cat([drawn(rows, FRAMES, 1, seed=1), own[:, :-1]], 1)
    deep = stock.depth_decoder(input_ids=known, last_hidden_state=last[:, None].expand(-1, BOOKS, -1)).logits
    brought = read(hosts["moshi"])
    decoder, layout = brought.decoder, brought.layout
    assert isinstance(layout, StepDepthLayout)
    hidden = states(decoder, layout, text, torch.arange(FRAMES), beside(codes, size))
    logits = decoder.logits(hidden)
    assert theirs.logits.std() > 0.3 and deep.std() > 0.3
    assert (logits[:, :rows] - theirs.logits[0]).abs().max() <= 1e-4 and not logits[:, rows].any()
    ids = layout.id_rows(known[:, 0], decoder.embed)
    ours = layout.heads.logits(layout.states(hidden, ids, beside(own, size)[:, :-1]))
    assert (ours - deep).abs().max() <= 1e-4
    losses = layout.losses(hidden, ids, beside(codes, size), torch.ones(FRAMES))
    predicted = own != size
    nll = torch.nn.functional.cross_entropy(deep[predicted], own[predicted], reduction="sum")
    assert losses.total[:BOOKS].sum() == pytest.approx(float(nll), abs=1e-2)
    assert losses.weight.tolist() == [*predicted.sum(0).tolist(), *[0] * BOOKS]


@torch.no_grad()
def test_greedy_frames_of_moshi(hosts: dict[str, Path]) -> None:
    """Frame by frame, what is heard being given: text, then codes, by its makers' classes and by ours."""
    stock = transformers.MoshiForConditionalGeneration.from_pretrained(hosts["moshi"]).eval()
    size, rows = stock.config.audio_vocab_size, stock.config.vocab_size
    heard = drawn(size, FRAMES, BOOKS, seed=3)
    text, own = torch.tensor([rows]), torch.full((1, BOOKS), size)
    for frame in range(1, FRAMES):
        found = stock(
            input_ids=text[None], moshi_audio_codes=own[None].mT, user_audio_codes=heard[None, :frame].mT
        )  # fmt: skip
        text = torch.cat([text, found.logits[0, -1:].argmax(-1)])
        chain = text[None, -1:]
        for _ in range(BOOKS):
            state = found.last_hidden_state[:, -1:].expand(-1, chain.shape[1], -1)
            deep = stock.depth_decoder(input_ids=chain, last_hidden_state=state).logits
            chain = torch.cat([chain, deep[:, -1:].argmax(-1)], 1)
        own = torch.cat([own, chain[:, 1:]])
    assert len(own.unique()) > 4
    brought = read(hosts["moshi"])
    decoder, layout = brought.decoder, brought.layout
    assert layout is not None
    ids, said = torch.tensor([rows]), torch.full((1, BOOKS), size)
    for frame in range(1, FRAMES):
        slots = beside(torch.cat([said, heard[:frame]], 1), size)
        hidden = states(decoder, layout, ids, torch.arange(len(ids)), slots)[-1:]
        new = decoder.logits(hidden)[:, :rows].argmax(-1)
        chosen, _ = layout.step(
            hidden, layout.id_rows(new, decoder.embed), torch.tensor([frame]),
            lambda slot, logits: (logits.argmax(-1), logits.amax(-1)),
        )  # fmt: skip
        assert (chosen[:, BOOKS:] == ABSENT).all(), "the other side is not said"
        ids, said = torch.cat([ids, new]), torch.cat([said, chosen[:, :BOOKS]])
    assert torch.equal(ids, text) and torch.equal(said, own)
    # And so does the engine, with keys and values kept, being told what is heard.
    nothing = [ABSENT] * BOOKS
    prompt, first = np.array([rows]), np.array([[*nothing, *heard[0].tolist()]])
    request = TokenRequest(
        prompt=prompt, limit=FRAMES - 1, automaton=Frames([(0, rows)], prompt), sampling=UNGUARDED,
        frames=Beside(index=np.array([0]), slots=first),
        slots=SlotOptions(
            ids=FrameIds(held=((0, rows + 1),)), given=lambda place: [*nothing, *heard[place + 1].tolist()]
        ),
    )  # fmt: skip
    (answer,) = Engine(decoder, layout=layout).run([request])
    assert answer.slots is not None
    assert answer.ids.tolist() == text[1:].tolist() and answer.slots[:, :BOOKS].tolist() == own[1:].tolist()


@torch.no_grad()
def test_logits_and_greedy_text_of_speech_to_text(hosts: dict[str, Path]) -> None:
    stock = transformers.KyutaiSpeechToTextForConditionalGeneration.from_pretrained(hosts["kyutai_stt"]).eval()
    config, brought = stock.config, read(hosts["kyutai_stt"])
    decoder, layout, rows = brought.decoder, brought.layout, config.vocab_size
    assert layout is not None and decoder.config.vocab_size == rows + 1, "text begins with a row of its own"
    codes = drawn(config.codebook_vocab_size, FRAMES, BOOKS)
    codes[0], codes[3, 2:] = config.audio_bos_token_id, config.audio_pad_token_id
    theirs, ours = torch.tensor([config.bos_token_id]), torch.tensor([rows])
    for frame in range(FRAMES):
        ids = torch.cat([theirs[:, None], codes[: frame + 1]], 1)
        stock_logits = stock(input_ids=ids[None]).logits[0]
        slots = beside(codes[: frame + 1], config.audio_pad_token_id)
        logits = decoder.logits(states(decoder, layout, ours, torch.arange(frame + 1), slots))[:, :rows]
        assert stock_logits.std() > 0.3 and (logits - stock_logits).abs().max() <= 1e-4
        theirs = torch.cat([theirs, stock_logits[-1:].argmax(-1)])
        ours = torch.cat([ours, logits[-1:].argmax(-1)])
    assert torch.equal(ours[1:], theirs[1:]) and len(ours.unique()) > 3


def test_the_row_that_text_begins_with_goes_out_as_it_was_trained(hosts: dict[str, Path], tmp_path: Path) -> None:
    works("import", hosts["kyutai_stt"], tmp_path / "model")
    model = Model.load(tmp_path / "model")
    config = json.loads((hosts["kyutai_stt"] / "config.json").read_text(encoding="utf-8"))
    assert config["bos_token_id"] >= config["vocab_size"]
    with torch.no_grad():
        model.decoder.embedding[config["vocab_size"]] += 1.0
    model.save(tmp_path / "trained")
    works("export", "--native", tmp_path / "trained", tmp_path / "out")
    theirs, ours = (load_file(one / "model.safetensors") for one in (hosts["kyutai_stt"], tmp_path / "out"))
    changed = {name for name, value in theirs.items() if not torch.equal(ours[name], value)}
    assert changed == {"model.embed_tokens.embed_tokens.weight"}
    (name,) = changed
    rows = (ours[name] != theirs[name]).any(1).nonzero().flatten().tolist()
    assert rows == [config["bos_token_id"]]


@pytest.mark.parametrize("family", WRITERS)
def test_by_commands_it_comes_in_and_goes_out(family: str, hosts: dict[str, Path], tmp_path: Path) -> None:
    works("import", hosts[family], tmp_path / "model")
    assert Model.load(tmp_path / "model").vocabulary.framed is not None
    works("export", "--native", tmp_path / "model", tmp_path / "out")
    theirs, ours = (load_file(one / "model.safetensors") for one in (hosts[family], tmp_path / "out"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and torch.equal(ours[name], value), name
    for path in (one for one in hosts[family].iterdir() if one.suffix == ".json"):
        assert json.loads((tmp_path / "out" / path.name).read_text()) == json.loads(path.read_text()), path.name


@pytest.mark.parametrize("family", WRITERS)
def test_its_layout_is_made_again_of_what_is_kept(family: str, hosts: dict[str, Path]) -> None:
    layout = read(hosts[family]).layout
    assert layout is not None
    again = layout_from_config(json.loads(json.dumps(layout.config())))
    again.load_state_dict(layout.state_dict())
    assert again.pattern == layout.pattern
    slots = drawn(32, 5, len(layout.pattern.slots)) - 1
    assert torch.equal(again.vectors(slots), layout.vectors(slots))


def test_what_is_not_computed_is_refused(hosts: dict[str, Path], tmp_path: Path) -> None:
    write_moshi(tmp_path / "relu", hidden_act="relu")
    with pytest.raises(InputError, match="hidden_act 'relu'"):
        read_any(tmp_path / "relu")
    write_kyutai_stt(tmp_path / "other", audio_pad_token_id=7)
    with pytest.raises(InputError, match="audio_pad_token_id is 7"):
        read_any(tmp_path / "other")
    for kind in ("musicgen", "musicgen_decoder"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"model_type": kind}))
        refused("import", tmp_path / kind, tmp_path / "out", saying=(kind, "sinusoidal positions", "layout 'delay'"))


def read_any(folder: Path) -> Brought:
    found = family_of(folder)
    assert found is not None
    return found[0].read(found[1])
