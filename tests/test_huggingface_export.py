"""Exports open in stock transformers where unitok is not installed, and mean there what they mean here."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.support.tiny_model import WORDS, tiny_model
from unitok.cli.main import main
from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.lora import LoraConfig, add_lora, lora_config, updates
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.decoder.moe import MixtureConfig, expand, mixtures
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.export import export_hf, import_hf
from unitok.generation.generate import generate
from unitok.huggingface.tokenizer import token_names, tokenizer_config, tokenizer_json
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet

transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")

READER = Path(__file__).parent / "support/hf_reader.py"
NEW = 16
SCRIPTS = (
    "the green house stands here today, naïve façade",
    "зелёный дом стоит здесь сегодня",
    "το πράσινο σπίτι στέκεται εδώ σήμερα",
    "绿色的房子今天在这里。",
    "हरा घर आज यहाँ खड़ा है",
    "البيت الأخضر هنا اليوم",
    "오늘 여기 초록 집이 있다",
)
USER_TEXTS = (
    *SCRIPTS,
    "🏠 👩‍👩‍👧 🇩🇪 mixed 🙂 in",
    " one leading space",
    "   three leading, two  inside and two trailing  ",
    "\ttab and\nnew line\r\n",
    "▁ already there ▁▁ twice",
    "e\u0301 is not é, ﬁ is a ligature, ＡＢ are wide",
    "<bos><asr><lang:en><units><u:3></units><gen:text>",
    "say <eos> now",
    "<0x41><0x0A> <unk> <0x4",
    "<u:1",
    "",
    " ",
)


def lively(decoder: Decoder) -> Decoder:
    """Weights of a scale at which logits differ by position and greedy choices are clear."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            scale = 0.25 if parameter.ndim == 2 else 0.1
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return decoder


def own_logits(decoder: Decoder, ids: np.ndarray) -> torch.Tensor:
    """(T, V) of one document."""
    packed = pack_documents([ids])
    with torch.inference_mode():
        return decoder.logits(decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)).clone()


def prompts(model: Model) -> tuple[list[np.ndarray], list[str]]:
    """Prompts of several tasks, as ids and as somebody would type them."""
    names = model.vocabulary.names()
    speech = Span("units", np.array([3, 1, 4, 1, 5, 9]))
    spoken = model.vocabulary.to_ids("units", speech.content).tolist()
    units = "".join(names[token] for token in spoken)
    text = model.text_span("das haus  steht")
    plans = [
        SequenceSpec("mt", "de", "en", (), (text,)),
        SequenceSpec("asr", "en", None, (), (speech,)),
        SequenceSpec("lm", "de", None, (), (), (model.text_span("heute"),)),
    ]
    ids = [render_prompt(plan, model.vocabulary) for plan in plans]
    typed = []
    for one, spelled in zip(ids, ("das haus  steht", units, "heute")):
        marks = [names[token] for token in one]
        inside = [i for i, token in enumerate(one) if token < model.tokenizers.text.size or token in spoken]
        typed.append("".join([*marks[: inside[0]], spelled, *marks[inside[-1] + 1 :]]))
    return ids, typed


