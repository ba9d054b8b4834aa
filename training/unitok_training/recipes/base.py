"""What every recipe has: one typed configuration for a model and its training, from a preset, a file and overrides.

# recipe.yaml
preset: demo
decoder: {width: 384}
mixture: {asr: 2, mt: 0}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import yaml

from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json
from unitok_training.data.mixture import Curriculum, Mixture
from unitok_training.recipes.config import YAML_TROUBLE, coerce, in_file, nearest, overridden, replaced

MOST_LAYERS = 1000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of the decoder; the vocabulary's size is known only when its shards are opened."""

    LATER: ClassVar[tuple[str, ...]] = ("window",)

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
    window: int | None = None
    """Positions that one sees, itself the last of them; all before it where None."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "kv_heads", "max_positions", "head_size", "ffn", "window"):
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
    """What decides a training run besides its data, whatever is trained."""

    name: str
    """Preset it comes from."""
    decoder: Shape = field(default_factory=Shape)
    """Shape of the decoder, where no model is started from."""
    mixture: Mixture = field(default_factory=Mixture)
    """Task variants and their weights."""
    curriculum: Curriculum = field(default_factory=Curriculum)
    """When tasks join in; a run that starts from trained weights has that behind it."""

    def to_json(self) -> dict[str, Any]:
        """Every value, as `Presets.load` reads it."""
        by_task = {
            "mixture": {key: self.mixture.tasks[key] for key in self.mixture.keys},
            "curriculum": dict(self.curriculum.tasks),
        }
        return {**asdict(self), **by_task}

    def save(self, path: Path) -> None:
        """Write the resolved recipe as JSON."""
        write_json(path, self.to_json())


R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True, kw_only=True)
class Presets(Generic[R]):
    """Recipes of one kind by name, and from files."""

    what: str
    """What they are called in messages."""
    kind: type[R]
    """Their class."""
    table: Mapping[str, Callable[[], R]]
    """Name → function."""

    def __getitem__(self, name: str) -> R:
        """A preset by its name. InputError with the nearest known one."""
        if name not in self.table:
            known = ", ".join(self.table)
            raise InputError(f"no {self.what} {name!r}; did you mean {nearest(name, self.table)!r}? Known: {known}")
        return self.table[name]()

    def load(self, name_or_file: str | Path, overrides: Sequence[str] = ()) -> R:
        """A preset's name, a YAML file that names one, or a resolved JSON; then `key=value` overrides in order."""
        path = Path(name_or_file)
        if path.suffix in (".yaml", ".yml"):
            recipe = self.read_yaml(path)
        elif path.suffix == ".json":
            recipe = self.read_json(path)
        else:
            recipe = self[str(name_or_file)]
        return overridden(recipe, overrides)

    def read_json(self, path: Path) -> R:
        """A resolved recipe, as a run keeps it."""
        data = read_json(path)
        if not isinstance(data, dict):
            raise InputError(
                f"recipe {path} holds a {type(data).__name__}, not an object; give the recipe.json of a run"
            )
        with in_file(path):
            name = coerce(data.pop("name", path.stem), str, "name")
            given = data.get("mixture")
            if isinstance(given, Mapping) and set(given) != {"only"}:
                data["mixture"] = {"only": given}  # a resolved mixture has nothing beside what it names
            return replaced(self.kind(name=name), data)

    def read_yaml(self, path: Path) -> R:
        """A file with `preset: NAME` and, under the recipe's groups, what differs from it."""
        example, known = next(iter(self.table)), ", ".join(self.table)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"recipe {path} cannot be read: {error}; give a preset ({known}) or a file") from error
        except YAML_TROUBLE as error:
            raise InputError(f"recipe {path} is not YAML: {' '.join(str(error).split())}; correct the line") from error
        if not isinstance(data, dict) or not isinstance(data.get("preset"), str):
            raise InputError(f"recipe {path} names no preset: begin with `preset: {example}` (known: {known})")
        base = self[data.pop("preset")]
        with in_file(path):
            return replaced(base, data)
