"""Recipes: one typed configuration for a model and its training, from a preset, a YAML file and overrides.

unitok train demo --set train.steps=500 --set mixture.mt=0

# recipe.yaml
preset: demo
decoder: {width: 384}
mixture: {asr: 2, mt: 0}
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.mixture import Curriculum, Mixture, parse_key
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.optimizer import OptimConfig

MOST_LAYERS = 1000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of the decoder; the vocabulary's size is known only when its shards are opened."""

    width: int = 256
    """Size of a position's vector."""
    layers: int = 6
    """Blocks."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 2
    """Key and value heads."""
    head_size: int | None = None
    """Size of a head; width ÷ heads where None."""
    ffn: int | None = None
    """Hidden size of the feed-forward; the decoder's default where None."""
    rope_theta: float = 10000.0
    """Base of the rotary positions."""
    norm_eps: float = 1e-6
    """ε of the norms."""
    qk_norm: bool = True
    """Normalize queries and keys."""
    attention_bias: bool = False
    """Biases on queries, keys and values."""
    tied: bool = True
    """One matrix for embedding and head."""
    max_positions: int = 4096
    """Longest document, in tokens."""
    prefix_lm: bool = False
    """Header and conditions see each other in both directions; answers stay causal."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "kv_heads", "max_positions", "head_size", "ffn"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"decoder.{name} is {value}: it must be 1 or more")
        if self.layers > MOST_LAYERS:
            raise InputError(f"decoder.layers is {self.layers}: at most {MOST_LAYERS} can be built")
        for name in ("rope_theta", "norm_eps"):
            if getattr(self, name) <= 0:
                raise InputError(f"decoder.{name} is {getattr(self, name)}: it must be above 0")
        self.config(1)  # what does not fit together is told before any data is opened

    def config(self, vocab_size: int) -> DecoderConfig:
        """The decoder's configuration for a vocabulary."""
        return DecoderConfig(vocab_size=vocab_size, **asdict(self))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run, besides the shards."""

    name: str
    """Preset it comes from."""
    decoder: Shape = field(default_factory=Shape)
    """Shape of the decoder."""
    mixture: Mixture = field(default_factory=Mixture)
    """Tasks and their weights."""
    curriculum: Curriculum = field(default_factory=Curriculum)
    """When tasks join in; a run that starts from trained weights has that behind it."""
    plans: ExampleOptions = field(default_factory=ExampleOptions)
    """What is drawn around a row."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Steps, packs, precision, optimizer."""

    def save(self, path: Path) -> None:
        """Write the resolved recipe as JSON."""
        mixture = {key: self.mixture.tasks[key] for key in self.mixture.keys}
        write_json(path, {**asdict(self), "mixture": mixture, "curriculum": dict(self.curriculum.tasks)})

    @staticmethod
    def load(path: Path) -> Recipe:
        """Read a resolved recipe."""
        data = read_json(path)
        if not isinstance(data, dict):
            raise InputError(
                f"recipe {path} holds a {type(data).__name__}, not an object; give the recipe.json of a run"
            )
        with in_file(path):
            name = coerce(data.pop("name", path.stem), str, "name")
            return apply(Recipe(name=name), data)


def demo() -> Recipe:
    """The demo: every task of the phrase corpus on two CPU cores within minutes."""
    weights = {  # of examples: one with codes is five times as long as one without
        "asr": 5.0,
        "asr.codes": 1.2,
        "tts.units": 8.0,
        "tts.codes": 5.5,
        "s2tt": 5.5,
        "s2st": 1.0,
        "s2st.chain": 2.5,
        "mt": 8.0,
        "lm": 1.5,
        "slm": 1.0,
        "ilm": 2.0,
    }
    late = {key: 0.34 for key in ("asr.codes", "tts.codes", "s2st", "slm", "ilm")}
    return Recipe(
        name="demo",
        decoder=Shape(width=256, layers=4, heads=4, kv_heads=2),
        mixture=Mixture(tasks=weights),
        # First how texts translate, then how units and texts belong together: in half of the steps this gives what all
        # tasks at once give.
        curriculum=Curriculum(tasks={key: late.get(key, 0.14) for key in weights if key != "mt"}),
        plans=ExampleOptions(voice_min_seconds=0.6, voice_max_seconds=1.0, text_weight=2.0),
        train=TrainConfig(
            steps=760,
            pack_size=4096,
            packs_per_step=1,
            window=8192,
            compile=True,
            optim=OptimConfig(name="muon", learning_rate=2e-3, warmup_steps=30, schedule="wsd", decay_share=0.4),
        ),
    )


