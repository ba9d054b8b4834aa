"""Processes of stages, forked or not: how they end, what they are given, and that no request to stop is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launching import runs
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_training.runs.process_memory import shared_out_bytes, tree_bytes
from unitok_training.runs.schedule import Stage
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.runs.stage_process import StageProcess, Stages, _Forked, _Parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stages are forked under Linux alone")

MODULE = """
import os, signal, sys, time

print("said while it was imported", flush=True)

def done(run, settings):
    print("done")

def leaves(run, settings):
    sys.exit(5)

def dies(run, settings):
    os.kill(os.getpid(), signal.SIGSEGV)

def fails(run, settings):
    raise RuntimeError("no luck")

def refuses(run, settings):
    from unitok_tokenizers.errors import InputError
    print("a line before")
    raise InputError("x.wav: too short; give another")

def lacks(run, settings):
    raise ModuleNotFoundError("No module named 'jiwer'", name="jiwer")

def killed(run, settings):
    os.kill(os.getpid(), signal.SIGKILL)

def slow(run, settings):
    (run / "began").touch()
    time.sleep(1 if (run / "again").exists() else 600)

def told(run, settings):
    import torch
    told = os.environ["OMP_NUM_THREADS"], os.environ["UNITOK_PRECISION"]
    print(torch.get_num_threads(), *told, repr(sys.stdin.read()))

def sleeps(run, settings):
    (run / "began").touch()
    time.sleep(600)

def holds(run, settings):
    import torch
    held = bytearray(50_000_000)
    held[::4096] = b"x" * len(held[::4096])
    (run / "began").touch()
    time.sleep(600)
