"""Texts come back as they were, whatever the host's tokenizer does with spaces, and the exported file agrees."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.hf_hosts import write_tokenizer
from tests.support.tiny_model import tokenizers
from unitok.huggingface.tokenizer import tokenizer_json
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.huggingface import HostText
from unitok_tokenizers.text.registry import load_text_tokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet

library = pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra hf)")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = "aé\u0301 \n\t\r\u00a0zЖ漢🙂<.A"
SPACED = st.text(alphabet=LETTERS, max_size=8)


def sentencepiece_like(scheme: str, *, sequence: bool = False, strip: bool = True) -> Any:
    """A BPE with byte fallback, as converted from sentencepiece: one of the ways in which such files are written."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if scheme == "legacy":  # Llama 2
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        step = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([step]) if sequence else step
    if strip:
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    else:
        steps = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme), decoders.Fuse()]
    made.decoder = decoders.Sequence(steps)
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>", *BYTES], show_progress=False)
    made.train_from_iterator(["the green house stands", "das grüne Haus"] * 4, trainer)
    return without_byte_tokens(made)


def without_byte_tokens(made: Any) -> Any:
    value = json.loads(made.to_str())
    value["added_tokens"] = [one for one in value["added_tokens"] if not one["content"].startswith("<0x")]
    return type(made).from_str(json.dumps(value))


def byte_level(*, prefix: bool, normalizer: Any = None) -> Any:
    """GPT-2's kind; with a prefix as RoBERTa writes it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["the green house stands", "das grüne Haus"] * 4, trainer)
    return made


def published(kind: str, folder: Path) -> Any:
    write_tokenizer(folder, kind)
    return library.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("published")
    made = {kind: published(kind, folder) for kind in ("llama", "mistral", "qwen2", "qwen3")}
    for scheme in ("first", "always", "never", "legacy"):
        made[scheme] = sentencepiece_like(scheme)
    for scheme in ("first", "always"):
        made[f"{scheme}, its own decoder"] = sentencepiece_like(scheme, strip=False)
        made[f"{scheme}, in a sequence"] = sentencepiece_like(scheme, sequence=True)
    return {**made, "gpt2": byte_level(prefix=False), "with a prefix": byte_level(prefix=True)}


NAMES = (
    "llama", "mistral", "qwen2", "qwen3", "first", "always", "never", "legacy", "first, its own decoder",
    "always, its own decoder", "first, in a sequence", "always, in a sequence", "gpt2", "with a prefix",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_text_comes_back_from_every_host(name: str, hosts: dict[str, Any]) -> None:
    host = HostText(hosts[name].to_str(), {})

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(SPACED)
    @example(" hello")
    @example("  hello  ")
    @example(" ")
    @example(" \n")
    @example("")
    @example("<unk> </s><|im_end|>")
    def check(text: str) -> None:
        found = host.decode(host.encode(text))
        if name.startswith("qwen"):  # their own normalizer composes
            assert unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", text)
        else:
            assert found == text

    check()


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_the_hosts_wherever_no_space_comes_first(name: str, hosts: dict[str, Any]) -> None:
    host, stock = HostText(hosts[name].to_str(), {}), hosts[name]
    for text in ("hello", "the green house", "das grüne Haus \n", "\nthe", "Ж漢🙂", "a  b"):
        assert host.encode(text) == stock.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", NAMES)
def test_saved_twice_it_is_the_same_and_an_export_agrees(name: str, hosts: dict[str, Any], tmp_path: Path) -> None:
    host = HostText(hosts[name].to_str(), {})
    host.save(tmp_path)
    again = load_text_tokenizer(tmp_path)
    assert isinstance(again, HostText) and again.json == host.json and again.fingerprint == host.fingerprint
    vocabulary = TokenizerSet.of(host).vocabulary(["en"])
    exported = library.Tokenizer.from_str(tokenizer_json(host, vocabulary))
    exported.encode_special_tokens = True
    for text in (" hello", "hello", "  two  spaces\n", "", " \n x "):
        assert exported.encode(text, add_special_tokens=False).ids == host.encode(text)


def test_what_a_training_left_in_the_file_cuts_and_drops_nothing(tmp_path: Path) -> None:
    made, text = byte_level(prefix=False), "the green house stands, das grüne Haus " * 8
    plain = HostText(made.to_str(), {})
    made.enable_truncation(max_length=16)
    made.enable_padding(length=64)
    made.model.dropout = 0.3
    assert '"dropout":0.3' in made.to_str() and '"max_length":16' in made.to_str()
    (tmp_path / "tokenizer.json").write_text(made.to_str(), encoding="utf-8")
    host = HostText.from_folder(tmp_path)
    assert host.json == plain.json and {tuple(host.encode(text)) for _ in range(9)} == {tuple(plain.encode(text))}
    assert host.decode(host.encode(text)) == text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SPACED)
def test_our_own_pieces_give_every_text_back(text: str) -> None:
    ours = OWN.text
    assert ours.decode(ours.encode(text)) == text


OWN = tokenizers()


def test_hosts_that_lose_characters_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    lossy = {
        "'Ab' comes back as 'ab'": byte_level(prefix=False, normalizer=normalizers.Lowercase()),
        "'\ufb01' comes back as 'fi'": byte_level(prefix=False, normalizer=normalizers.NFKC()),
        "' hello' comes back as 'hello'": byte_level(prefix=False, normalizer=normalizers.Strip()),
    }
    words = Tokenizer(models.WordLevel({"hello": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    for message, made in {**lossy, "not lossless": words}.items():
        (tmp_path / "tokenizer.json").write_text(made.to_str())
        with pytest.raises(InputError, match=message):
            HostText.from_folder(tmp_path)
