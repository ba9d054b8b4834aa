"""The vocabulary: one layout whatever the order, ids that never move, local ids there and back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_plans import (
    CODES,
    HOST_ROLES,
    PHONES,
    PROPERTY,
    SECOND,
    TEXT,
    UNITS,
    VIEW,
    VOCABULARIES,
    grown,
    own,
    viewing,
)
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json
from unitok_tokenizers.grammar.controls import CONTROLS
from unitok_tokenizers.grammar.extents import Extent
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.vocabulary import Vocabulary


def test_layout_is_text_control_languages_then_streams() -> None:
    assert own().extents == (
        Extent("text", "text", 0, 0, 0, 50),
        Extent("control", "", 0, 0, 50, 512),
        Extent("language", "", 0, 0, 562, 64),
        Extent("phones", "phones", 0, 0, 626, 9),
        Extent("units", "units", 0, 0, 635, 12),
        Extent("codes", "codes", 0, 0, 647, 8),
        Extent("codes", "codes", 1, 0, 655, 8),
        Extent("codes", "codes", 2, 0, 663, 5),
    )
    assert own().size == 668


def test_order_of_streams_and_languages_does_not_matter() -> None:
    streams = (UNITS, CODES, PHONES, SECOND, replace(VIEW, name="first"))
    fingerprints = {
        Vocabulary.build(text=TEXT, streams=order, languages=languages).fingerprint
        for order in itertools.permutations(streams)
        for languages in (("de", "en", "fr"), ("fr", "en", "de", "en"))
    }
    assert len(fingerprints) == 1


def test_control_tokens_and_their_order_are_fixed() -> None:
    """A change here breaks every saved model: only append."""
    assert len(set(CONTROLS)) == len(CONTROLS) <= 512
    assert CONTROLS[:7] == ("<bos>", "<eos>", "<pad>", "<mask>", "<asr>", "<tts>", "<s2tt>")
    assert CONTROLS[23:27] == ("<text>", "</text>", "<phones>", "</phones>")
    assert CONTROLS[41:48] == ("<lat>", "<gen:text>", "<gen:units>", "<gen:codes>", "<gen:first>", "<then>", "<fine>")
    assert CONTROLS[48:51] == ("<out:units>", "<out:codes>", "<chain>")


def test_appending_moves_no_id() -> None:
    before, after = own(), grown()
    assert after.extents[: len(before.extents)] == before.extents
    names = [name for name in before.names() if name]
    for name in names:
        if name.startswith("<lang:"):
            continue
        assert after.id_of(name) == before.id_of(name)
    assert [after.language(code) for code in ("de", "en", "fr")] == [562, 563, 564]
    for stream in ("text", "units", "codes"):
        for codebook, size in enumerate(before.streams[stream].cardinalities):
            local = np.arange(size)
            assert np.array_equal(after.to_ids(stream, local, codebook), before.to_ids(stream, local, codebook))


def test_second_codec_is_named_after_itself() -> None:
    vocabulary = grown()
    assert vocabulary.id_of("<encodec.a0:512>") == vocabulary.to_ids("encodec", 512)
    assert vocabulary.id_of("<encodec.a1:0>") == vocabulary.to_ids("encodec", 0, 1)
    assert vocabulary.id_of("<a1:3>") == vocabulary.to_ids("codes", 3, 1)
    assert vocabulary.id_of("<u:11>") == vocabulary.to_ids("units", 11)
    assert vocabulary.id_of("<lang:fr>") == vocabulary.language("fr")
    named = [name for name in vocabulary.names() if name]
    assert len(named) == len(set(named)) == vocabulary.size - 70


def test_appended_text_pieces_go_on_where_text_ended() -> None:
    vocabulary = grown()
    assert vocabulary.block_ranges("text") == [(0, 50), (668, 688)]
    ids = vocabulary.to_ids("text", np.array([[0, 49], [50, 69]]))
    assert ids.tolist() == [[0, 49], [668, 687]] and ids.dtype == np.int64
    assert vocabulary.text.cardinalities == (70,)


@pytest.mark.parametrize("name", VOCABULARIES)
@PROPERTY
@given(data=st.data())
def test_local_ids_survive_the_round_trip(name: str, data: st.DataObject) -> None:
    vocabulary = VOCABULARIES[name]
    stream = vocabulary.streams[data.draw(st.sampled_from(sorted(vocabulary.streams)))]
    codebook = data.draw(st.integers(0, len(stream.cardinalities) - 1))
    size = stream.cardinalities[codebook]
    local = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int32)
    ids = vocabulary.to_ids(stream.name, local, codebook)
    assert np.array_equal(vocabulary.to_local(stream.name, ids, codebook), local)
    ranges = vocabulary.block_ranges(stream.name, codebook)
    assert all(any(start <= value < stop for start, stop in ranges) for value in ids)
    if stream.views is None and not set(ids.tolist()) & set(vocabulary.roles.values()):
        tokens = [vocabulary.describe(int(value)) for value in ids]
        assert [(token.tokenizer, token.codebook, token.local) for token in tokens] == [
            (stream.name, codebook, value) for value in local.tolist()
        ]


@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
def test_every_id_belongs_to_one_extent(vocabulary: Vocabulary) -> None:
    owners = np.zeros(vocabulary.size, dtype=int)
    for extent in vocabulary.extents:
        owners[extent.start : extent.start + extent.size] += 1
    assert (owners == 1).all()
    assert len(vocabulary.names()) == vocabulary.size


@pytest.mark.parametrize(("stream", "local"), [("units", 12), ("units", -1), ("text", 70), ("text", -1)])
def test_a_local_id_out_of_range_is_named(stream: str, local: int) -> None:
    with pytest.raises(InputError, match=rf"stream '{stream}' codebook 0: local id {local} is outside"):
        grown().to_ids(stream, [0, local])


def test_to_local_refuses_ids_of_others() -> None:
    with pytest.raises(InputError, match="id 562 does not belong to stream 'units'"):
        own().to_local("units", [635, 562])


def test_roles_are_control_tokens_or_the_hosts() -> None:
    vocabulary = own()
    assert (vocabulary.bos, vocabulary.eos, vocabulary.pad) == (50, 51, 52)
    assert vocabulary.control("<eos>") == 51
    host = viewing()
    assert (host.bos, host.eos, host.pad) == (1, 2, 2)
    assert host.control("<eos>") == host.id_of("<eos>") == 2
    assert host.describe(1).name == "<bos>" and host.describe(3).name == ""
    partial = Vocabulary.build(text=TEXT, roles={"eos": 7})
    assert (partial.bos, partial.eos, partial.pad) == (50, 7, 52)


def test_a_view_owns_no_ids() -> None:
    host = viewing()
    assert host.size == 50 + 512 + 64 + 9 + 8 + 8 + 5
    assert np.array_equal(host.to_ids("units", np.arange(8)), host.to_ids("codes", np.arange(8), 0))
    assert host.describe(int(host.to_ids("units", 3))).name == "<a0:3>"
    for views, cardinality in (("codes", 9), ("units", 12), ("none", 8)):
        info = StreamInfo("first", "units", "v", Fraction(50), (cardinality,), views=views)
        with pytest.raises(InputError, match="keep the cardinalities equal"):
            own().append_stream(info)


@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
def test_saved_and_loaded_is_the_same(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded == vocabulary and loaded.fingerprint == vocabulary.fingerprint
    assert loaded.streams["codes"].frame_rate == Fraction(75, 2)
    path2 = tmp_path / "again.json"
    loaded.save(path2)
    assert path2.read_bytes() == path.read_bytes()


def test_a_file_from_before_new_control_tokens_loads(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    value = own().to_json()
    write_json(path, {**value, "controls": value["controls"][:-3]})
    assert Vocabulary.load(path).fingerprint == own().fingerprint


def damage_extents(value: dict) -> None:
    value["extents"][3]["start"] += 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda value: value.update(format=2), "no vocabulary of format 1"),
        (lambda value: value.pop("roles"), "no valid vocabulary"),
        (lambda value: value["streams"][0].update(frame_rate="often"), "no valid vocabulary"),
        (lambda value: value["controls"].reverse(), "numbers the control tokens differently"),
        (damage_extents, "overlap or leave a gap"),
    ],
)
def test_a_damaged_file_is_refused(damage, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    own().save(path)
    value = read_json(path)
    damage(value)
    write_json(path, value)
    with pytest.raises(InputError, match=message):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    ("change", "ours", "theirs"),
    [
        ({"fingerprint": "other"}, "c in the vocabulary", "other in the shards"),
        ({"frame_rate": Fraction(50)}, "75/2 in the vocabulary", "50 in the shards"),
        ({"cardinalities": (8, 8)}, r"\(8, 8, 5\) in the vocabulary", r"\(8, 8\) in the shards"),
    ],
)
def test_a_mismatch_names_both_sides(change: dict, ours: str, theirs: str) -> None:
    own().check(CODES)
    with pytest.raises(InputError, match=ours) as error:
        own().check(replace(CODES, **change))
    assert error.match(theirs) and error.match("'codes'")


def test_a_stream_the_vocabulary_lacks_is_named() -> None:
    with pytest.raises(InputError, match="'encodec', the vocabulary only text, phones, units, codes"):
        own().check(SECOND)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: own().language("xx"), "unknown language 'xx'; this model knows de, en"),
        (lambda: own().control("<nix>"), "no control token '<nix>'"),
        (lambda: own().id_of("<u:12>"), "no token '<u:12>'"),
        (lambda: own().to_ids("mimi", 0), "no stream 'mimi'"),
        (lambda: own().to_ids("codes", 0, 3), "codebook 3"),
        (lambda: own().describe(668), "outside the vocabulary of 668"),
        (lambda: own().append_language("en"), "in the vocabulary already"),
        (lambda: own().append_language("e n"), "no language code"),
        (lambda: own().append_stream(CODES), "give the new one another name"),
        (lambda: own().append_text(0, "t"), "give a positive number"),
        (lambda: Vocabulary.build(text=TEXT, roles={"unk": 0}), "roles are bos, eos, pad"),
        (lambda: Vocabulary.build(text=TEXT, roles={"eos": 50}), "ids of the 50 pieces"),
        (lambda: Vocabulary.build(text=UNITS), "where text belongs"),
        (lambda: Vocabulary.build(text=TEXT, languages=[f"l{i}" for i in range(65)]), "all 64 ids are taken"),
        (lambda: replace(CODES, name="a0"), "'a0': the name must"),
        (lambda: replace(CODES, kind="notes"), "kind 'notes'"),
        (lambda: replace(CODES, cardinalities=()), "one positive number per codebook"),
        (lambda: replace(UNITS, cardinalities=(3, 4)), "have one codebook"),
        (lambda: replace(CODES, views="units"), "only units can view"),
    ],
)
def test_what_a_user_can_get_wrong(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_host_roles_do_not_change_the_layout() -> None:
    host = Vocabulary.build(text=TEXT, streams=[UNITS], roles=HOST_ROLES)
    assert host.extents == Vocabulary.build(text=TEXT, streams=[UNITS]).extents
