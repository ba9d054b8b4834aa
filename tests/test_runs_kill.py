"""Killed at any moment, a repeat ends where an undisturbed run does. `make soak` does the same, more often."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tools.soak import Workshop, soak

KILLED, STOPPED = 608, 317
"""Seeds of which the first round stops every command twice, at a moment and before a file operation, neither near an
end; `make soak` has twenty rounds."""
RUNS = ("train", "train-latent", "train-vocoder", "train-codec")
ASKED = dict(zip(RUNS, (signal.SIGTERM, signal.SIGINT) * 2))
"""Either signal reaches the same handler: each stops two of the four."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("soak") / "workshop")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit-tokenizers", "prepare", *RUNS, "export"])
def test_a_repeat_after_sigkill_gives_identical_files(command: str, workshop: Workshop, tmp_path: Path) -> None:
    report = soak(workshop.jobs()[command](), tmp_path / "rounds", rounds=1, seed=KILLED)
    assert report.kills >= 1, f"of {report.moments} none came before the command's end"


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_a_run_that_is_asked_to_stop_saves_and_ends_where_an_undisturbed_one_does(
    command: str, workshop: Workshop, tmp_path: Path
) -> None:
    report = soak(workshop.jobs()[command](), tmp_path / "rounds", rounds=1, seed=STOPPED, how=ASKED[command])
    # Moments are drawn over the first run: on a machine that other work slows down meanwhile later ones end before.
    assert report.kills >= 1, f"of {report.moments} none came before the command's end"
