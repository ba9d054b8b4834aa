"""Tools, and plans that use them: a checked graph of calls that is run in order, every result and time kept.

The shape of AudioGPT (tools by modality) and HuggingGPT (a planner's list of calls with dependencies); the survey's
cascades are such graphs. A plan is checked as a whole before its first tool runs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from unitok.results import Stage
from unitok_tokenizers.errors import InputError

MODALITIES = ("text", "audio", "word")
"""What passes between tools: text, (samples, rate), and plain settings such as a language."""
RESOURCE = re.compile(r"<resource>-(\w+)")
"""How a planner names the result of an earlier call."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """Something that a plan may call."""

    name: str
    """Name in plans."""
    description: str
    """What it does, for whoever plans."""
    inputs: Mapping[str, str]
    """Argument → modality; all are required."""
    output: str
    """Modality of what it returns."""
    function: Callable[..., Any] = field(repr=False)
    """Called with the inputs by name."""

    def __post_init__(self) -> None:
        for modality in (*self.inputs.values(), self.output):
            if modality not in MODALITIES:
                raise InputError(f"tool {self.name!r}: unknown modality {modality!r}; choose {', '.join(MODALITIES)}")


class Registry:
    """Tools by name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self.tools: dict[str, Tool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool) -> None:
        """Make a tool known; InputError where its name is taken."""
        if tool.name in self.tools:
            raise InputError(f"there is a tool {tool.name!r} already; choose another name")
        self.tools[tool.name] = tool

    def __getitem__(self, name: str) -> Tool:
        if name not in self.tools:
            raise InputError(f"unknown tool {name!r}; known: {', '.join(sorted(self.tools)) or 'none'}")
        return self.tools[name]

    def describe(self) -> str:
        """A line per tool, for a planner's prompt."""
        rows = [
            f"{tool.name}({', '.join(f'{name}: {kind}' for name, kind in tool.inputs.items())}) -> {tool.output}: "
            f"{tool.description}"
            for tool in self.tools.values()
        ]
        return "\n".join(rows)


@dataclass(frozen=True)
class Use:
    """A reference to what was given under this name, or to the result of the step of this name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of a plan."""

    id: str
    """Name of its result."""
    tool: str
    """Name of a tool."""
    inputs: Mapping[str, Any]
    """Argument → `Use` of a result or of what is given, or a plain word."""


class ToolPlan:
    """Steps that were checked against a registry, in an order in which they can run.

    Args:
        steps: the calls, in any order.
        registry: tools that may be called.
        given: name → modality of what the caller will give.

    Raises:
        InputError: no steps, two steps of one name, an unknown tool or argument, a missing input, a reference to
            nothing, another modality than the tool takes, or steps that wait for each other.
    """

    def __init__(self, steps: Sequence[Step], registry: Registry, given: Mapping[str, str]) -> None:
        if not steps:
            raise InputError("the plan has no steps; give at least one")
        self.registry, self.given = registry, dict(given)
        self.steps: dict[str, Step] = {}
        for step in steps:
            if step.id in self.steps or step.id in given:
                raise InputError(f"plan: the name {step.id!r} is used twice; name every step and input once")
            self.steps[step.id] = step
        for step in steps:
            self._check(step)
        waits = {step.id: {one for one in _uses(step) if one in self.steps} for step in steps}
        try:
            self.order = list(TopologicalSorter(waits).static_order())
        except CycleError as error:
            loop = " → ".join(str(name) for name in error.args[1])
            raise InputError(f"plan: steps wait for each other ({loop}); break the cycle") from None

    def _check(self, step: Step) -> None:
        tool, where = self.registry[step.tool], f"step {step.id!r} ({step.tool})"
        if missing := sorted(set(tool.inputs) - set(step.inputs)):
            raise InputError(f"{where}: input {missing[0]!r} is missing; the tool takes {', '.join(tool.inputs)}")
        if unknown := sorted(set(step.inputs) - set(tool.inputs)):
            raise InputError(f"{where}: the tool takes no {unknown[0]!r}; it takes {', '.join(tool.inputs)}")
        for name, value in step.inputs.items():
            found = self._modality(value, where) if isinstance(value, Use) else "word"
            wanted = tool.inputs[name]
            if found != wanted and not (found == "word" and wanted == "text"):
                raise InputError(f"{where}: input {name!r} takes {wanted}, not {found}")

    def _modality(self, value: Use, where: str) -> str:
        if value.name in self.given:
            return self.given[value.name]
        if value.name not in self.steps:
            known = ", ".join([*self.given, *self.steps])
            raise InputError(f"{where}: refers to {value.name!r}, which nothing gives; known: {known}")
        return self.registry[self.steps[value.name].tool].output

    def run(self, given: Mapping[str, Any]) -> tuple[Stage, ...]:
        """Call the tools in order; returns what each gave and how long it took.

        Raises:
            InputError: something that the plan was promised is not given, or a tool's own complaint, with its step.
        """
        if missing := sorted(set(self.given) - set(given)):
            raise InputError(f"plan: {missing[0]!r} is not given; give {', '.join(self.given)}")
        values = {name: given[name] for name in self.given}
        stages = []
        for name in self.order:
            step = self.steps[name]
            arguments = {
                key: values[value.name] if isinstance(value, Use) else value for key, value in step.inputs.items()
            }
            begin = time.perf_counter()
            try:
                values[name] = self.registry[step.tool].function(**arguments)
            except InputError as error:
                raise InputError(f"step {name!r} ({step.tool}): {error}") from error
            stages.append(Stage(name=name, tool=step.tool, output=values[name], seconds=time.perf_counter() - begin))
        return tuple(stages)


def _uses(step: Step) -> set[str]:
    return {value.name for value in step.inputs.values() if isinstance(value, Use)}


def read_steps(text: str) -> list[Step]:
    """Steps of a planner's JSON: `[{"task": tool, "id": 0, "dep": [-1], "args": {"audio": "<audio>"}}, …]`.

    `<resource>-K` is the result of step K, which `dep` must name; `<name>` is something given; anything else a word.

    Raises:
        InputError: not such a list, or a reference that `dep` does not name.
    """
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the plan is not JSON ({error}); write a list of steps") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError("the plan is no JSON list of objects; write [{task, id, dep, args}, …]")
    return [_read_step(row) for row in rows]


def _read_step(row: Mapping[str, Any]) -> Step:
    absent = sorted({"task", "id", "args"} - set(row))
    if absent or not isinstance(row["args"], dict) or not isinstance(row.get("dep", []), list):
        raise InputError(f"plan: step {repr(dict(row))[:60]} lacks {', '.join(absent) or 'args or dep of its kind'}")
    depends = {str(one) for one in row.get("dep", []) if one != -1}
    inputs: dict[str, Any] = {}
    for name, value in row["args"].items():
        reference = RESOURCE.fullmatch(value) if isinstance(value, str) else None
        if reference is not None:
            if reference[1] not in depends:
                raise InputError(f"plan: step {row['id']!r} uses {value}, which its dep does not name; add it there")
            inputs[name] = Use(reference[1])
        elif isinstance(value, str) and value.startswith("<") and value.endswith(">"):
            inputs[name] = Use(value[1:-1])
        else:
            inputs[name] = value
    if unused := sorted(depends - {value.name for value in inputs.values() if isinstance(value, Use)}):
        raise InputError(f"plan: step {row['id']!r} depends on {unused[0]!r} and does not use it; take it out of dep")
    return Step(id=str(row["id"]), tool=str(row["task"]), inputs=inputs)
