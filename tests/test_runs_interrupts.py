"""A run of stages that is asked to stop asks its stages, and waits until they have saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import toy_shards
from tests.support.tiny_model import speech
from tests.support.toy_shards import ToyShards
from tests.test_trainer_loop import CONFIG, MIXTURE, decoder
from unitok_tokenizers import files
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import sole_writer
from unitok_training.fitting.waveforms.codec_run import CodecRecipe, train_codec_run
from unitok_training.fitting.waveforms.vocoder_run import train_vocoder
from unitok_training.fitting.waveforms.waveform import VocoderRecipe
from unitok_training.runs.interrupts import Terminated, termination_raises
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.trainer.decoder import train

STAGES = """
import time
from unitok_training.trainer.stopping import stop_signals

def train(run, settings):
    with stop_signals() as came:
        (run / "began").touch()
        while not came():
            time.sleep(0.01)
        time.sleep(0.5)  # the step under way
        (run / "saved").write_text(str(came()))
"""
RUN = """
import sys
from pathlib import Path
from unitok_training.runs.schedule import Stage
from unitok_training.runs import stage_process
from unitok_training.runs.stage_graph import Pipeline

stage_process.EVERYWHERE = ("torch",)  # the others are imported at once
stage = Stage(name="train", function="slow_stages:train")
try:
    Pipeline(Path(sys.argv[1]), [stage], {}, threads=1).run()
except KeyboardInterrupt as error:
    raise SystemExit(128 + getattr(error, "number", 2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stages_save_before_the_run_ends(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "slow_stages.py").write_text(STAGES)
    path = os.pathsep.join([str(tmp_path), *(one for one in sys.path if one)])
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(run)], env={**os.environ, "PYTHONPATH": path})
    for _ in range(6000):
        if (run / "began").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    time.sleep(1.0)  # the stage may run before the run has heard of its process
    assert process.poll() is None
    process.send_signal(how)
    assert process.wait(60) == 128 + how
    assert (run / "saved").read_text() == str(int(signal.SIGTERM)), "it was killed, or nobody waited for it"


def test_a_second_signal_is_not_caught() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with termination_raises(), pytest.raises(Terminated):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before


HOLD = """
import sys, time
from pathlib import Path
from unitok_tokenizers.files import sole_writer

with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_two_processes_do_not_write_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        monkeypatch.setattr(files, "PATIENCE", 0.1)
        before = sorted(run.rglob("*"))
        with pytest.raises(InputError, match="another process writes .*run: wait for it, stop it, or name another"):
            Pipeline(run, [], {}, threads=1).run()
        with pytest.raises(InputError, match="another process writes"):
            train(CONFIG, decoder(), ToyShards(toy_shards.corpus()), toy_shards.vocabulary(), run, mixture=MIXTURE)
        rows = [Row(id="a", group="a", lang="en", audio=tmp_path / "a.wav")]
        write_audio(tmp_path / "a.wav", speech(2.0), 16000)
        for network in (
            lambda: train_vocoder(rows, run, VocoderRecipe(steps=1), device="cpu"),
            lambda: train_codec_run(rows, run, CodecRecipe(noises=False), device="cpu"),
        ):
            with pytest.raises(InputError, match="another process writes"):
                network()
        assert sorted(run.rglob("*")) == before, "who is refused has written something"
        holder.kill()
    monkeypatch.setattr(files, "PATIENCE", 5.0)
    with sole_writer(run):
        pass
    Pipeline(run, [], {}, threads=1).run()
