"""Which tool answers a request: by rules that are written down, or by the decoder's own `<tool>` span.

A call is a line `NAME key=value …`, such as `translate source=en target=de`. AudioGPT's four steps are here: what the
request brings in (modality), what it asks for (this file), the tool (the registry), the answer (the tool's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unitok.generation.token_request import TokenRequest
from unitok.pipelines.tools import Registry
from unitok.task_model import TaskModel
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.trie import ListedAutomaton


@dataclass(frozen=True)
class Call:
    """A tool and the words it is called with."""

    tool: str
    """Name of a tool."""
    words: tuple[tuple[str, str], ...] = ()
    """(argument, value), the arguments sorted."""

    def __str__(self) -> str:
        return " ".join([self.tool, *(f"{name}={value}" for name, value in self.words)])


def read_call(text: str) -> Call:
    """A call from its line; InputError where it is none."""
    name, *rest = text.split()[:64] or [""]
    pairs = [part.partition("=") for part in rest]
    if not name or not all(key and sign and value for key, sign, value in pairs):
        raise InputError(f"{text[:60]!r} is no call; write NAME key=value …")
    if len({key for key, _, _ in pairs}) < len(pairs):
        raise InputError(f"{text[:60]!r} gives an argument twice; give each once")
    return Call(name, tuple(sorted((key, value) for key, _, value in pairs)))


def check_call(call: Call, registry: Registry) -> Call:
    """The call; InputError where its tool or an argument is not of the registry."""
    tool = registry[call.tool]
    words = {name for name, kind in tool.inputs.items() if kind == "word"}
    if unknown := sorted({name for name, _ in call.words} - words):
        raise InputError(
            f"tool {call.tool!r} takes no word {unknown[0]!r}; it takes {', '.join(sorted(words)) or 'none'}"
        )
    return call


@dataclass(frozen=True)
class Rule:
    """One line of a script."""

    pattern: str
    """Regular expression that is looked for in the request, whatever its case; its named groups fill `words`."""
    tool: str
    """Name of the tool."""
    words: Mapping[str, str]
    """Argument → value; `{name}` stands for the pattern's group of that name."""


class Script:
    """Routing by rules: the first that matches decides.

    Args:
        rules: in the order of their precedence.
        registry: tools that may be called.
        values: spoken name → value, for what groups catch ("german" → "de").
    """

    def __init__(self, rules: Sequence[Rule], registry: Registry, values: Mapping[str, str] | None = None) -> None:
        for rule in rules:
            check_call(Call(rule.tool, tuple(rule.words.items())), registry)
        self.rules = [(re.compile(rule.pattern, re.IGNORECASE), rule) for rule in rules]
        self.values = dict(values or {})

    def __call__(self, request: str) -> Call:
        """The call that answers a request; InputError where no rule knows it."""
        for pattern, rule in self.rules:
            if (found := pattern.search(request)) is not None:
                return Call(rule.tool, tuple(sorted(self._words(found, rule).items())))
        raise InputError(f"no rule knows what to do with {request[:60]!r}; add one, or ask for something else")

    def _words(self, found: re.Match[str], rule: Rule) -> dict[str, str]:
        """A rule's words, filled in; InputError where one stands for a part of its pattern that was not there."""
        groups = {name: value for name, value in found.groupdict().items() if value is not None}
        words = {}
        for name, value in rule.words.items():
            try:
                words[name] = value.format(**{key: self.values.get(one.lower(), one) for key, one in groups.items()})
            except (KeyError, IndexError) as error:
                raise InputError(
                    f"{found.string[:60]!r} says nothing of {error.args[0]!r}, which the rule for {rule.tool!r} needs "
                    f"for {name!r}; say it, or add a rule without it"
                ) from None
        return words


@dataclass
class Router:
    """Routing by a model that was trained on the `<route>` line; it can only choose among `calls`."""

    model: TaskModel
    calls: Sequence[Call]
    """Every call that may be made."""
    lang: str = "en"
    """Language of the requests."""

    def __call__(self, request: str) -> Call:
        """The most probable call for a request, greedily."""
        return self.route([request])[0]

    def route(self, requests: Sequence[str]) -> list[Call]:
        """A call for each request."""
        texts = {str(call): call for call in self.calls}
        choices = [self.model.tokenizers.text.encode(text) for text in texts]
        vocabulary = self.model.vocabulary
        plans = [SequenceSpec("route", self.lang, conditions=(self.model.text_span(request),)) for request in requests]
        prompts = [render_prompt(plan, vocabulary) for plan in plans]
        automata = [ListedAutomaton(vocabulary, prompt, choices) for prompt in prompts]
        made = self.model.engine.run(
            [TokenRequest(prompt=p, automaton=one, limit=one.remaining) for p, one in zip(prompts, automata)]
        )
        found = [parse(np.concatenate([prompt, one.ids]), vocabulary) for prompt, one in zip(prompts, made)]
        decode = self.model.tokenizers.text.decode
        by_ids = dict(zip(map(tuple, choices), texts.values()))
        return [
            by_ids.get(tuple(one.outputs[0].content.tolist())) or texts[decode(one.outputs[0].content.tolist())]
            for one in found
        ]
