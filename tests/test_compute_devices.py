"""Everything that answers, placed on another device: the same answers, from operations of that device alone.

The device of these tests is not there (`support.elsewhere`): it refuses what an accelerator refuses, and a factory that
names no device makes a tensor without numbers. So they run, and fail, without a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unitok
from tests.support.answers import ANSWERS, ENCODERS, LISTS, TEXT, front_end, same, told, whole_model
from tests.support.elsewhere import Elsewhere, elsewhere
from tests.support.tiny_model import speech, tiny_model
from tests.support.toy_plans import PROPERTY
from unitok.cli.main import main
from unitok.decoder.attention import Prefix, reference_varlen_attention, torch_varlen_attention, varlen_attention
from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.lora import LoraConfig, add_lora
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.decoder.moe import MixtureConfig, expand
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig, differences
from unitok.frontends.adapters.registry import ADAPTERS
from unitok.frontends.base import LatentFrontEnd
from unitok.generation.allowed_ids import ROWS, MaskTable, rows_of
from unitok.model import Model
from unitok.nbest.lists import write_lists
from unitok.placement import place
from unitok.requests.request import Request
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.output_slots import merge
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def pair() -> tuple[Model, Model]:
    """A model here, and the same one elsewhere."""
    here, there = whole_model(), whole_model()
    with elsewhere() as device:
        place(there, device)
    return here, there


@pytest.mark.parametrize("name", ANSWERS)
def test_a_model_elsewhere_answers_as_it_does_here(pair: tuple[Model, Model], name: str) -> None:
    here, there = pair
    wanted = ANSWERS[name](here)
    with elsewhere():
        found = ANSWERS[name](there)
    same(found, wanted)


@pytest.mark.parametrize("name", ANSWERS)
def test_no_factory_forgets_its_device_where_weights_lie_here(pair: tuple[Model, Model], name: str) -> None:
    wanted = ANSWERS[name](pair[0])
    with torch.device("meta"):
        found = ANSWERS[name](pair[0])
    same(found, wanted, 0.0)


@pytest.mark.parametrize(
    ("encoder", "adapter"),
    [*(("conformer", name) for name in ADAPTERS), *((name, "stacking") for name in ENCODERS if name != "conformer")],
)
def test_latent_front_ends_and_their_gradients_are_the_same_elsewhere(encoder: str, adapter: str) -> None:
    here, there = front_end(encoder, adapter), front_end(encoder, adapter)
    recordings = [speech(0.4), speech(0.7, 1)]

    def tried(front: LatentFrontEnd) -> tuple[list[np.ndarray], list[np.ndarray]]:
        vectors = [one.cpu().numpy() for one in front.encode(recordings)]
        device = front.adapter.rms.device
        found = front([tuple(part.to(device) for part in front.encoder.inputs(one)) for one in recordings])
        found.vectors.square().sum().backward()
        return vectors, [one.grad.cpu().numpy() for one in front.parameters() if one.grad is not None]

    wanted = tried(here)
    with elsewhere() as device:
        found = tried(there.to(device))
    same([*found[0], *found[1]], [*wanted[0], *wanted[1]], 1e-3)


def test_a_latent_model_and_one_with_experts_updates_and_parts_answer_elsewhere() -> None:
    def made() -> Model:
        model = tiny_model(latent=front_end("conformer", "stacking"))
        torch.manual_seed(5)
        model.decoder = expand(model.decoder, MixtureConfig(experts=2, chosen=1)).eval()
        add_lora(model.decoder, LoraConfig(rank=2))
        width = model.decoder.config.width
        model.parts = {
            "noise_vector": NoiseVector(NoiseVectorConfig(width=width)).eval(),
            "cross_attention": CrossAttentionAdapter(CrossAttentionConfig(frames=16), model.decoder.config).eval(),
        }
        return model

    def answers(model: Model) -> list[Any]:
        found = told(model.transcribe(speech(), lang="en", front_end="latent"))
        found += told(model.translate(speech(), source="en", target="de", front_end="latent", beams=2))
        ids = [np.asarray(model.tokenizers.text.encode(text)) for text in LISTS[0].texts]
        noise, looks = model.parts["noise_vector"], model.parts["cross_attention"]
        found.append(noise(differences(model.decoder, ids)[None]).detach().cpu().numpy())
        assert model.latent is not None and isinstance(looks, CrossAttentionAdapter)
        frames = model.latent.encoder.encode([speech()]).hidden[0]
        with looks.attend(model.decoder, [frames]):
            return found + told(model.translate(TEXT, source="en", target="de"))

    here, there = made(), made()
    wanted = answers(here)
    with elsewhere() as device:
        place(there, device)
        found = answers(there)
        assert all(one.device == device for one in (*there.decoder.parameters(), *there.decoder.buffers()))
    same(found, wanted)


# -- what waits, what is bounded ------------------------------------------------------------------------------------


def test_a_step_of_decoding_waits_once_whatever_the_batch_and_the_grammar(pair: tuple[Model, Model]) -> None:
    """Ids and log-probabilities leave the device together; nothing else is read on the host."""
    model = pair[1]
    with elsewhere():
        texts = ["we buy two books", "the green house", "now she sings"]
        requests = [model.prompt_request(Request(task="mt", source="en", target="de", text=text)) for text in texts]
        longest = max(len(one.ids) for one in model.run(requests))
        model.run(requests)  # what is made once was made
        Elsewhere.waits.clear()
        model.run(requests)
    assert Elsewhere.waits == ["tolist"] * longest


def test_documents_lengths_are_read_once_for_all_layers() -> None:
    config = DecoderConfig(vocab_size=30, width=16, layers=3, heads=2, kv_heads=1, prefix_lm=True)
    decoder = Decoder(config, generator=torch.Generator().manual_seed(0))
    with elsewhere() as device:
        decoder.to(device)
        packed = pack_documents([np.arange(9), np.arange(4)], device)
        given = torch.tensor([3, 2], device=device)
        Elsewhere.waits.clear()
        hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=given)
        assert Elsewhere.waits == ["tolist", "tolist"], "of the documents, and of their two parts"
        Elsewhere.waits.clear()
        hidden.sum().backward()
        assert not Elsewhere.waits


@pytest.mark.parametrize("size", [12, 8])
@pytest.mark.parametrize("prefix", [False, True])
def test_half_precision_with_heads_of_any_size_needs_nothing_of_the_processor(size: int, prefix: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(14, heads, size, dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2, 2))
    bounds, given = torch.tensor([0, 9, 9, 14], dtype=torch.int32), torch.tensor([4, 0, 5])
    both = Prefix.of(bounds, given, 14) if prefix else None
    wanted = reference_varlen_attention(q, k, v, bounds, bounds, 9, 9, causal=True, prefix=both)
    wanted_grad = torch.autograd.grad(wanted.float().square().sum(), q)[0]
    with elsewhere() as device:
        there = [one.detach().to(device).requires_grad_() for one in (q, k, v)]
        cu = bounds.to(device)
        both = Prefix.of(cu, given.to(device), 14) if prefix else None
        found = varlen_attention(*there, cu, cu, 9, 9, causal=True, prefix=both)
        found.float().square().sum().backward()
        grad = there[0].grad
        assert grad is not None
        torch.testing.assert_close(found.cpu(), wanted, atol=3e-2, rtol=3e-2)
        torch.testing.assert_close(grad.cpu(), wanted_grad, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("grouped", [True, False], ids=["torch 2.12 and later", "torch 2.11"])
def test_torchs_kernel_is_asked_for_what_it_knows(grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.11 has no `enable_gqa`: keys and values are repeated for it."""
    asked: list[dict[str, Any]] = []

    def answer(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, longest: Any, causal: bool, gqa: bool) -> torch.Tensor:
        asked.append({"heads": k.shape[1], "gqa": gqa})
        return reference_varlen_attention(q, k, v, cu_q, cu_k, longest, longest, causal=causal)

    def early(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
    ):  # type: ignore[no-untyped-def]
        assert query.shape[1] == key.shape[1]
        return answer(query, key, value, cu_seq_q, cu_seq_k, max_q, window_size == (-1, 0), False)

    def late(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
    ):  # type: ignore[no-untyped-def]
        return answer(query, key, value, cu_seq_q, cu_seq_k, max_q, window_size == (-1, 0), enable_gqa)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", late if grouped else early)
    torch.manual_seed(0)
    q, k, v = (torch.randn(14, heads, 8) for heads in (4, 2, 2))
    bounds = torch.tensor([0, 9, 14], dtype=torch.int32)
    for causal in (True, False):
        found = torch_varlen_attention(q, k, v, bounds, bounds, 9, 9, causal=causal)
        wanted = reference_varlen_attention(q, k, v, bounds, bounds, 9, 9, causal=causal)
        torch.testing.assert_close(found, wanted)
    assert asked[0] == ({"heads": 2, "gqa": True} if grouped else {"heads": 4, "gqa": False})


