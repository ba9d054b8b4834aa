"""The bench of systems of codes: likelihoods that can be compared, whatever the layout; loops and what ends them.

The checks themselves run with all others in `test_systems.py`.
"""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from unitok.decoder.model import Decoder
from unitok.layouts.registry import make_layout
from unitok.model_parts import LAYOUT
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, SystemConfig
from unitok_training.systems.base.code_bench import QUICK_CODES, CodeBench, code_nats
from unitok_training.systems.base.token_bench import settings_of
from unitok_training.systems.base.token_parts import PartsConfig
from unitok_training.systems.codes.moshi import MoshiConfig
from unitok_training.systems.codes.uniaudio import PLAIN, TASKS, UniAudioConfig, builds, kept_bytes, positions
from unitok_training.systems.codes.valle2 import (
    CHAINS,
    UNITS,
    Valle2Config,
    chain,
    longest_run,
    sampling_figures,
)

TINY = SystemConfig(sentences=12, test_sentences=4, limit=2, overrides=QUICK_CODES)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> CodeBench:
    """Parts that are made once for the tests below."""
    given = Bench(tmp_path_factory.mktemp("codes"), TINY, lambda said: None)
    return CodeBench(given, settings_of(given, UniAudioConfig))


@pytest.fixture(scope="module")
def runs(bench: CodeBench) -> dict[str, Evaluation]:
    """A flat model and one with a depth decoder, hardly trained."""
    return {
        arm: bench.evaluation(bench.train(arm, TASKS, seed=0, steps=1, options=PLAIN, build=build))
        for arm, build in builds(bench).items()
    }


def test_likelihoods_are_of_the_same_thing_however_codes_are_laid(runs: dict[str, Evaluation]) -> None:
    """Of models that know nothing, every frame costs what its codebooks have: in ids, or beside them."""
    found = {}
    for arm, run in runs.items():
        layout = run.model.parts.get(LAYOUT)
        assert (layout is None) == (arm == "flat")
        with torch.no_grad():
            for part in (run.model.decoder, *([layout] if isinstance(layout, torch.nn.Module) else [])):
                for value in part.parameters():
                    value.zero_()
        found[arm] = code_nats(run)
    flat, depth = found["flat"], found["depth"]
    assert len(flat.counts) == len(depth.counts) > 1 and flat.sizes.tolist() == depth.sizes.tolist()
    assert flat.counts == pytest.approx(depth.counts, rel=1e-3)
    units, *others = runs["flat"].model.vocabulary.streams["codes"].cardinalities
    frames = np.rint(flat.sizes * 25)
    each = log(units + 1) + sum(map(log, others))
    assert flat.counts == pytest.approx(frames * each + log(units + 1), rel=0.02), "the first frame cannot be the end"


def test_what_a_frame_takes(runs: dict[str, Evaluation], bench: CodeBench) -> None:
    flat, depth = (runs[arm].model for arm in ("flat", "depth"))
    books = len(bench.parts.codec.cardinalities)
    assert (positions(flat), positions(depth)) == (books, 1)
    assert kept_bytes(flat) == 2 * kept_bytes(depth), "one block of two is the small decoder's"
    assert bench.pack_of(books) == bench.config.train.pack_size > bench.pack_of(1) > bench.pack_of(0.5)


def test_by_its_settings_the_depth_decoder_takes_no_more_than_it_is_given() -> None:
    config, vocabulary, books = UniAudioConfig(), 900, (100, 64, 64, 64)
    stream = StreamInfo("codes", "codes", "c", None, books)
    choice = ModelChoice(
        layout="depth", depth_layers=config.depth_layers, depth_width=config.depth_width,
        depth_heads=config.decoder.heads, depth_kv_heads=config.decoder.kv_heads, state_added=True,
        step_projections=True,
    )  # fmt: skip
    pattern = choice.pattern(stream)
    assert pattern is not None
    core = Decoder(config.core.config(vocabulary - sum(books[1:])))
    layout = make_layout(pattern, width=config.decoder.width, options=choice.options())
    both = sum(value.numel() for part in (core, layout) for value in part.parameters())
    flat = sum(value.numel() for value in Decoder(config.decoder.config(vocabulary)).parameters())
    assert 0.9 * flat < both <= 1.02 * flat


def test_settings_of_codes_that_cannot_be() -> None:
    for wrong, said in (
        ({"depth_layers": 6}, "depth_layers is 6"), ({"temperature": 0.0}, "temperature is 0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            UniAudioConfig(**wrong)
    with pytest.raises(InputError, match="top_p is 0.3"):
        Valle2Config(top_p=0.3)
    with pytest.raises(InputError, match="translator needs two"):
        MoshiConfig(parts=replace(MoshiConfig().parts, languages=PartsConfig().languages))


# -- loops --------------------------------------------------------------------------------------------------------


def test_made_up_units_are_as_likely_as_they_are_said_to_be() -> None:
    random = np.random.default_rng(0)
    for distance in CHAINS.values():
        found = chain(distance, 0.25, 20000, random)
        share = float(np.mean((found[1:] - found[:-1]) % UNITS == distance))
        assert share == pytest.approx(0.25 + 0.75 / UNITS, abs=0.015) and set(found.tolist()) == set(range(UNITS))


def test_the_longest_stretch_of_one_unit() -> None:
    for units, length in (([], 0), ([3], 1), ([1, 1, 2, 2, 2, 1], 3), ([1, 2, 3], 1), ([5, 5], 2), ([1, 4, 4], 2)):
        assert longest_run(np.array(units, np.int64)) == length


@pytest.mark.slow
def test_aware_sampling_ends_loops_and_leaves_other_models_alone(bench: CodeBench) -> None:
    config = Valle2Config(parts=replace(Valle2Config().parts, sentences=400), limit=8)
    found = sampling_figures(bench, config)
    assert found["c24.looping.nucleus.looping"] > 0.8 and found["c24.looping.aware.looping"] == 0
    assert found["c24.looping.nucleus.longest_run"] > 60 and found["c24.looping.changed"] > 0.8
    assert found["c24.walking.changed"] == 0 and found["c24.walking.nucleus.longest_run"] == 1
