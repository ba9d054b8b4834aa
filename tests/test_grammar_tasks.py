"""Every row of the task table keeps what a row promises: the test that a new task has to pass, whoever writes it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.toy_plans import own, random_plan
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.controls import CONTROLS
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.tasks.base import CONDITION_KINDS, FLAGS
from unitok_tokenizers.grammar.tasks.registry import ALIASES, TASKS, VARIANTS
from unitok_training.data.latent_tasks import SHOWN
from unitok_training.evaluation.latent import METRICS

VOCABULARY = own()
each_task = pytest.mark.parametrize("name", TASKS)


@each_task
def test_its_row_names_what_there_is(name: str) -> None:
    task = TASKS[name]
    assert task.name == name and f"<{name}>" in CONTROLS and task.languages in (1, 2) and task.description
    assert set(task.conditions) <= set(CONDITION_KINDS) and (task.outputs or task.interleaved)
    kinds = {kind for _, outputs in (((), task.outputs), *task.by_flag) for kind in outputs}
    assert all(f"<gen:{kind}>" in CONTROLS for kind in kinds)
    assert {flag for flags, _ in task.by_flag for flag in flags} <= set(task.flags) <= set(FLAGS)


@each_task
def test_every_combination_of_its_flags_renders_parses_and_ends(name: str) -> None:
    rng = np.random.default_rng(7)
    for flags in ((), *(flags for flags, _ in TASKS[name].by_flag)):
        for _ in range(5):
            plan = random_plan(name, flags, VOCABULARY, rng)
            rendered = render(plan, VOCABULARY)
            parsed = parse(rendered.ids, VOCABULARY)
            assert parsed.complete and parsed.plan() == plan and rendered.loss_weight.sum() > 0
        prompt = render_prompt(SequenceSpec(name, plan.source, plan.target, flags, plan.conditions), VOCABULARY)
        automaton = Automaton(VOCABULARY, prompt, max_new_tokens=64)
        ids: list[int] = []
        while not ids or ids[-1] != VOCABULARY.eos:
            ids.append(int(rng.choice(np.flatnonzero(automaton.mask(VOCABULARY.size)))))
            automaton.advance(ids[-1])
        assert len(ids) <= 64 and parse(np.concatenate([prompt, ids]), VOCABULARY).complete


@each_task
def test_its_variants_give_what_it_takes(name: str) -> None:
    task = TASKS[name]
    for one in task.variants:
        assert one.description and set(one.flags) <= set(task.flags)
        assert one.given is not None or one.rows is not None, "nothing makes its examples"
        assert set(one.given or ()) <= set(task.conditions)
        assert set(one.metrics) <= METRICS.keys() and (one.rows is None or one.rows.shows in SHOWN)


def test_keys_and_aliases_are_one_set_of_names() -> None:
    assert not set(ALIASES) & set(VARIANTS) and set(ALIASES.values()) <= set(VARIANTS)
    assert all(key.split(".")[0] == one.task.name for key, one in VARIANTS.items())
    assert len({one.metric for one in VARIANTS.values()}) == len(VARIANTS)
