"""Checks of tokenizers and codecs: what their figures are made of, by hand; and that the page names what there is.

The checks themselves run with all others in `test_systems.py`.
"""

from __future__ import annotations

import ast
from dataclasses import replace

import numpy as np
import pytest

from tests.support.documents import ROOT
from unitok.cli.main import main
from unitok_tokenizers.acoustic.dmel import DmelCodec, DmelConfig
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate
from unitok_tokenizers.semantic.unit_bpe import StoredUnits, UnitMerges
from unitok_training.fitting.codec import UNTAUGHT
from unitok_training.systems.listing import COVERED, as_page
from unitok_training.systems.registry import SYSTEMS
from unitok_training.systems.tokenizers.codec_arms import CodecArmsConfig
from unitok_training.systems.tokenizers.codecs import CodecCodesConfig, falls, series
from unitok_training.systems.tokenizers.first_codebook import in_the_voice_of, ordered, partners
from unitok_training.systems.tokenizers.merging import inverts
from unitok_training.systems.tokenizers.unit_parts import UnitPartsConfig
from unitok_training.systems.tokenizers.units import by_size, rises
from unitok_training.tokbench.distance import signal_to_noise

FRAMES = np.array([3, 3, 1, 2, 2, 2, 1, 2, 3, 1, 2])


@pytest.mark.parametrize("one", COVERED, ids=lambda one: one.row)
def test_tests_and_commands_that_the_page_names_are_there(one: object, capsys: pytest.CaptureFixture[str]) -> None:
    covered = next(each for each in COVERED if each is one)
    for name in covered.tests:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
        assert f"`{name}`" in as_page()
    if covered.command:
        program, *words = covered.command.split()
        assert program == "unitok"
        with pytest.raises(SystemExit) as end:
            main([*words, "--help"])
        assert end.value.code == 0 and " ".join(words) in capsys.readouterr().out
    assert f"| {covered.row} | {covered.what} |" in as_page()


def test_a_row_has_a_check_or_is_covered_and_never_both() -> None:
    checked = {row for name in SYSTEMS for row in SYSTEMS[name].row.split(", ")}
    rows = [one.row for one in COVERED]
    assert len(set(rows)) == len(rows) and not checked & set(rows)
    assert {f"C{number}" for number in range(1, 14)} <= checked | set(rows)


def test_units_invert_with_and_without_merges_and_a_wrong_duration_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MfccEncoder()
    random = np.random.default_rng(0)
    units = UnitTokenizer.fit(encoder, [random.standard_normal(16000).astype(np.float32)], 4, seed=0)
    merged = units.merged(UnitMerges.learn([deduplicate(FRAMES)[0]] * 3, 4, 8))
    assert inverts(units, FRAMES) and inverts(merged, FRAMES)
    assert len(merged.stored(FRAMES).ids) < len(units.stored(FRAMES).ids)
    stored = UnitTokenizer.stored

    def wrong(self: UnitTokenizer, frames: np.ndarray) -> StoredUnits:
        found = stored(self, frames)
        return replace(found, unit_durations=np.roll(found.unit_durations, 1))

    monkeypatch.setattr(UnitTokenizer, "stored", wrong)
    assert not inverts(units, FRAMES) and not inverts(merged, FRAMES)


def test_sizes_are_told_by_their_numbers() -> None:
    figures = {"c1.k50.nmi": 0.3, "c1.k100.nmi": 0.4, "c1.k100.pnmi": 0.1, "c1.k200.nmi": 0.5, "c1.letters.nmi": 0.9}
    assert by_size(figures, ".nmi") == [0.3, 0.4, 0.5] and rises(figures, ".nmi")
    assert not rises({**figures, "c1.k200.nmi": 0.4}, ".nmi")
    with pytest.raises(KeyError):
        by_size({}, ".nmi")


def test_a_distance_falls_with_every_codebook_or_not() -> None:
    figures = {f"d.q{q}": 10.0 - q for q in range(1, 12)} | {"d.q1.interval": 3.0}
    assert series(figures, "d.q") == [10.0 - q for q in range(1, 12)] and falls(series(figures, "d.q"))
    assert not falls([3.0, 2.0, 2.0])
    with pytest.raises(KeyError):
        series({"d.qx": 1.0}, "d.q")


def test_twice_as_many_steps_leave_out_a_quarter_of_the_power() -> None:
    """Noise falls evenly on every place of a step: 6 dB a bit."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    found = [signal_to_noise(DmelCodec(DmelConfig(bins=bins)), [samples]) for bins in (32, 64, 128)]
    assert np.diff(found) == pytest.approx([6.02, 6.02], abs=0.5)
    with pytest.raises(InputError, match="bins"):
        CodecCodesConfig(bins=(8, 4))


def test_words_of_one_and_the_voice_of_another() -> None:
    words, voice = np.arange(10).reshape(5, 2), 100 + np.arange(6).reshape(3, 2)
    assert in_the_voice_of(words, voice).tolist() == [[0, 101], [2, 103], [4, 105], [6, 101], [8, 103]]
    rows = [Row(id=str(place), group="g", lang="qaa", speaker=name) for place, name in enumerate("aabb")]
    for seed in range(5):
        assert all(rows[other].speaker != row.speaker for row, other in zip(rows, partners(rows, seed)))
    with pytest.raises(InputError, match="one voice"):
        partners(rows[:2], 0)


def test_the_order_of_scores_is_that_of_units_taught_and_plain() -> None:
    figures = {"c8.units.text.mi": 3.0, "c8.taught.text.mi": 2.0, "c8.plain.text.mi": 1.0}
    assert ordered(figures, "text.mi") and not ordered({**figures, "c8.plain.text.mi": 2.0}, "text.mi")


def test_arms_differ_in_what_they_are_named_after() -> None:
    arms = CodecArmsConfig().arms
    assert arms["units"].distilled == 0 and arms["plain"].distilled == UNTAUGHT
    assert replace(arms["factorized"], code_width=0) == arms["plain"] and arms["factorized"].code_width > 0
    assert replace(arms["split"], split=False) == arms["taught"] and arms["split"].split
    assert replace(arms["taught"], distilled=UNTAUGHT) == arms["plain"]
    for wrong in ({"seeds": 0}, {"taught": 0.0}, {"limit": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            CodecArmsConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"parts\.counts"):
        UnitPartsConfig(counts=(100, 50))
