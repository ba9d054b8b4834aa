"""What holds for the whole suite."""

from __future__ import annotations

import gc
import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    derandomize=True,  # the same examples each time: a failure is of the change that shows it
    deadline=None,  # machines are busy
    database=None,  # two workers would share it
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


LONGEST = (
    *("systems", "docs", "runs_kill", "cost_measured", "trainer_overfit", "train_second_pass", "trainer_loop"),
    *("docs_api", "benchmarks", "train_split", "fitting_ranks", "systems_real", "experiments_demo"),
    *("systems_prosody_tokens", "trainer_fsdp", "systems_coordinator", "fitting_codec", "data_named_streams"),
    *("cost_memory", "trainer_ranks", "compute_without_bfloat16", "trainer_distributed", "run_models"),
    *("experiments_adapter_grid", "trainer_exactness", "vocoder_training", "experiments_compare", "systems_codes"),
    *("nbest_audio_context", "fitting_block_spelling", "listening_long_audio", "huggingface_export"),
    *("systems_real_full", "requests_many", "evaluation_ears", "runs_stage_process", "runs_interrupts"),
)
"""Files that take longest, about in their order: one that begins last leaves the other worker with nothing to do."""


def pytest_configure(config: pytest.Config) -> None:
    """Hear interrupts, which a shell hides from what it starts in the background: tests send them to their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config.option, "loadscopereorder"):  # xdist would begin with the files that have most tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, in both workers alike."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    """Leave modules out of every later collection: with all tests imported, one look through them takes half a second,
    and each training looks before it begins."""
    gc.collect()
    gc.freeze()
