"""Prosody as streams: fitted and prepared by commands, one duration a unit in grammar, shards and answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support import toy_shards
from tests.support.command import refused, works
from tests.support.prosody import gliding, voice
from unitok.generation.length_limits import Limits
from unitok.model import Model
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.shard_checks import validate_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.base import OUT_CODES, OUT_DURATIONS, OUT_PITCH, OUT_UNITS, PROSODY_FLAGS
from unitok_tokenizers.grammar.tasks.registry import output_kinds
from unitok_tokenizers.tokenizer_set import TokenizerSet

VOCABULARY = toy_shards.vocabulary()
TEXT = Span("text", np.array([1, 2]))
PROSODY = ("pitch", "style", "durations")


def asked(*flags: str, conditions: tuple[Span, ...] = (TEXT,)) -> SequenceSpec:
    return SequenceSpec("tts", "en", flags=flags, conditions=conditions)


def test_style_and_pitch_stand_before_units_and_durations_behind() -> None:
    assert output_kinds("tts", PROSODY_FLAGS) == ("style", "pitch", "units", "durations")
    assert output_kinds("tts", (OUT_CODES, OUT_DURATIONS, OUT_PITCH)) == ("pitch", "units", "durations", "codes")
    assert output_kinds("asr", PROSODY_FLAGS) == ("text",) and output_kinds("slm", (OUT_DURATIONS,)) == (
        "units",
        "durations",
    )
    with pytest.raises(InputError, match="takes no flag '<out:pitch>'"):
        render_prompt(SequenceSpec("mt", "en", "de", (OUT_PITCH,), (TEXT,)), VOCABULARY)


def test_a_plan_has_one_duration_a_unit() -> None:
    spans = [Span("pitch", [3, 0]), Span("units", [1, 2, 1]), Span("durations", [0, 3, 1])]
    plan = SequenceSpec(
        "tts", "en", None, (OUT_UNITS, OUT_PITCH, OUT_DURATIONS), (Span("style", [2]), TEXT), tuple(spans)
    )
    rendered = render(plan, VOCABULARY)
    assert parse(rendered.ids, VOCABULARY).plan() == plan
    short = SequenceSpec(*plan.__dict__.values())
    object.__setattr__(short, "outputs", (*spans[:2], Span("durations", [0])))
    with pytest.raises(InputError, match="outputs have 3 units and 1 durations"):
        render(short, VOCABULARY)


@pytest.mark.parametrize("flags", [PROSODY_FLAGS, (OUT_CODES, *PROSODY_FLAGS), (OUT_DURATIONS,)])
def test_whatever_is_drawn_is_well_formed_within_its_limit(flags: tuple[str, ...]) -> None:
    prompt, cut, most = render_prompt(asked(*flags), VOCABULARY), 0, 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        limit = int(random.integers(20, 60))
        automaton = Automaton(VOCABULARY, prompt, max_new_tokens=limit, output_limits=(3, 4, 8) if seed % 2 else None)
        ids: list[int] = []
        while not automaton.finished:
            assert automaton.remaining_needed <= automaton.remaining
            ids.append(int(random.choice(np.flatnonzero(automaton.mask(VOCABULARY.size)))))
            automaton.advance(ids[-1])
        parsed = parse(np.concatenate([prompt, ids]), VOCABULARY)
        sizes = {span.kind: len(span) for span in parsed.outputs}
        assert parsed.complete and len(ids) <= limit and sizes["units"] == sizes["durations"] > 0
        cut, most = cut + automaton.cut, max(most, sizes["units"])
    assert cut and most > 3


def test_a_beginning_is_continued_with_as_many_durations_as_there_are_units_then() -> None:
    given = Span("units", [1, 2, 3])
    plan = SequenceSpec("slm", "en", flags=(OUT_UNITS, OUT_DURATIONS), outputs=(given,))
    prompt = render_prompt(plan, VOCABULARY)
    automaton, ids = Automaton(VOCABULARY, prompt, max_new_tokens=12), list[int]()
    assert automaton.remaining_needed == 1 + 2 + 4 + 2  # a unit, two marks, four durations, two marks
    while not automaton.finished:
        ids.append(automaton.allowed()[0][0])
        automaton.advance(ids[-1])
    outputs = parse(np.concatenate([prompt, ids]), VOCABULARY).outputs
    assert len(outputs[0]) == len(outputs[1]) >= 4
    with pytest.raises(InputError, match="takes 9; allow more"):
        Automaton(VOCABULARY, prompt, max_new_tokens=8)


def test_limits_leave_room_for_a_duration_of_each_unit() -> None:
    sizes = Limits(units_per_text=5.0).of(asked(*PROSODY_FLAGS))
    assert sizes[2] == sizes[3] and min(sizes) >= Limits().floor


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers and shards of sixteen short recordings, by the commands."""
    root = tmp_path_factory.mktemp("prosody")
    lines = []
    for index in range(16):
        name = f"{index:02d}"
        hertz = gliding(100.0 + 12 * index, 0.05 + 0.05 * (index % 4), 1.4)
        write_audio(root / f"{name}.wav", voice(hertz, 1.4), 16000)
        lines.append({"id": name, "audio": f"{name}.wav", "text": "we buy two books now", "lang": "en", "speaker": "a"})
    lines.append({"id": "text", "text": "the green house", "lang": "en"})
    (root / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    small = ("--encoder", "mfcc", "--clusters", 12, "--codec-steps", 0)
    said = works(
        "fit-tokenizers", root / "m.jsonl", root / "with", *small, "--prosody", "pitch=9", "style=4", "durations"
    )
    assert {one["name"]: one.get("runs_of") for one in json.loads(said)}["durations"] == "units"
    works("fit-tokenizers", root / "m.jsonl", root / "without", *small)
    for name in ("with", "without"):
        works("prepare", root / "m.jsonl", root / f"{name}-shards", "--tokenizers", root / name, "--joined-share", 0)
    return root


def test_shards_hold_them_beside_what_they_held(place: Path) -> None:
    ours, plain = Shards.open(place / "with-shards"), Shards.open(place / "without-shards")
    assert set(ours.table.column_names) - set(plain.table.column_names) == set(PROSODY)
    for column in plain.table.column_names:
        assert ours.table[column].equals(plain.table[column])
    tokenizers = TokenizerSet.load(place / "with")
    durations, units = tokenizers.durations["durations"], tokenizers.unit_tokenizer
    assert units is not None
    for row in range(16):
        lasting = ours.cell("units_durations", row)
        assert np.array_equal(ours.cell("durations", row), durations.encode(lasting))
        assert len(ours.cell("pitch", row)) == 18 and len(ours.cell("style", row)) == 1
    assert not any(len(ours.cell(name, 16)) for name in PROSODY), "a row without a recording"
    found = validate_shards(place / "with-shards")
    assert not found["warnings"] and found["tokens"]["durations"] == found["tokens"]["units"]
    works("inspect", place / "with-shards", "--html", place / "page.html")
    assert "pitch of a row" in (place / "page.html").read_text(encoding="utf-8")


def test_damage_is_found(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "with"
    shutil.copytree(place / "with", other)
    shutil.rmtree(other / "units")
    refused("prepare", place / "m.jsonl", tmp_path / "s", "--tokenizers", other, saying="'durations' goes with")
    shutil.copytree(place / "with/units", other / "units")
    config = json.loads((other / "durations/config.json").read_text(encoding="utf-8"))
    (other / "durations/config.json").write_text(json.dumps({**config, "units": "others"}), encoding="utf-8")
    refused("prepare", place / "m.jsonl", tmp_path / "s", "--tokenizers", other, saying="of fingerprint others")


@pytest.mark.slow
def test_a_model_learns_to_say_them(place: Path) -> None:
    sets = ("train.steps=2", "train.pack_size=1024", "train.window=16", "mixture.tts.prosody=1", "mixture.tts.style=1",
            "mixture.slm.prosody=1", "mixture.asr=1")  # fmt: skip
    given = ("--shards", place / "with-shards", "--tokenizers", place / "with", "-o", place / "run")
    works("train", "tiny", *given, *(part for one in sets for part in ("--set", one)))
    model = Model.load(place / "run/model")
    result = model.generate("tts", source="en", text="two books", flags=(OUT_UNITS, *PROSODY_FLAGS))
    assert [span.kind for span in result.outputs] == ["style", "pitch", "units", "durations"]
    lasting = model.tokenizers.lasting(result.outputs)
    assert lasting is not None and len(lasting) == len(result.outputs[2]) and (lasting > 0).all()
