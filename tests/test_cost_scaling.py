"""The arithmetic of large runs: the page is what the functions say, and the functions say what can be worked out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_training.cost import scaling
from unitok_training.cost.devices import GPUS
from unitok_training.cost.scaling import LINES, large_run, page
from unitok_training.cost.step import parameters

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_functions_give() -> None:
    written = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    assert written == page(), "run `python -m unitok_training.cost.scaling > docs/scaling.md`"
    assert all(f"`{line.function.__name__}`" in written for line in LINES)


def test_figures_by_hand() -> None:
    run = large_run(8)
    assert parameters(run.setup.config) == pytest.approx(7.67e9, rel=0.01)
    assert scaling.tokens(run) == pytest.approx(4 * 1e5 * 3600 * (30 + 3.5 + 0.6))
    assert scaling.tokens_a_step(run) == 512 * 8192
    assert scaling.checkpoint_bytes(run) == 12 * parameters(run.setup.config)
    weights = 16 * parameters(run.setup.config) / 8
    assert scaling.state_bytes(run) == pytest.approx(weights)
    needed = 6 * parameters(run.setup.config) * scaling.tokens_a_step(run) / 8
    assert scaling.computing_seconds(run) * run.device.flops * run.device.share == pytest.approx(needed, rel=0.15)
    assert scaling.gpu_hours(run) == pytest.approx(24 * 8 * scaling.days(run))


def test_more_gpus_need_less_memory_and_time_and_send_more_in_all() -> None:
    few, many = large_run(8), large_run(512)
    assert scaling.peak_bytes(many) < scaling.peak_bytes(few) and scaling.days(many) < scaling.days(few)
    assert scaling.stall_seconds(many) < scaling.stall_seconds(few)
    assert scaling.sent_bytes(many) * 512 > scaling.sent_bytes(few) * 8
    assert scaling.tokens(many) == scaling.tokens(few) and scaling.steps(many) == scaling.steps(few)


def test_smaller_memory_computes_blocks_again_and_what_cannot_fit_is_refused() -> None:
    assert not large_run(8).setup.recompute_blocks
    small = replace(GPUS["h100"], memory_bytes=60 << 30)
    assert large_run(8, device=small).setup.recompute_blocks
    huge = DecoderConfig(vocab_size=160_000, width=16384, layers=126, heads=128, kv_heads=8, ffn=53248)
    with pytest.raises(InputError, match="h200 has"):
        large_run(8, config=huge)
    with pytest.raises(InputError, match="divisor"):
        large_run(12)
