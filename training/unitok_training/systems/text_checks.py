"""Checks of `unitok systems` whose systems work on text and states and train no latent recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unitok_training.recipes.decoder import overridden
from unitok_training.systems.bench import Bench
from unitok_training.systems.coordinator import CoordinatorConfig, coordinator_figures
from unitok_training.systems.tool_routing import RoutingConfig, routing_figures


def check_coordinator(bench: Bench) -> dict[str, float]:
    """A coordinator with state tokens: its states in conversations of held-out voices, left to itself."""
    given = bench.config
    config = CoordinatorConfig(turns=given.sentences, test_turns=given.test_sentences, seed=given.seed)
    return coordinator_figures(bench.run, overridden(given.precisely(config), given.overrides), report=bench.report)


def check_routing(bench: Bench) -> dict[str, float]:
    """AudioGPT's choice of a tool: requests in other words than were learnt, by rules and by a trained router."""
    given = bench.config
    config = RoutingConfig(requests=given.sentences, test_requests=given.test_sentences, seed=given.seed)
    return routing_figures(bench.run, overridden(given.precisely(config), given.overrides), report=bench.report)


TEXT_CHECKS: Mapping[str, Callable[[Bench], dict[str, float]]] = {
    "coordinator": check_coordinator,
    "routing": check_routing,
}
"""Name → check."""