ranges_of_ids = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), max_size=5).map(
    lambda pairs: merge([(start, start + size) for start, size in pairs])
)


@PROPERTY
@given(st.lists(ranges_of_ids, min_size=1, max_size=6))
def test_rows_of_ranges_are_true_inside_them(rows: list[Any]) -> None:
    found = rows_of(rows, 70, "cpu").numpy()
    for row, ranges in zip(found, rows):
        assert np.flatnonzero(row).tolist() == [one for start, stop in ranges for one in range(start, stop)]


class Told:
    """An automaton of which only the allowed ranges are asked."""

    def __init__(self, ranges: Any) -> None:
        self.state_key = ranges


@PROPERTY
@given(st.lists(st.lists(ranges_of_ids, min_size=1, max_size=90), min_size=1, max_size=8))
def test_masks_follow_their_states_however_many_there_were(steps: list[list[Any]]) -> None:
    table, widest = MaskTable(70, torch.device("cpu")), 0
    for states in steps:
        found = table([Told(one) for one in states])  # type: ignore[misc]
        assert torch.equal(found.expand(len(states), -1), rows_of(states, 70, "cpu"))
        widest = max(widest, len(set(states)))
        assert len(table.rows) <= len(table.table) <= max(ROWS, 2 * widest)


def test_a_long_answer_of_units_and_codes_keeps_the_memory_of_a_short_one() -> None:
    """Every pair of units is a state of its own."""
    vocabulary = Vocabulary.build(
        text=StreamInfo("text", "text", "t", None, (50,)),
        streams=[
            StreamInfo("units", "units", "v", Fraction(25), (400,), views="codes"),
            StreamInfo("codes", "codes", "c", Fraction(25), (400, 8)),
        ],
        languages=("en",),
    )
    plan = SequenceSpec("tts", "en", flags=("<out:codes>",), conditions=(Span("text", np.arange(4)),))
    prompt = render_prompt(plan, vocabulary)
    automaton = Automaton(vocabulary, prompt, max_new_tokens=4000, aligned=True)
    table, states, random = MaskTable(vocabulary.size, torch.device("cpu")), set(), np.random.default_rng(0)
    while not automaton.finished:
        states.add(automaton.state_key)
        mask = table([automaton])[0].numpy()
        assert np.array_equal(mask, automaton.mask(vocabulary.size))
        automaton.advance(int(random.choice(np.flatnonzero(mask))))
    assert len(states) > 4 * ROWS and len(table.table) == ROWS
    kept = [value for value in vars(automaton).values() if isinstance(value, dict)]
    assert all(len(value) < 20 for value in kept), "nothing of the states is kept in the automaton"


