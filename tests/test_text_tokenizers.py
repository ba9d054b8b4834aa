"""Every registered text tokenizer keeps its contract: the test that a new one has to pass, whoever writes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny_model import tokenizers
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.text.base import TextTokenizer
from unitok_tokenizers.text.huggingface import HostText
from unitok_tokenizers.text.registry import TEXT_TOKENIZERS, load_text_tokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet


def host() -> TextTokenizer:
    library = pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra hf)")
    byte_level = library.pre_tokenizers.ByteLevel
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer, made.decoder = byte_level(add_prefix_space=False), library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(vocab_size=300, initial_alphabet=byte_level.alphabet(), show_progress=False)
    made.train_from_iterator(["the green house stands", "das grüne Haus"] * 4, trainer)
    return HostText(made.to_str(), {})


MAKERS: Mapping[str, Callable[[], TextTokenizer]] = {
    "sentencepiece": lambda: tokenizers().text,
    "host": host,
}
each = pytest.mark.parametrize("name", TEXT_TOKENIZERS)


def test_every_text_tokenizer_is_tested() -> None:
    assert set(MAKERS) == set(TEXT_TOKENIZERS)


@each
def test_a_text_comes_back_and_its_ids_are_in_range(name: str) -> None:
    assert name in MAKERS, "a new text tokenizer is made in MAKERS, so that it is tested"
    made = MAKERS[name]()

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=12))
    def check(text: str) -> None:
        ids = made.encode(text)
        assert made.decode(ids) == text and all(0 <= one < made.size for one in ids)
        assert not set(ids) & set(made.roles.values())

    check()
    assert len(made.pieces()) == made.size and made.info().cardinalities == (made.size,)
    assert (made.info().name, made.info().kind, made.info().frame_rate) == ("text", "text", None)


@each
def test_it_survives_its_folder_and_takes_its_place_in_a_set(name: str, tmp_path: Path) -> None:
    made = MAKERS[name]()
    made.save(tmp_path / "one")
    again = load_text_tokenizer(tmp_path / "one")
    assert type(again) is type(made) is TEXT_TOKENIZERS[name]
    assert again.fingerprint == made.fingerprint and dict(again.roles) == dict(made.roles)
    assert again.encode(" the green house") == made.encode(" the green house")
    TokenizerSet.of(made).save(tmp_path / "set")
    loaded = TokenizerSet.load(tmp_path / "set")
    assert loaded.text.fingerprint == made.fingerprint and loaded.vocabulary(["en"]).text == made.info()


def test_a_class_that_nobody_registered_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"class": "morphemes"})
    with pytest.raises(InputError, match="unknown text tokenizer 'morphemes'; known: sentencepiece, host"):
        load_text_tokenizer(tmp_path)


def test_folders_that_are_no_tokenizers_of_the_set_are_named(tmp_path: Path) -> None:
    tokenizers().save(tmp_path / "one")
    (tmp_path / "one/__pycache__").mkdir()
    assert list(TokenizerSet.load(tmp_path / "one").streams) == ["text", "units", "codes"]
    shutil.copytree(tmp_path / "one/units", tmp_path / "one/again")
    with pytest.raises(InputError, match="again makes stream 'units'"):
        TokenizerSet.load(tmp_path / "one")
    shutil.rmtree(tmp_path / "one/again")
    (tmp_path / "one/junk").mkdir()
    with pytest.raises(InputError, match=r"junk is no tokenizer \(no config.json\)"):
        TokenizerSet.load(tmp_path / "one")
    (tmp_path / "one/junk").rmdir()
    shutil.rmtree(tmp_path / "one/codes")
    (tmp_path / "one/codes").write_text("")
    with pytest.raises(InputError, match="is a file where the folder"):
        TokenizerSet.load(tmp_path / "one")
