"""The real run with parts of random weights: its stages, its figures, and what it says where a part is missing.

Run alone with `pytest tests/test_systems_real.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ct2_whisper import tiny_whisper, write_ct2
from tests.support.hf_hosts import write_host
from tests.support.stages_here import here
from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.systems.base.bench import SystemConfig
from unitok_training.systems.real import stages
from unitok_training.systems.real.scores import answer_figures
from unitok_training.systems.real.settings import RealSettings
from unitok_training.systems.real.system import SYSTEM, flat, graph
from unitok_training.systems.registry import run_system

SENTENCES = ("the green house", "we buy two books", "she sings now", "today here stands", "two houses", "books here")


def corpus(folder: Path) -> Path:
    rows = []
    for index, text in enumerate(SENTENCES):
        write_audio(folder / f"{index}.wav", speech(0.8 + 0.1 * index, seed=index), RATE)
        split = "test" if index >= 4 else "train"
        rows.append({"id": str(index), "audio": f"{index}.wav", "text": text.upper(), "lang": "en", "speaker": "anna",
                     "split": split})  # fmt: skip
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pairs = [{"good": "two books", "bad": "two book", "uid": f"set {index % 2}"} for index in range(6)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs), encoding="utf-8")
    return folder / "m.jsonl"


def settings(folder: Path) -> list[str]:
    manifest = corpus(folder)
    write_ct2(folder / "whisper", tiny_whisper())
    host = folder / "host"
    write_host(host, "smollm2")
    parts = ("spelling", "unit_spelling", "latent", "control", "tokens", "own", "vocoder", "synthesizer")
    return [
        *(f"manifests=[{manifest},{manifest}]", f"pairs={folder / 'pairs.jsonl'}", "pairs_of_a_set=2"),
        *(f"host={host}", f"whisper={folder / 'whisper'}", "layer=1", "clusters=8", "pack_size=512", "limit=2"),
        "unit_spelling_blocks=1",
        *(f"{name}_steps=1" for name in parts),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_every_stage_runs_and_every_figure_has_its_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pocketsphinx")
    here(monkeypatch)
    config = SystemConfig(overrides=tuple(settings(tmp_path)), precision="fp32")
    said: list[str] = []
    found = run_system("real", tmp_path / "run", config, report=said.append)
    for name in ("latent", "whisper", "own"):
        for figure in ("wer", "shuffled_wer", "empty", "runaway"):
            assert f"{name}.test.{figure}" in found, (name, figure)
        assert f"{name}.other.wer" in found and f"{name}.text.blimp_mean" in found
    for name in ("random_host", "random_encoder"):
        assert f"{name}.test.wer" in found
    for name in ("whisper", "own"):
        for what in ("ears.recordings", "resynthesis.units.ears", "tts.units.ears"):
            assert {f"{name}.{what}.wer", f"{name}.{what}.pocketsphinx_wer"} <= found.keys()
    assert found["before.host.text.blimp_pairs"] == 4 and "before.random_host.text.blimp_mean" in found
    assert "not measured" not in SYSTEM.verdicts(found).values()
    # What is done stays done: a repeat starts no stage.
    said.clear()
    again = run_system("real", tmp_path / "run", config, report=said.append)
    assert again == found and not [line for line in said if line.endswith(": started")]


def test_stages_stand_in_an_order_and_depend_on_what_changes_them(tmp_path: Path) -> None:
    one = RealSettings()

    def keys(chosen: RealSettings) -> dict[str, str]:
        return Pipeline(tmp_path, graph(chosen), chosen.__dict__, threads=2).keys

    before = keys(one)
    assert {"latent-random_host", "latent-random_encoder", "tokens-own", "tokens-whisper"} <= before.keys()
    assert "latent-random_host" not in keys(replace(one, controls=False))
    changed = {name for name, key in keys(replace(one, tokens_steps=7)).items() if key != before[name]}
    assert changed == {"tokens-own", "tokens-whisper"}
    changed = {name for name, key in keys(replace(one, layer=2)).items() if key != before[name]}
    assert {"units-whisper", "tokens-whisper"} <= changed and "latent" not in changed
    # Weights and recordings that are named are part of what is made of them.
    manifest, host = corpus(tmp_path), tmp_path / "host.gguf"
    host.write_bytes(b"one")
    one = replace(one, manifests=(str(manifest),), host=str(host))
    before = keys(one)
    host.write_bytes(b"another")
    changed = {name for name, key in keys(one).items() if key != before[name]}
    assert {"host", "latent"} <= changed and not {"corpus", "vocoder"} & changed
    before = keys(one)
    write_audio(tmp_path / "0.wav", speech(0.3, seed=9), RATE)
    changed = {name for name, key in keys(one).items() if key != before[name]}
    assert {"corpus", "vocoder", "latent"} <= changed and "host" not in changed


def test_parts_of_recordings_stay_parts(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", speech(1.0), RATE)
    parts = ({"offset": 0.0, "duration": 0.5}, {"offset": 0.5, "duration": 0.25}, {"offset": 0.75}, {})
    rows = [{"id": str(n), "audio": "a.wav", "text": "two", "lang": "en", **part} for n, part in enumerate(parts)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    stages.corpus(tmp_path, {"manifests": (str(tmp_path / "m.jsonl"),)})
    found = stages.manifest_of(tmp_path)
    assert [(row.offset, round(row.length(), 3)) for row in found] == [(0, 0.5), (0.5, 0.25), (0.75, 0.25), (0, 1.0)]


def test_nothing_held_out_is_taught(tmp_path: Path) -> None:
    """A sentence of `test` or `dev` is in no training row, of any manifest, in whatever case and punctuation."""
    write_audio(tmp_path / "a.wav", speech(0.5), RATE)
    said = [("A house.", "train"), ("two books", "train"), ("Two books!", "test"), ("we sing", "train")]
    further = [("a HOUSE", "train"), ("WE SING", "train"), ("two books", "train"), ("today", "train"), ("now", "dev")]
    for name, rows in (("one", said), ("two", further)):
        lines = [
            {"id": str(n), "audio": "a.wav", "text": text, "lang": "en", "split": split}
            for n, (text, split) in enumerate(rows)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    stages.corpus(tmp_path, {"manifests": tuple(str(tmp_path / f"{name}.jsonl") for name in ("one", "two"))})
    found = [(row.id, row.split) for row in stages.manifest_of(tmp_path)]
    assert found == [("0-0", "dev"), ("0-2", "test"), ("0-3", "train"), ("1-1", "train"), ("1-3", "train"),
                     ("1-4", "other")]  # fmt: skip


def test_answers_are_told_from_silence_from_loops_and_from_those_to_other_recordings() -> None:
    said = ["the green house", "we buy two books"]
    right = answer_figures(said, said)
    assert right["wer"] == 0 and right["shuffled_wer"] > 0.9 and right["empty"] == right["runaway"] == 0
    wrong = answer_figures(said, ["", "books " * 20])
    assert wrong["empty"] == 0.5 and wrong["runaway"] == 0.5
    deaf = answer_figures(said, ["we buy", "we buy"])
    assert deaf["wer"] == deaf["shuffled_wer"]


def test_figures_are_flat_and_pairs_are_their_mean() -> None:
    nested = {"latent": {"test": {"wer": 0.5, "unit": "wer"}, "text": {"blimp": {"a": 1.0}, "blimp_mean": 0.75}}}
    assert flat(nested) == {"latent.test.wer": 0.5, "latent.text.blimp_mean": 0.75}


def test_what_is_missing_is_said_before_anything_is_made(tmp_path: Path) -> None:
    for override, match in (
        ("manifests=[nowhere.jsonl]", "nowhere.jsonl: no such file"),
        ("units=[hubert]", "units holds 'hubert'"),
        ("latent_steps=0", "latent_steps is 0"),
        ("manifests=[]", "manifests is empty"),
    ):
        with pytest.raises(InputError, match=match):
            run_system("real", tmp_path / "out", SystemConfig(overrides=(*settings_without(tmp_path), override)))
    assert not (tmp_path / "out" / "corpus").exists()


def settings_without(folder: Path) -> tuple[str, ...]:
    write_ct2(folder / "whisper", tiny_whisper())
    return (f"host={folder}", f"whisper={folder / 'whisper'}", "pairs=")