@pytest.mark.parametrize("damage", ["cut", "gone", "no generation", "empty config", "a list"])
def test_a_damaged_model_is_not_exported(damage: str, tmp_path: Path) -> None:
    tiny_model().save(tmp_path / "m")
    core = tmp_path / "m/core"
    if damage == "cut":
        weights = core / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "gone":
        (core / "model.safetensors").unlink()
    elif damage == "no generation":
        (core / "generation_config.json").unlink()
    else:
        (core / "config.json").write_text("{}" if damage == "empty config" else "[]")
    with pytest.raises(InputError, match="core"):
        export_hf(tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


Reader = tuple["subprocess.Popen[str]", Path]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A process with nothing but transformers, and what it says where it fails."""
    place = tmp_path_factory.mktemp("reader")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(place / "errors", "w") as errors, subprocess.Popen(
        [sys.executable, "-P", str(READER)], cwd=place, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
    ) as process:  # fmt: skip
        yield process, place / "errors"
        assert process.stdin is not None
        process.stdin.close()


def ask_reader(
    reader: Reader, model: Model, folder: Path, place: Path, user: tuple[str, ...] = USER_TEXTS
) -> dict[str, Any]:
    """What a process with nothing but transformers makes of an export."""
    from safetensors.torch import save_file

    place.mkdir()
    ids, typed = prompts(model)
    tensors = {f"ids{index}": torch.from_numpy(one) for index, one in enumerate(ids)}
    tensors |= {f"logits{index}": own_logits(model.decoder, one) for index, one in enumerate(ids)}
    save_file(tensors, place / "prompts.safetensors")
    added = token_names(model.vocabulary)[model.tokenizers.text.size :]
    ask = {"folder": str(folder.resolve()), "typed": typed, "user": user, "added": added, "new": NEW}
    (place / "ask.json").write_text(json.dumps(ask))
    process, errors = reader
    assert process.stdin is not None and process.stdout is not None
    print(place.resolve(), file=process.stdin, flush=True)
    assert process.stdout.readline() == "read\n", errors.read_text()
    return json.loads((place / "answer.json").read_text())


def check_answer(model: Model, answer: dict[str, Any], kind: str) -> None:
    """Everything that the export promises."""
    ids, _ = prompts(model)
    vocabulary, text = model.vocabulary, model.tokenizers.text
    assert answer["model"] == kind and answer["dtype"] == "torch.float32"
    assert not answer["remote_code"] and not answer["loaded"]
    assert answer["difference"] <= 1e-4
    own = [one.ids.tolist() for one in generate(model.decoder, ids, max_new_tokens=NEW, eos=vocabulary.eos)]
    assert answer["greedy"] == own and len({token for one in own for token in one}) > 3
    assert answer["typed"] == [one.tolist() for one in ids]
    assert answer["from_text"] == own[0]
    assert answer["user"] == [text.encode(one) for one in USER_TEXTS]
    assert answer["decoded"] == [text.decode(text.encode(one)) for one in USER_TEXTS]
    assert all(token < text.size for one in answer["user"] for token in one)
    assert answer["added"] == [[index] for index in range(text.size, vocabulary.size)]
    assert answer["joined"] == list(range(text.size, vocabulary.size))
    assert answer["length"] == vocabulary.size
    assert answer["roles"] == [vocabulary.bos, vocabulary.eos, vocabulary.pad]


@pytest.fixture(scope="module")
def model() -> Model:
    one = tiny_model()
    return replace(one, decoder=lively(one.decoder))


@pytest.fixture(scope="module")
def folders(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model directory and its export."""
    root = tmp_path_factory.mktemp("export")
    model.save(root / "model")
    assert main(["export", str(root / "model"), str(root / "hf")]) == 0
    return root / "model", root / "hf"


def test_an_export_means_the_same_where_only_transformers_is_installed(
    model: Model, folders: tuple[Path, Path], reader: Reader, tmp_path: Path
) -> None:
    check_answer(model, ask_reader(reader, model, folders[1], tmp_path / "place"), "LlamaForCausalLM")


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3ForCausalLM", {"qk_norm": True, "head_size": 24, "tied": False}),
    "biased qwen3": ("Qwen3ForCausalLM", {"qk_norm": True, "attention_bias": True}),
    # stock transformers takes no tokenizer but Qwen's for model type qwen2
    "qwen2": ("LlamaForCausalLM", {"attention_bias": True, "heads": 4}),
    "mistral": ("MistralForCausalLM", {"heads": 3, "kv_heads": 3, "head_size": 16, "tied": False}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_has_a_stock_class(model: Model, reader: Reader, tmp_path: Path, name: str) -> None:
    kind, changes = SHAPES[name]
    sizes: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, **changes}
    shaped = DecoderConfig(vocab_size=model.vocabulary.size, **sizes)
    other = replace(model, decoder=lively(Decoder(shaped, generator=torch.Generator().manual_seed(3)).eval()))
    other.save(tmp_path / "model")
    export_hf(tmp_path / "model", tmp_path / "hf")
    check_answer(other, ask_reader(reader, other, tmp_path / "hf", tmp_path / "place"), kind)
    import_hf(tmp_path / "hf", tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "model")
    export_hf(tmp_path / "back", tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "hf")


def test_experts_become_a_mixtral_and_come_back(model: Model, reader: Reader, tmp_path: Path) -> None:
    """With low-rank updates and a norm of its own for every expert; low-rank updates alone stay a Llama."""
    experts = lively(expand(model.decoder, MixtureConfig(experts=4, chosen=2))).eval()
    for feed in mixtures(experts):  # routing that no rounding turns over
        feed.router.data.mul_(8)
    for name, decoder, kind in (("mixed", experts, "Mixtral"), ("low", copy.deepcopy(model.decoder), "Llama")):
        add_lora(decoder, LoraConfig(rank=2))
        for update in updates(decoder).values():
            for value in update.b.values():
                torch.nn.init.normal_(value, std=0.1)
        taught = replace(model, decoder=decoder)
        taught.save(tmp_path / name)
        export_hf(tmp_path / name, tmp_path / f"{name}-hf")
        answer = ask_reader(reader, taught, tmp_path / f"{name}-hf", tmp_path / f"{name}-place")
        check_answer(taught, answer, f"{kind}ForCausalLM")
        import_hf(tmp_path / f"{name}-hf", tmp_path / f"{name}-back")
        back = Model.load(tmp_path / f"{name}-back")
        assert len(mixtures(back.decoder)) == len(mixtures(decoder)) and lora_config(back.decoder) is None
        for ids in prompts(model)[0]:
            torch.testing.assert_close(own_logits(back.decoder, ids), own_logits(decoder, ids), atol=1e-4, rtol=1e-4)
        export_hf(tmp_path / f"{name}-back", tmp_path / f"{name}-again")
        assert files(tmp_path / f"{name}-again") == files(tmp_path / f"{name}-hf")
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "mixed-hf").save_pretrained(tmp_path / "theirs")
    shutil.copytree(tmp_path / "mixed-hf/unitok", tmp_path / "theirs/unitok")
    import_hf(tmp_path / "theirs", tmp_path / "own")  # what transformers writes of it
    assert files(tmp_path / "own") == files(tmp_path / "mixed-back")
    state = tmp_path / "mixed-hf/model.safetensors"
    tensors = load_file(state)
    save_file({key: value for key, value in tensors.items() if "experts.3.w2" not in key}, state)
    with pytest.raises(InputError, match=r"experts\.3\.w2\.weight' is missing"):
        import_hf(tmp_path / "mixed-hf", tmp_path / "no")