# -- where a model is -----------------------------------------------------------------------------------------------


def test_models_are_loaded_moved_and_saved(tmp_path: Path, pair: tuple[Model, Model]) -> None:
    with elsewhere():
        pair[1].save(tmp_path / "model")
    model = unitok.load(tmp_path / "model", "cpu")
    assert model.device == torch.device("cpu") and model.decoder.embedding.dtype == torch.float32
    assert torch.equal(model.decoder.embedding, pair[0].decoder.embedding)
    same(told(model.translate(TEXT, source="en", target="de")), told(pair[0].translate(TEXT, source="en", target="de")))
    half = unitok.load(tmp_path / "model", device="cpu", dtype="bf16")
    assert half.decoder.embedding.dtype == torch.bfloat16 == half.to("cpu").decoder.embedding.dtype
    assert half.to(dtype=torch.float32).decoder.embedding.dtype == torch.float32
    assert half.vocoder is not None and next(half.vocoder.units.parameters()).dtype == torch.float32  # type: ignore[union-attr]


def test_steps_follow_a_model_that_moves() -> None:
    model = tiny_model()
    wanted = model.translate(TEXT, source="en", target="de").ids
    model.engine.capture(capacity=512, sizes=(1,))
    assert model.to("cpu", torch.bfloat16) is model and model.engine.graphs is None
    assert model.engine.stepper is not None and model.engine.stepper.embedding.dtype == torch.bfloat16
    assert len(model.to(dtype=torch.float32).translate(TEXT, source="en", target="de").ids) > 0 < len(wanted)
    model.hasten(int8=True, compiled=False)
    with pytest.raises(InputError, match="int8 weights speed up decoding on processors only"), elsewhere() as device:
        place(model, device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"dtype": "fp17"}, "precision is 'fp17': choose from"),
        ({"dtype": "bf16-pure"}, "for training; choose from auto, fp32, bf16"),
        ({"dtype": torch.int32}, "dtype is torch.int32: weights are"),
    ],
)
def test_devices_and_types_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model().to(**options)


