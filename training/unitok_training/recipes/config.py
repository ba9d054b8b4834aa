"""Nested configurations from files and from the command line: values by key, checked against each field's type.

unitok train demo --set train.steps=500 --set mixture.mt=0
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_training.data.mixture import Curriculum, Mixture, parse_key

LARGEST = 2**31 - 1
"""No number of a recipe is negative or larger."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
YAML_TROUBLE = (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError)
"""What `yaml.safe_load` raises: impossible dates, unhashable keys and deep nesting are no `YAMLError`."""


Configuration = typing.TypeVar("Configuration")


@contextmanager
def in_file(path: Path) -> Iterator[None]:
    """Begin the message of what is refused with the recipe's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"recipe {path}: {error}") from error


def parse_value(text: str) -> Any:
    """A value as YAML reads it, so that lists, true, null and quoted strings work on the command line."""
    try:
        return yaml.safe_load(text)
    except YAML_TROUBLE as error:
        raise InputError(f"--set value {text!r} is not YAML: {' '.join(str(error).split())}; quote it") from error


def nest(key: str, value: Any) -> dict[str, Any]:
    """("train.optim.clip", 1) → {"train": {"optim": {"clip": 1}}}; task keys of the mixture keep their points."""
    head, point, rest = key.partition(".")
    if not point:
        return {head: value}
    return {head: {rest: value} if head in ("mixture", "curriculum") else nest(rest, value)}


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def replaced(target: Configuration, data: Mapping[str, Any]) -> Configuration:
    """With values replaced. InputError for an unknown key (with the nearest) or a value of another type."""
    return typing.cast(Configuration, _apply(target, data, ""))


def overridden(target: Configuration, overrides: Sequence[str]) -> Configuration:
    """A nested configuration after `key=value` overrides, in order; InputError for one that is not of this form."""
    for override in sorted(overrides, key=_says_kind, reverse=True):  # what a group is stands before what it has
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {override!r}: write key=value, such as train.steps=500")
        target = replaced(target, nest(key.strip(), parse_value(value)))
    return target


def _says_kind(override: str) -> bool:
    return override.partition("=")[0].strip().endswith(".kind")


@typing.runtime_checkable
class OfKinds(typing.Protocol):
    """A group whose keys depend on its kind."""

    kind: str

    def of_kind(self, kind: Any) -> Any:
        """The same of another kind, without what that one does not have."""


def _apply(target: Any, data: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(type(target))
    known = {item.name for item in fields(target)}
    if isinstance(target, OfKinds) and "kind" in data:
        target = target.of_kind(data["kind"])
    changes: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{prefix}{str(key)[:60]}"
        if key not in known:
            guess = nearest(str(key), known)
            raise InputError(
                f"unknown key {path}; did you mean {prefix}{guess}? Known here: {', '.join(sorted(known))}"
            )
        current = getattr(target, key)
        if isinstance(current, Mixture | Curriculum):
            changes[key] = _by_task(current, value, path)
        elif value is not None and (part := _group(current, hints[key])) is not None:
            if not isinstance(value, Mapping):
                raise InputError(
                    f"{path} is {repr(value)[:60]}: it is a group of keys, such as {path}.{fields(part)[0].name}"
                )
            changes[key] = _apply(part, value, f"{path}.")
        else:
            changes[key] = coerce(value, hints[key], path)
    return replace(target, **changes)


def _group(current: Any, hint: Any) -> Any:
    """The group of keys that stands in a field, its defaults where it may stand there; None for a plain value."""
    if is_dataclass(current):
        return current
    if current is None:
        found = [part for part in typing.get_args(hint) if isinstance(part, type) and is_dataclass(part)]
        return found[0]() if found else None
    return None


def _by_task(current: Mixture | Curriculum, value: Any, path: str) -> Mixture | Curriculum:
    """Numbers by task key; those not named stay. `{"only": {…}}` replaces them all."""
    what = "weights" if isinstance(current, Mixture) else "shares of the steps"
    if not isinstance(value, Mapping):
        raise InputError(
            f"{path} is {repr(value)[:60]}: give {what} by task, such as {path}.asr=1 "
            f"(tasks: {', '.join(TOKEN_VARIANTS)})"
        )
    tasks = dict(current.tasks)
    if set(value) == {"only"}:
        value, tasks = value["only"], {}
        if not isinstance(value, Mapping):
            raise InputError(f"{path}.only is {repr(value)[:60]}: give {what} by task, such as {{asr: 1}}")
    for key, number in value.items():
        asked = parse_key(str(key))
        same = next((one for one in tasks if parse_key(one) == asked), str(key))  # a task may have several names
        tasks[same] = coerce(number, float, f"{path}.{key}")
    return type(current)(tasks=tasks)


def coerce(value: Any, kind: Any, path: str) -> Any:
    """A value as the field's type, where that loses nothing. InputError otherwise."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (part for part in arguments if part is not type(None))
        return coerce(value, kind, path)
    if origin is tuple and arguments[1:] == (...,):  # as many as there are
        if isinstance(value, list | tuple):
            return tuple(coerce(part, arguments[0], path) for part in value)
        raise InputError(f"{path} is {repr(value)[:60]}: it takes a list, such as [a, b]")
    if origin is tuple:
        if isinstance(value, list | tuple) and len(value) == len(arguments):
            return tuple(coerce(part, inner, path) for part, inner in zip(value, arguments))
        example = ", ".join("0" for _ in arguments)
        raise InputError(f"{path} is {repr(value)[:60]}: it takes {len(arguments)} values, such as [{example}]")
    if kind in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-3 as a string
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isnan(number) and not 0 <= number <= LARGEST:
            raise InputError(f"{path} is {value!r}: it takes a number from 0 to {LARGEST}")
        if kind is float and not math.isnan(number):
            return number
        if kind is int and not isinstance(value, str) and number == int(number if number == number else -1):
            return int(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    raise InputError(f"{path} is {repr(value)[:60]}: it takes {KINDS.get(kind, kind)}")


def lasting(configuration: Any) -> dict[str, Any]:
    """`asdict` for keys on disk: without fields that came later (`LATER` of their class) and stand at their defaults,
    so that what an earlier version has finished stays finished."""
    found = {}
    for item in fields(configuration):
        value = getattr(configuration, item.name)
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if item.name in getattr(type(configuration), "LATER", ()) and value == default:
            continue
        found[item.name] = lasting(value) if is_dataclass(value) else asdict(_Held(value))["value"]
    return found


@dataclass(frozen=True)
class _Held:
    """A value that `asdict` copies as it copies any field."""

    value: Any


def defaults(kind: type) -> dict[str, Any]:
    """Field → default of a configuration class, for the documentation of a command."""
    found = {}
    for item in fields(kind):
        if item.default is not MISSING:
            found[item.name] = item.default
        elif item.default_factory is not MISSING:
            found[item.name] = item.default_factory()
    return found
