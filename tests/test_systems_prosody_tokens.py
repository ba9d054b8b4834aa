"""What tokens of prosody keep, by a linear probe: on phrases that are made, and on real recordings where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.documents import ROOT
from tests.support.prosody import write_manners
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.errors import InputError
from unitok_training.systems.base.bench import SystemConfig
from unitok_training.systems.registry import run_system
from unitok_training.systems.tokens.prosody_tokens import ProsodyTokensConfig, probed, real_figures

EMODB = ROOT.parent / "shared/data/emodb/metadata.jsonl"
ARMS = ("text", "units", "pitch", "style", "durations", "prosody")


def test_the_probe_learns_what_can_be_learned_and_no_more() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    features = random.standard_normal((120, 8))
    learned = np.arange(120) % 2 == 0
    chance = (probed(features, labels, learned) == labels)[~learned].mean()
    features[np.arange(120), labels] += 4
    assert chance < 0.55 and (probed(features, labels, learned) == labels)[~learned].mean() > 0.95
    assert len(probed(np.ones((120, 3)), labels, learned)) == 120, "features that never vary"


def test_leaving_speakers_out_tells_manners_from_prosody_and_not_from_text(tmp_path: Path) -> None:
    """Voices that swing much or little, the same words in both manners: 3 speakers, and the figures' names."""
    rows = read_manifest(write_manners(tmp_path, takes=8, label="manner"))
    config = ProsodyTokensConfig(clusters=8, label="manner", recordings="m.jsonl")
    figures = real_figures(rows, tmp_path / "run", config)
    assert {f"c11.real.{arm}.accuracy" for arm in ARMS} < set(figures)
    assert figures["c11.real.pitch.accuracy"] == figures["c11.real.prosody.accuracy"] == 1.0
    assert figures["c11.real.text.accuracy"] <= 0.5 == figures["c11.real.chance"] and figures["c11.real.speakers"] == 3
    with pytest.raises(InputError, match="has no 'emotion'"):
        real_figures(rows, tmp_path / "run", ProsodyTokensConfig(recordings="m.jsonl"))
    with pytest.raises(InputError, match="one speaker"):
        real_figures(rows[:8], tmp_path / "run", config)


@pytest.mark.slow
def test_the_class_is_in_the_tokens_and_not_in_the_text(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="espeak-ng is not installed")
    figures = run_system(
        "prosody_tokens", tmp_path, SystemConfig(sentences=240, test_sentences=10, overrides=("clusters=32",))
    )
    assert figures["c11.rows"] == 40 and figures["c11.text.accuracy"] <= 0.25 == figures["c11.chance"]
    assert figures["c11.prosody.accuracy"] >= 0.75
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == figures


@pytest.mark.slow
@pytest.mark.skipif(not EMODB.exists(), reason="the small real data is not beside the repository")
def test_real_emotions_are_told_above_chance_by_voices_never_heard(tmp_path: Path) -> None:
    rows = [row for row in read_manifest(EMODB, default_lang="de") if row.speaker in ("emodb03", "emodb09", "emodb11")]
    figures = real_figures(rows, tmp_path, ProsodyTokensConfig(clusters=16, recordings=str(EMODB)))
    assert figures["c11.real.prosody.accuracy"] > figures["c11.real.text.accuracy"]
    assert figures["c11.real.prosody.accuracy"] > figures["c11.real.chance"]