def test_auto_precision_is_what_the_processor_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        monkeypatch.setenv("UNITOK_PRECISION", precision)
        assert tiny_model().to("cpu", "auto").decoder.embedding.dtype == dtype
        assert tiny_model().to("cpu").decoder.embedding.dtype == torch.float32, "what nobody asked for stays"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("devices") / "model"
    tiny_model().save(folder)
    return str(folder)


ANSWERING = {
    "generate": ["MODEL", "the green house", "--task", "mt", "--source", "en", "--target", "de"],
    "evaluate": ["MODEL", "shards"],
    "nbest": ["MODEL", "rows.jsonl"],
    "rescore": ["MODEL", "LISTS"],
    "correct": ["MODEL", "LISTS"],
    "probe": ["MODEL", "ROWS"],
    "adapters": ["MODEL", "ROWS"],
}
"""Commands that answer with a model, or train beside one."""


@pytest.mark.parametrize("command", ANSWERING)
def test_a_device_that_is_not_there_is_one_message(
    command: str, saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "the", "lang": "en", "split": "test"}\n')
    splits = ("train", "dev", "test")
    lists = [replace(LISTS[0], id=one, split=one, reference=LISTS[0].texts[0]) for one in splits]
    write_lists(tmp_path / "lists.jsonl", lists)
    names = {"MODEL": saved, "LISTS": str(tmp_path / "lists.jsonl"), "ROWS": str(tmp_path / "rows.jsonl")}
    words = [command, *(names.get(word, word) for word in ANSWERING[command])]
    for device, message in (("tpu", "device is 'tpu'"), ("cuda:77", "device is 'cuda:77'")):
        assert main([*words, "--device", device]) == 2
        said = capsys.readouterr()
        assert message in said.err and said.err.count("\n") == 1 and not said.out


def test_a_command_answers_where_and_as_it_is_asked(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", saved, TEXT, "--task", "mt", "--source", "en", "--target", "de"]
    assert main(words) == 0
    wanted = capsys.readouterr().out
    assert main([*words, "--device", "cpu", "--precision", "fp32"]) == 0
    assert capsys.readouterr().out == wanted
    assert main([*words, "--device", "cpu", "--precision", "bf16"]) == 0
    capsys.readouterr()
    assert main([*words, "--precision", "half"]) == 2
    assert "precision is 'half': choose from" in capsys.readouterr().err


# -- training -------------------------------------------------------------------------------------------------------
