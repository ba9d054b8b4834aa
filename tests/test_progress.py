"""Signs of life: what is counted, the time that is left, lines that come whatever the work's own pace."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.stages_here import here
from unitok_tokenizers.progress import (
    Clock,
    Place,
    Watch,
    advance,
    advance_aside,
    counted,
    duration,
    heard,
    line_of,
    listening,
    part_of_work,
)
from unitok_training.runs.schedule import Stage, seconds_until_done, startable
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.runs.stage_progress import LineDisplay, PlaceWriter, Reading, Running, progress_file, read_place

THIS = "tests.test_progress"


def test_what_is_counted_is_told_to_whoever_listens_and_to_nobody_else() -> None:
    told: list[Place] = []
    advance("step", 1, 2)
    assert not heard()
    with listening(told.append):
        assert heard() and list(counted("ab", "letter")) == ["a", "b"]
        advance_aside("recording", 1, 2)  # too few to be worth a word
        with part_of_work("task 2 of 4, asr", 1, 4):
            advance("answer", 5, 10, 0.25)
    advance("step", 2, 2)
    assert [str(one) for one in told] == [
        "letter 0 of 2", "letter 1 of 2", "letter 2 of 2", "task 2 of 4, asr: answer 5 of 10, loss 0.250",
    ]  # fmt: skip
    assert told[-1].share == pytest.approx((1 + 0.5) / 4) and told[0].share == 0.0


def test_threads_are_heard_where_they_take_the_context_along() -> None:
    told: list[Place] = []
    with listening(told.append):
        for run in (advance, contextvars.copy_context().run):
            words = ("row", 1, 1) if run is advance else (advance, "row", 1, 1)
            thread = threading.Thread(target=run, args=words)
            thread.start()
            thread.join()
    assert len(told) == 1


def test_the_time_left_follows_this_run_s_own_speed() -> None:
    clock = Clock()

    def at(step: int) -> Place:
        return Place(what="step", step=step, steps=100, loss=None)

    assert clock.left(at(60), 1000.0) is None, "a run that continues at step 60 knows nothing of its speed yet"
    assert clock.left(at(70), 1020.0) == pytest.approx(60.0)
    assert clock.left(at(5), 1030.0) is None, "other work begins anew"
    assert clock.left(Place(what="row", step=1, steps=9), 1031.0) is None
    assert [duration(one) for one in (-1, 8.4, 99, 100, 3000, 9000)] == [
        "0 s",
        "8 s",
        "99 s",
        "2 min",
        "50 min",
        "2.5 h",
    ]


def test_a_line_says_stage_step_of_steps_loss_and_time_left() -> None:
    place = Place(what="encoder step", step=120, steps=300, loss=1.2344)
    assert line_of("units", place, left=45.2, still=0.3) == "units: encoder step 120 of 300, loss 1.234, 45 s left"
    assert (
        line_of("units", place, left=9.0, still=20.0)
        == "units: encoder step 120 of 300, loss 1.234, 20 s ago, 9 s left"
    )
    assert line_of("units", None, left=None, still=12.0) == "units: at work for 12 s"
    done = Place(what="row", step=3, steps=3)
    assert line_of("prepare", done, left=0.0, still=0.0) == "prepare: row 3 of 3"


def test_a_watch_gives_lines_while_steps_are_slow_and_none_where_work_is_quick() -> None:
    lines: list[str] = []
    with Watch("train", lines.append, interval=0.1):
        for step in range(3):
            time.sleep(0.5)  # several intervals a step
            advance("step", step + 1, 3, 1.0 / (step + 1))
    assert len(lines) >= 6, lines
    assert lines[0] == "train: at work for 0 s" and any("step 1 of 3, loss 1.000" in line for line in lines)
    assert any("step 2 of 3, loss 0.500" in line and "left" in line for line in lines)
    lines.clear()
    with Watch("quick", lines.append, interval=60.0):
        advance("step", 1, 1)
    assert lines == [] and not heard()


def test_a_stage_writes_its_place_seldom_and_its_last_step_always(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "units.progress.json"
    writer = PlaceWriter(path, said.append, every=60.0, line_every=60.0)
    assert read_place(path) is None
    with listening(writer):
        for step in range(1, 101):
            advance("step", step, 100, 1.0)
            if step == 50:
                found = read_place(path)
                assert found is not None and found.place.step == 1, "written once within a minute"
    found = read_place(path)
    assert found is not None and found.place == Place(what="step", step=100, steps=100, loss=1.0)
    assert found.left == 0.0 and found.age < 10 and said == ["step 1 of 100, loss 1.000"]
    path.write_text("{", encoding="utf-8")
    assert read_place(path) is None
    with listening(PlaceWriter(tmp_path / "no" / "folder.json", said.append)):
        advance("step", 1, 2)  # a place that cannot be written stops nothing


def slow_stage(run: Path, settings: Mapping[str, Any], *arguments: str) -> None:
    """A stage whose steps are slow."""
    for step in range(settings["steps"]):
        time.sleep(0.2)
        advance("step", step + 1, settings["steps"], 1.0 - 0.1 * step)


def test_a_pipeline_shows_the_steps_of_its_stages_as_they_come(tmp_path: Path) -> None:
    lines: list[str] = []
    stages = [Stage(name=name, function=f"{THIS}:slow_stage", settings=("steps",)) for name in ("units", "judge")]
    display = LineDisplay(lines.append, interval=0.3)
    expected = {"units": 2.0, "judge": 2.0}
    run = tmp_path / "run"
    Pipeline(run, stages, {"steps": 9}, threads=2, report=lines.append, display=display, expected=expected).run()
    assert lines[0].startswith("computes on cpu") and "units: started" in lines and "judge: started" in lines
    for name in ("units", "judge"):
        steps = [int(line.split("step ")[1].split(" ")[0]) for line in lines if line.startswith(f"{name}: step")]
        assert len(set(steps)) >= 3 and steps == sorted(steps), lines
        assert progress_file(run, name).exists() and "step 9 of 9" in (run / "logs" / f"{name}.log").read_text()
    assert any(line.endswith("left") and "of 9, loss" in line for line in lines)
    assert any(line.startswith("in all: about ") for line in lines)


def test_a_run_that_goes_on_elsewhere_says_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    said: list[str] = []
    stage = Stage(name="units", function=f"{THIS}:slow_stage", settings=("steps",))
    for steps, threads in ((1, 1), (2, 3), (2, 1)):
        Pipeline(tmp_path / "run", [stage], {"steps": steps}, threads=threads, report=said.append).run()
    changed = [line for line in said if "threads was" in line]
    assert changed == ["threads was 1 and is 3: finished stages are kept, and the others go on with what is here"]
    assert sum(line.startswith("computes on") for line in said) == 2, "what was done before is computed on nothing"
    assert not (tmp_path / "run" / "wall.json").exists(), "the first run's seconds are not those of the second"
    Pipeline(tmp_path / "other", [stage], {"steps": 1}, threads=1, report=said.append).run()
    Pipeline(tmp_path / "other", [stage], {"steps": 1}, threads=1, report=said.append).run()
    assert (tmp_path / "other" / "wall.json").exists(), "a repeat that does nothing leaves what is known"


def test_the_whole_run_s_time_is_that_of_its_longest_way() -> None:
    stages = [
        Stage(name="corpus", function="", threads=2),
        Stage(name="units", function="", needs=("corpus",)),
        Stage(name="judge", function="", needs=("corpus",)),
        Stage(name="decoder", function="", needs=("units",), threads=2),
    ]
    seconds = {"corpus": 10.0, "units": 30.0, "judge": 50.0, "decoder": 100.0}
    assert seconds_until_done(stages, 2, seconds, ()) == 10 + 50 + 100  # the decoder waits for both threads
    assert seconds_until_done(stages, 3, seconds, ()) == 10 + 30 + 100
    assert seconds_until_done(stages, 1, seconds, ()) == 190
    assert seconds_until_done(stages, 2, {"judge": 5.0, "decoder": 100.0}, ("judge",)) == 105
    names = [(stage.name, threads) for stage, threads in startable(stages, 2, {"corpus"}, ())]
    assert names == [("units", 1), ("judge", 1)] and startable(stages, 2, {"corpus", "units"}, ("judge",)) == []


def test_the_time_of_a_stage_is_its_own_only_while_its_main_work_is_counted() -> None:
    reading = Place(what="recording", step=5, steps=20)
    training = Place(what="encoder step", step=5, steps=20, loss=1.0)
    found = [Running(name="units", seconds=3.0, reading=Reading(place, 30.0, 2.0)) for place in (reading, training)]
    assert [one.main_work for one in found] == [False, True] and found[1].left == 28.0
    assert str(found[1]) == "units: encoder step 5 of 20, loss 1.000, 28 s left"


def test_lines_come_no_oftener_than_they_should() -> None:
    running = [Running(name="units", seconds=1.0, reading=None)]
    for interval, lines in ((60.0, 0), (0.0, 4)):
        said: list[str] = []
        display = LineDisplay(said.append, interval=interval)
        for _ in range(4):
            display.show(running, None)
        display.close()
        assert said == ["units: at work for 1 s"] * lines
    LineDisplay(said.append, interval=0.0).show([], None)
    assert len(said) == 4, "where nothing runs there is nothing to say"
