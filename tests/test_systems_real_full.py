"""The full real run: what is read aloud, translated, learned from minutes of recordings, and told of emotions.

Run alone with `pytest tests/test_systems_real_full.py`.
"""

from __future__ import annotations

import gzip
import importlib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.support.prosody import gliding, voice, write_manners
from tests.test_systems_real import settings as real_settings
from tests.test_systems_real import settings_without
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.errors import InputError
from unitok_training.recipes.config import lasting, overridden
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.systems.base.bench import SystemConfig
from unitok_training.systems.real import stages as real
from unitok_training.systems.real_full import stages
from unitok_training.systems.real_full.emotions import emotions
from unitok_training.systems.real_full.reading import PORTION, Passage, read_aloud
from unitok_training.systems.real_full.settings import FullSettings, check_full
from unitok_training.systems.real_full.stages import check_curve, some_minutes
from unitok_training.systems.real_full.system import SYSTEM, falls, graph, scores_of
from unitok_training.systems.real_full.texts import passages_to_read, translated_rows
from unitok_training.systems.registry import run_system

READ = ("a man rides a red bike", "two dogs run on the grass", "the woman sings to a child", "he reads the old book")
GERMAN = ("ein Mann fährt Rad", "zwei Hunde laufen im Gras", "die Frau singt für ein Kind", "er liest das alte Buch")


def texts(folder: Path) -> list[str]:
    """Texts to read, and pairs of texts."""
    titled = [f"T{index}\t{text} today" for index, text in enumerate(READ)]
    (folder / "read.tsv").write_text("\n".join(titled) + "\n", encoding="utf-8")
    for part in ("train", "test_2016_flickr"):
        for lang, said in (("en", READ), ("de", GERMAN)):
            with gzip.open(folder / f"{part}.{lang}.gz", "wt", encoding="utf-8") as file:
                file.write("\n".join(f"{one} {part[:2]}" for one in said) + "\n")
    return [f"texts={folder / 'read.tsv'}", f"translations={folder}", "reader=espeak", "hours=0.002", "spoken="]