def tiny() -> Recipe:
    """A model of a few ten thousand parameters, for tests and for trying out a corpus in seconds."""
    return Recipe(
        name="tiny",
        decoder=Shape(width=64, layers=2, heads=2, kv_heads=1),
        mixture=Mixture(tasks={"asr": 1.0, "tts.units": 1.0}),
        train=TrainConfig(
            steps=100,
            pack_size=1024,
            packs_per_step=1,
            window=256,
            precision="fp32",
            log_every=10,
            checkpoint_every=100,
            optim=OptimConfig(learning_rate=3e-3, warmup_steps=10),
        ),
    )


LARGEST = 2**31 - 1
"""No number of a recipe is negative or larger."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
PRESETS: Mapping[str, typing.Callable[[], Recipe]] = {"demo": demo, "tiny": tiny}


def preset(name: str) -> Recipe:
    """A preset by its name. InputError with the nearest known one."""
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; did you mean {nearest(name, PRESETS)!r}? Known: {', '.join(PRESETS)}")
    return PRESETS[name]()


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A preset's name, a YAML file that names one, or a resolved JSON; then `key=value` overrides in order."""
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml"):
        recipe = read_recipe(path)
    elif path.suffix == ".json":
        recipe = Recipe.load(path)
    else:
        recipe = preset(str(name_or_file))
    return overridden(recipe, overrides)


def read_recipe(path: Path) -> Recipe:
    """A YAML file: `preset: NAME` and, under decoder, mixture, plans and train, what differs from it."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"recipe {path} cannot be read: {error}; give a preset ({', '.join(PRESETS)}) or a file"
        ) from error
    except YAML_TROUBLE as error:
        raise InputError(f"recipe {path} is not YAML: {' '.join(str(error).split())}; correct the line") from error
    if not isinstance(data, dict) or not isinstance(data.get("preset"), str):
        raise InputError(f"recipe {path} names no preset: begin with `preset: demo` (known: {', '.join(PRESETS)})")
    base = preset(data.pop("preset"))
    with in_file(path):
        return apply(base, data)


@contextmanager
def in_file(path: Path) -> Iterator[None]:
    """Begin the message of what is refused with the recipe's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"recipe {path}: {error}") from error


YAML_TROUBLE = (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError)
"""What `yaml.safe_load` raises: impossible dates, unhashable keys and deep nesting are no `YAMLError`."""


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


def apply(recipe: Recipe, data: Mapping[str, Any]) -> Recipe:
    """The recipe with values replaced. InputError for an unknown key (with the nearest) or a value of another type."""
    result = _apply(recipe, data, "")
    assert isinstance(result, Recipe)
    return result


Configuration = typing.TypeVar("Configuration")


def replaced(target: Configuration, data: Mapping[str, Any]) -> Configuration:
    """`apply` for any nested configuration."""
    return typing.cast(Configuration, _apply(target, data, ""))


def overridden(target: Configuration, overrides: Sequence[str]) -> Configuration:
    """A nested configuration after `key=value` overrides, in order; InputError for one that is not of this form."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {override!r}: write key=value, such as train.steps=500")
        target = replaced(target, nest(key.strip(), parse_value(value)))
    return target


def _apply(target: Any, data: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(type(target))
    known = {item.name for item in fields(target)}
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
        elif is_dataclass(current):
            if not isinstance(value, Mapping):
                raise InputError(
                    f"{path} is {repr(value)[:60]}: it is a group of keys, such as {path}.{fields(current)[0].name}"
                )
            changes[key] = _apply(current, value, f"{path}.")
        else:
            changes[key] = coerce(value, hints[key], path)
    return replace(target, **changes)


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
        parse_key(str(key))
        tasks[str(key)] = coerce(number, float, f"{path}.{key}")
    return type(current)(tasks=tasks)


def coerce(value: Any, kind: Any, path: str) -> Any:
    """A value as the field's type, where that loses nothing. InputError otherwise."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (part for part in arguments if part is not type(None))
        return coerce(value, kind, path)
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


def defaults(kind: type) -> dict[str, Any]:
    """Field → default of a configuration class, for the documentation of a command."""
    found = {}
    for item in fields(kind):
        if item.default is not MISSING:
            found[item.name] = item.default
        elif item.default_factory is not MISSING:
            found[item.name] = item.default_factory()
    return found