"""
ENDS = {"done": 0, "leaves": 5, "dies": -signal.SIGSEGV, "fails": 1, "refuses": 2}


@pytest.fixture(scope="module", autouse=True)
def no_compiler() -> Iterator[None]:
    """What forks imports torch alone: no stage here trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unitok_training.runs.stage_process.EVERYWHERE", ("torch",))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("stages")
    (place / "some_stages.py").write_text(MODULE)
    (place / "run/logs").mkdir(parents=True)
    write_json(place / "run/pipeline.json", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        yield place / "run"


@pytest.fixture(scope="module", params=[True, False], ids=["forked", "alone"])
def stages(request: pytest.FixtureRequest, run: Path) -> Iterator[Stages]:
    found = Stages(run, ["some_stages"], forks=request.param)
    yield found
    found.close()


def start(stages: Stages, run: Path, name: str) -> StageProcess:
    (run / "began").unlink(missing_ok=True)
    words = [name, f"some_stages:{name}", str(run)]
    return stages.start(words, threads=2, precision={"UNITOK_PRECISION": "fp32"}, log=run / "logs" / f"{name}.log")


def awaited(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_they_end_as_their_stages_do(stages: Stages, run: Path) -> None:
    running = {name: start(stages, run, name) for name in ENDS}
    assert {name: one.wait() for name, one in running.items()} == ENDS
    assert all(one.poll() == ENDS[name] for name, one in running.items())
    lines = {name: (run / f"logs/{name}.log").read_text().splitlines() for name in ENDS}
    assert lines["done"][-1] == "done" and lines["fails"][-1] == "RuntimeError: no luck"
    assert lines["refuses"][-1] == "x.wav: too short; give another", "what was printed before stands before it"


def test_they_are_told_threads_and_precision_and_given_no_input(stages: Stages, run: Path) -> None:
    assert start(stages, run, "told").wait() == 0
    said = (run / "logs/told.log").read_text().splitlines()[-1].split()
    assert said[:3] == ["2", "2", "fp32"]
    if stages._forks:  # one that is not has the input of its run
        assert said[3] == "''"


def test_a_request_to_stop_is_heard_at_once(stages: Stages, run: Path) -> None:
    for _ in range(12 if stages._forks else 1):
        one = start(stages, run, "sleeps")
        one.terminate()
        begin = time.monotonic()
        assert one.wait() == -signal.SIGTERM and time.monotonic() - begin < 30


def test_a_log_that_cannot_be_written_is_said_by_who_starts_it(stages: Stages, run: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        stages.start(["a", "some_stages:done", str(run)], threads=1, precision={}, log=run / "nowhere/a.log")


def test_a_child_goes_with_what_forked_it_and_the_next_has_another(run: Path) -> None:
    stages = Stages(run, ["some_stages"], forks=True)
    try:
        one = start(stages, run, "sleeps")
        awaited(run / "began")
        assert stages._parent is not None
        stages._parent.process.kill()
        assert one.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 20
        while runs(one.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not runs(one.pid)
        assert start(stages, run, "done").wait() == 0
    finally:
        stages.close()


def test_nothing_begins_when_a_run_has_ended(run: Path) -> None:
    """A stop while modules are imported: the request lies in the pipe."""
    parent = _Parent(["some_stages"], run / "logs/stages.log")
    assert parent.process.stdin is not None
    (run / "began").unlink(missing_ok=True)
    parent.process.stdin.write(b'{"words": ["sleeps", "some_stages:sleeps", "%s"]}\n' % str(run).encode())
    begin = time.monotonic()
    parent.close()
    assert time.monotonic() - begin < 5 and not (run / "began").exists()


def test_a_number_that_the_system_gives_again_is_of_the_later_one() -> None:
    parent = object.__new__(_Parent)
    parent.process = subprocess.Popen(["printf", r"7\n7 3\n7\n"], stdout=subprocess.PIPE)
    parent.ended, parent._begun, parent._text = {}, [], b""
    assert parent.process.stdout is not None
    parent.process.wait()
    parent.hear(None)
    assert parent._begun == [7, 7] and parent.ended == {}
    assert _Forked(parent, 7).wait() == -signal.SIGKILL, "who would have told is gone"
    parent.process.stdout.close()


def test_pages_that_processes_share_count_once(stages: Stages, run: Path) -> None:
    one = start(stages, run, "holds")
    awaited(run / "began")
    together, apart = shared_out_bytes(os.getpid()), tree_bytes([os.getpid(), one.pid])
    assert together < apart[os.getpid()] - 50_000_000, "libraries of two processes that are the same"
    assert apart[one.pid] >= 50_000_000
    one.terminate()
    assert one.wait() == -signal.SIGTERM


def test_an_ignored_interrupt_stays_ignored(run: Path) -> None:
    """A shell ignores Ctrl-C for what it starts in the background, and so do the stages of that."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from pathlib import Path; "
        "import unitok_training.runs.stage_process as process; process.EVERYWHERE = ('torch',); "
        "from unitok_training.runs.stage_process import Stages; run = Path(sys.argv[1]); "
        "s = Stages(run, ['some_stages'], forks=True); import os; "
        "one = s.start(['sleeps', 'some_stages:sleeps', str(run)], threads=1, precision={}, log=run / 'logs/i.log'); "
        "print(one.pid, flush=True); sys.stdin.read(); one.terminate(); print(one.wait(), flush=True); s.close()"
    )
    (run / "began").unlink(missing_ok=True)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=paths
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        pid = int(process.stdout.readline())
        awaited(run / "began")
        os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        process.stdin.close()
        assert int(process.stdout.readline()) == -signal.SIGTERM, "the interrupt ended it"


def test_a_pipeline_says_what_a_stage_refused(run: Path) -> None:
    with pytest.raises(InputError, match=r"^x\.wav: too short; give another$"):
        Pipeline(
            run, [Stage(name="refuses", function="some_stages:refuses")], {}, threads=1, report=lambda _: None
        ).run()


def test_a_package_that_is_missing_and_a_kill_for_memory_are_one_message(run: Path, tmp_path: Path) -> None:
    for function, said in (("lacks", r"needs jiwer: pip install 'unitok\[eval\]'"), ("killed", "killed from without")):
        pipeline = Pipeline(tmp_path, [Stage(name=function, function=f"some_stages:{function}")], {}, threads=1)
        with pytest.raises(InputError, match=said):
            pipeline.run()


def test_seconds_of_a_stage_are_those_of_all_attempts(run: Path, tmp_path: Path) -> None:
    def pipeline() -> Pipeline:
        return Pipeline(
            tmp_path, [Stage(name="slow", function="some_stages:slow")], {}, threads=1, report=lambda line: None
        )

    first = pipeline()

    def looked() -> None:
        if any(one.seconds > 1.5 for one in first._running.values()):
            raise KeyboardInterrupt

    first._look_at_memory = looked  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    (tmp_path / "again").touch()
    (record,) = pipeline().run().values()
    assert record.seconds >= 2.5 and not (tmp_path / "wall.json").exists()
    assert not list((tmp_path / "stages").glob("*.part"))