def test_what_no_stock_class_computes_is_said(model: Model, tmp_path: Path) -> None:
    normed = DecoderConfig(vocab_size=model.vocabulary.size, width=32, layers=1, heads=2, kv_heads=1, qk_norm=True)
    replace(model, decoder=expand(Decoder(normed), MixtureConfig(experts=2))).save(tmp_path / "experts")
    replace(model, parts={"noise_vector": NoiseVector(NoiseVectorConfig(width=32))}).save(tmp_path / "noise")
    ears = CrossAttentionAdapter(CrossAttentionConfig(frames=4, size=8), model.decoder.config)
    replace(model, parts={"cross_attention": ears}).save(tmp_path / "ears")
    for name, remedy in (("experts", "qk_norm"), ("noise", "without --noise-vectors"), ("ears", "without --hear")):
        with pytest.raises(InputError, match=remedy):
            export_hf(tmp_path / name, tmp_path / "hf")
        assert not (tmp_path / "hf").exists()


def test_a_shape_without_a_stock_class_is_said(model: Model, tmp_path: Path) -> None:
    sizes = DecoderConfig(
        vocab_size=model.vocabulary.size, width=32, layers=1, heads=3, kv_heads=3, head_size=8, attention_bias=True
    )
    replace(model, decoder=Decoder(sizes)).save(tmp_path / "model")
    with pytest.raises(InputError, match="no multiple of the heads"):
        export_hf(tmp_path / "model", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SentencePieceText, Any]:
    """Our tokenizer and the stock one of its export, trained on several scripts."""
    random = np.random.default_rng(0)
    words = [*WORDS, *(word for line in SCRIPTS for word in line.split()), "🏠", "🙂"]
    lines = [" ".join(random.choice(words, 6)) for _ in range(200)]
    text = SentencePieceText.train(lines, 700, kind=request.param)
    vocabulary = TokenizerSet.of(text).vocabulary(["en"])
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "tokenizer.json").write_text(tokenizer_json(text, vocabulary), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", tokenizer_config(text, vocabulary, max_positions=64))
    return text, transformers.AutoTokenizer.from_pretrained(folder)


def test_stock_tokenizers_agree_on_scripts_spaces_and_lookalikes(pair: tuple[SentencePieceText, Any]) -> None:
    text, stock = pair
    for one in USER_TEXTS:
        ids = stock(one, split_special_tokens=True).input_ids
        assert ids == text.encode(one), one
        assert stock.decode(ids) == text.decode(ids) == one.replace("▁", " ")
        assert all(token < text.size for token in ids)
    for one in SCRIPTS:  # nothing in them looks like a token, so that the switch is not needed
        assert stock(one).input_ids == text.encode(one)


PARTS = st.sampled_from(
    [
        *WORDS,
        *"".join(SCRIPTS),
        "🏠",
        "🙂",
        " ",
        "  ",
        "▁",
        "\n",
        "\0",
        "<",
        ">",
        "<0x41>",
        "<unk>",
        "<asr>",
        "<eos>",
        "ß",
    ]
)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.one_of(PARTS, st.text(max_size=5)), max_size=30))
def test_stock_tokenizers_agree_on_any_text(pair: tuple[SentencePieceText, Any], parts: list[str]) -> None:
    text, stock = pair
    one = "".join(parts)
    assert stock(one, split_special_tokens=True).input_ids == text.encode(one)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_export_import_export_gives_identical_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    directory, folder = folders
    assert main(["import", str(folder), str(tmp_path / "model")]) == 0
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "hf")]) == 0
    assert files(tmp_path / "model") == files(directory)
    assert files(tmp_path / "hf") == files(folder)


def test_a_restored_export_takes_the_weights_that_the_folder_holds_now(
    model: Model, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tuned = transformers.AutoModelForCausalLM.from_pretrained(folders[1])
    with torch.no_grad():
        tuned.model.norm.weight.mul_(2)
    tuned.resize_token_embeddings(model.vocabulary.size + 7, mean_resizing=False)
    tuned.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned/unitok").symlink_to(folders[1] / "unitok")
    back = Model.load(import_hf(tmp_path / "tuned", tmp_path / "model"))
    assert back.vocabulary == model.vocabulary and back.voices == model.voices
    ids = prompts(model)[0][0]
    torch.testing.assert_close(own_logits(back.decoder, ids), 2 * own_logits(model.decoder, ids), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported_or_restored_is_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model directory"):
        export_hf(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="leave .* out"):
        import_hf(folders[1], tmp_path / "out", tokenizers=folders[0] / "tokenizers")
    with pytest.raises(InputError, match=r"config\.json"):
        import_hf(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