@pytest.mark.slow
def test_every_added_stage_runs_and_every_figure_has_its_control(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` brings espeak-ng")
    own = ["curve=[1]", "curve_steps=1", "curve_spelling_steps=1", "translation_steps=1", "emotion_clusters=8"]
    own += [f"emotions={write_manners(tmp_path, takes=6, label='emotion')}", "controls=false", "precision=fp32"]
    given = [*real_settings(tmp_path), *texts(tmp_path), *own]
    chosen, run = lasting(overridden(FullSettings(), given)), tmp_path / "run"
    check_full(chosen)
    for stage in (stages.corpus, real.host, real.texts):
        stage(run, chosen)
    real.latent(run, chosen, "latent")
    stages.translator(run, chosen)
    stages.chained(run, chosen)
    for which in ("alone", "made"):
        stages.point(run, chosen, "1", which)
    emotions(run, chosen)
    found = scores_of(run)
    assert {"translation.text.bleu", "translation.text.chrf"} <= found.keys()
    assert {f"chained.made.{figure}" for figure in ("wer", "bleu", "chrf", "text_bleu", "text_chrf")} <= found.keys()
    points = {f"curve.1.{which}.{what}" for which in ("alone", "made") for what in ("wer", "shuffled_wer", "runaway")}
    assert points <= found.keys()
    for arm in ("text", "units", "units_prosody", "prosody", "latent"):
        assert found[f"emotions.{arm}.low"] <= found[f"emotions.{arm}.accuracy"] <= found[f"emotions.{arm}.high"]
    assert found["emotions.text.accuracy"] <= 0.5 == found["emotions.chance"] < found["emotions.prosody.accuracy"]
    told = SYSTEM.verdicts(found)
    assert told["emotions: the text is at chance"] == "met"
    assert told["translated transcripts keep .8 of the texts' chrF, read aloud"] != "not measured"
    speakers = {row.speaker for row in real.manifest_of(run)}
    assert "espeak" in speakers and len(speakers) > 1, "recordings, and what was read beside them"


def test_what_is_read_is_kept_and_read_again_only_where_it_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` brings espeak-ng")
    passages = [Passage(id=f"p{index}", text=f"number {index}") for index in range(PORTION + 1)]
    lines = read_aloud(passages, tmp_path, voice=None, seed=0)
    assert [line["id"] for line in lines] == [one.id for one in passages]
    sounds = [read_audio(line["audio"], sample_rate=16000).tobytes() for line in lines]
    assert len(set(sounds)) == len(sounds)
    first, second = Path(lines[0]["audio"]).parent, Path(lines[-1]["audio"]).parent
    before = first.stat().st_mtime_ns
    for path in second.iterdir():
        path.unlink()
    second.rmdir()
    again = read_aloud(passages, tmp_path, voice=None, seed=0)
    assert again == lines and first.stat().st_mtime_ns == before
    assert [read_audio(line["audio"], sample_rate=16000).tobytes() for line in again] == sounds


def test_nothing_held_out_is_read_and_hours_are_kept_to(tmp_path: Path) -> None:
    values = dict(one.split("=", 1) for one in texts(tmp_path))
    settings = FullSettings(texts=values["texts"], translations=values["translations"], reader="espeak", hours=1)
    every = passages_to_read(asdict(settings), ())
    assert {one.text for one in every} == {*(f"{one} today" for one in READ), *(f"{one} tr" for one in READ)}
    some = passages_to_read(asdict(settings), (f"{READ[0]} today",))
    assert len(some) == len(every) - 1 and f"{READ[0]} today" not in {one.text for one in some}
    few = passages_to_read(asdict(replace(settings, hours=60 / 15 / 3600)), ())
    assert 1 < len(few) < len(every)
    held_out = dict.fromkeys(("en", "de"), "")
    for lang, said in (("en", READ), ("de", GERMAN)):
        held_out[lang] = "\n".join(f"{one} te" for one in said)
    for lang, line in (("en", f"{READ[2].upper()} TR!"), ("de", f"{GERMAN[3]} tr.")):
        other = {"en": "de", "de": "en"}[lang]
        for name, text in ((lang, f"{held_out[lang]}\n{line}\n"), (other, f"{held_out[other]}\nanders\n")):
            with gzip.open(tmp_path / f"test_2016_flickr.{name}.gz", "wt", encoding="utf-8") as file:
                file.write(text)
        taught = {row.text for row in translated_rows(asdict(settings))}
        gone = READ[2] if lang == "en" else READ[3]
        assert f"{gone} tr" not in taught and len(taught) == 6, "a side that is held out takes the pair with it"
    texts(tmp_path)
    rows = translated_rows(asdict(settings))
    assert [(row.lang, row.text) for row in rows[:2]] == [("en", f"{READ[0]} tr"), ("de", f"{GERMAN[0]} tr")]
    assert rows[0].group == rows[1].group != rows[2].group
    with gzip.open(tmp_path / "train.de.gz", "wt", encoding="utf-8") as file:
        file.write("eins\n")
    with pytest.raises(InputError, match="line to line"):
        translated_rows(asdict(settings))
    whole = (tmp_path / "train.en.gz").read_bytes()
    for damaged in (whole[:-9], gzip.compress("Straße\n".encode("latin-1"))):
        (tmp_path / "train.en.gz").write_bytes(damaged)
        with pytest.raises(InputError, match="train.en.gz is damaged or incomplete"):
            translated_rows(asdict(settings))


def test_points_of_the_curve_stand_in_each_other(tmp_path: Path) -> None:
    from unitok_tokenizers.data.manifest import Row

    write_audio(tmp_path / "a.wav", voice(gliding(110.0, 0.1, 20.0, turns=1.0), 20.0), 16000)
    rows = [Row(id=f"0-{n}", group=str(n), lang="en", audio=tmp_path / "a.wav", text="x") for n in range(12)]
    rows += [replace(rows[0], id="1-0"), replace(rows[0], id="0-test", split="test")]
    few, more = ({row.id for row in some_minutes(rows, minutes, 0)} for minutes in (1, 2))
    assert len(few) == 3 and few < more and len(more) == 6
    assert len(some_minutes(rows, 60, 0)) == 12
    check_curve(rows, (1, 2, 57))
    with pytest.raises(InputError, match="4.0 minutes for training, so that 15 and 57 would be the same"):
        check_curve(rows, (6, 15, 57))
    figures = {f"curve.{minutes}.alone.wer": error for minutes, error in ((6, 0.9), (15, 0.8), (57, 0.5))}
    assert falls(figures, "alone") and not falls({**figures, "curve.57.alone.wer": 0.85}, "alone")
    assert SYSTEM.verdicts(figures)["errors fall with every point of the curve, read speech beside"] == "not measured"


def test_stages_are_those_of_the_real_run_and_what_is_added(tmp_path: Path) -> None:
    one = FullSettings()

    def keys(chosen: FullSettings) -> dict[str, str]:
        return Pipeline(tmp_path, graph(chosen), asdict(chosen), threads=2).keys

    for stage in graph(one):
        module, _, function = stage.function.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), stage.name
    before = keys(one)
    assert {"latent", "tokens-own", "translator", "chained", "curve-6-alone", "curve-57-made", "emotions"} <= set(
        before
    )
    changed = {name for name, key in keys(replace(one, hours=2.0)).items() if key != before[name]}
    assert {"corpus", "latent", "tokens-own", "curve-6-alone"} <= changed
    assert not {"host", "translator", "emotions"} & changed
    assert "emotions" not in keys(replace(one, emotions=None))


def test_what_is_missing_is_said_before_anything_is_made(tmp_path: Path) -> None:
    given = (*settings_without(tmp_path), *texts(tmp_path), f"manifests=[{tmp_path / 'm.jsonl'}]", "emotions=")
    (tmp_path / "m.jsonl").write_text("", encoding="utf-8")
    for override, match in (
        ("reader=nowhere.onnx", "nowhere.onnx reads: make real-full"),
        ("texts=nowhere.tsv", "nowhere.tsv: no such file.*--set texts="),
        ("target=fr", "train.fr.gz: no such file.*--set translations="),
        ("curve=[15,6]", "the fewest first"),
        ("hours=0", "hours is 0"),
    ):
        with pytest.raises(InputError, match=match):
            run_system("real_full", tmp_path / "out" / match, SystemConfig(overrides=(*given, override)))
    assert not list((tmp_path / "out").glob("*/corpus"))
    parts = {"host": str(tmp_path), "whisper": str(tmp_path / "whisper"), "manifests": ("nowhere.jsonl",)}
    with pytest.raises(InputError, match="nowhere.jsonl: no such file"):
        check_full(asdict(FullSettings(**parts)))
