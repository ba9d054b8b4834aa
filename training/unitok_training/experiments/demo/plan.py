"""What a run of the demo will do, decided once: `RUN/plan.json`, which a repeat continues and `--plan` replays.

Without a size asked for, ten seconds of measurement choose: M where it ends within `PATIENCE`, S elsewhere. L is for
those who ask for it. A plan holds every setting, so that it says the same on another day and on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from unitok_tokenizers.compute import AUTO, Compute, available_threads, native_bfloat16, resolve, resolve_device
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json
from unitok_tokenizers.progress import duration
from unitok_tokenizers.seeds import check_seed
from unitok_training.experiments.demo.costs import run_seconds, stage_seconds
from unitok_training.experiments.demo.measure import measure
from unitok_training.experiments.demo.run import DemoConfig, quicker
from unitok_training.experiments.demo.sizes import SIZES, described
from unitok_training.recipes.config import coerce
from unitok_training.recipes.decoder import load_recipe

PLAN = "plan.json"
FORMAT = 1
PATIENCE = 900.0
"""Seconds that M may take where nobody has asked for a size."""
USUAL = "M"
"""Size that `--quick` takes a quarter of, where none is asked for."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What somebody asks of a run; None where it is left open."""

    size: str | None = None
    """S, M or L."""
    quick: bool = False
    """A quarter of the sentences and steps."""
    seed: int | None = None
    """Of everything random."""
    threads: int | None = None
    """CPU threads in all."""
    precision: str | None = None
    """One of `unitok_tokenizers.compute.PRECISIONS`."""
    manifest: str | None = None
    """Somebody's recordings."""
    languages: tuple[str, ...] | None = None
    """Of the phrase corpus."""
    preset: str | None = None
    """Of the decoder's recipe."""
    overrides: tuple[str, ...] = ()
    """Of the decoder's recipe."""

    def __post_init__(self) -> None:
        if self.size is not None and self.size not in SIZES:
            raise InputError(f"size is {self.size!r}: choose from {', '.join(SIZES)}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}: give 1 or more")
        if self.precision == "bf16-pure":
            raise InputError("precision is 'bf16-pure': the demo takes auto, fp32 or bf16")
        if self.seed is not None:
            check_seed(self.seed)

    def config(self, size: str) -> DemoConfig:
        """The configuration of a size on this machine."""
        given = {name: value for name in ("seed", "manifest", "languages", "preset")
                 if (value := getattr(self, name)) is not None}  # fmt: skip
        compute = self.compute()
        plain = DemoConfig(threads=compute.threads, precision=compute.precision, overrides=self.overrides, **given)
        config = SIZES[size](plain)
        return quicker(config) if self.quick else config

    def compute(self) -> Compute:
        """What a new run computes on."""
        return resolve("cpu", self.precision or AUTO, threads=self.threads or available_threads())


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """A run, decided."""

    size: str
    """S, M or L."""
    quick: bool
    """Whether it is a quarter of that."""
    config: DemoConfig
    """Every setting."""
    compute: Mapping[str, Any]
    """What it was planned on, as `Compute.to_json` says it."""
    measurement: Mapping[str, float] = field(default_factory=dict)
    """What was measured; empty where the size was asked for."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Expected seconds of each stage, and `total`; empty where nothing was measured."""

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        settings = asdict(self.config) | {
            "languages": list(self.config.languages), "overrides": list(self.config.overrides)
        }  # fmt: skip
        first = {name: settings.pop(name) for name in FIRST}
        write_json(path, {
            "format": FORMAT, "size": self.size, "quick": self.quick, **first, "settings": settings,
            "compute": dict(self.compute), "measurement": dict(self.measurement), "seconds": dict(self.seconds),
        })  # fmt: skip

    @staticmethod
    def load(path: Path) -> DemoPlan:
        """Read a plan. InputError for a file that is none."""
        data = read_json(path)
        try:
            if data["format"] != FORMAT or data["size"] not in SIZES:
                raise KeyError
            settings = {**data["settings"], **{name: data[name] for name in FIRST}}
            return DemoPlan(
                size=data["size"], quick=coerce(data["quick"], bool, "quick"), config=_config(settings),
                compute=data["compute"], measurement=data["measurement"], seconds=data["seconds"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is no plan of the demo: give the {PLAN} of a run, or remove it to plan anew"
            ) from error


FIRST = ("seed", "precision", "threads")
"""Settings that stand at the top of a plan, beside its size: with it they decide the numbers."""


def _config(settings: Mapping[str, Any]) -> DemoConfig:
    """The settings of a plan; none may be missing, unknown or of another kind."""
    names = {item.name for item in fields(DemoConfig)}
    if settings.keys() != names:
        odd = sorted(settings.keys() ^ names)
        raise InputError(f"settings are not those of this version: {', '.join(odd)}")
    kinds = {bool: bool, int: int, str: str}
    plain = DemoConfig()
    found: dict[str, Any] = {}
    for name, value in settings.items():
        default = getattr(plain, name)
        if isinstance(default, tuple):
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise InputError(f"{name} is {value!r}: it is a list of texts")
            found[name] = tuple(value)
        elif default is None:
            found[name] = None if value is None else coerce(value, str, name)
        else:
            found[name] = coerce(value, kinds[type(default)], name)
    return DemoConfig(**found)


def plan_demo(
    out: Path,
    asked: DemoOptions,
    *,
    file: Path | None = None,
    rows: int | None = None,
    report: Callable[[str], None] = print,
) -> DemoPlan:
    """The plan of a run folder: the one it has, a given one, or a new one; it is written there, and said.

    Args:
        out: the run folder, which exists.
        asked: what is asked for; with a plan at hand it may repeat it and not contradict it.
        file: a plan to replay.
        rows: recordings of the manifest, where it is not the phrase corpus.
        report: takes lines.

    Raises:
        InputError: a contradiction, with the remedy; a file that is no plan.
    """
    path = out / PLAN
    if path.exists():
        plan = DemoPlan.load(path)
        if file is not None and (given := DemoPlan.load(file)).config != plan.config:
            raise InputError(
                f"{path} is another plan than {file} ({_difference(plan, given)}): choose another folder with -o"
            )
        check_agrees(plan, asked, path, free=FREE, remedy=f"choose another folder with -o, or remove {path}")
        plan = continued(plan, asked, report)
        report(f"continues the plan of {path}: {described(plan.size, plan.config)}")
    elif file is not None:
        plan = DemoPlan.load(file)
        check_agrees(plan, asked, file, free=(), remedy="leave that out, or leave out --plan and give the size")
        report(f"replays {file}: {described(plan.size, plan.config)}")
        _warn_of_slow_products(plan.config, report)
    else:
        plan = new_plan(asked, rows, report)
    plan.save(path)
    return plan


FREE = ("precision", "threads")
"""What a run may continue with another one of."""


def new_plan(asked: DemoOptions, rows: int | None, report: Callable[[str], None]) -> DemoPlan:
    """Choose the size that was asked for, or that fits this machine."""
    compute = asked.compute()
    if asked.size is not None or asked.quick:
        size = asked.size or USUAL
        config = asked.config(size)
        report(described(size, config))
        return DemoPlan(size=size, quick=asked.quick, config=config, compute=compute.to_json())
    report(f"measures this machine for ten seconds ({compute})")
    usual = asked.config(USUAL)
    measured = measure(load_recipe(usual.preset, usual.overrides), compute, clusters=usual.clusters)
    stages = {name: stage_seconds(asked.config(name), measured, rows) for name in SIZES}
    totals = {name: run_seconds(asked.config(name), seconds) for name, seconds in stages.items()}
    size = "M" if totals["M"] <= PATIENCE else "S"
    config = asked.config(size)
    others = " and ".join(f"{name} about {duration(total)}" for name, total in totals.items() if name != size)
    report(described(size, config))
    report(f"takes about {duration(totals[size])} here; {others} (--size)")
    return DemoPlan(
        size=size, quick=False, config=config, compute=compute.to_json(), measurement=measured.to_json(),
        seconds={name: round(value, 1) for name, value in {**stages[size], "total": totals[size]}.items()},
    )  # fmt: skip


def check_agrees(plan: DemoPlan, asked: DemoOptions, path: Path, *, free: tuple[str, ...], remedy: str) -> None:
    """InputError where what is asked for is not what a plan says."""
    config = plan.config
    wanted: dict[str, tuple[Any, Any]] = {"size": (asked.size, plan.size), "quick": (asked.quick or None, plan.quick)}
    for name in ("seed", "threads", "precision", "manifest", "languages", "preset"):
        wanted[name] = (getattr(asked, name), getattr(config, name))
    if asked.precision == AUTO:
        wanted.pop("precision")
    for name, (given, planned) in wanted.items():
        if given is not None and given != planned and name not in free:
            raise InputError(f"{path} plans {name} {_shown(planned)} and {_shown(given)} is asked for: {remedy}")
    own = asked.config(plan.size).overrides
    if asked.overrides and own != config.overrides:
        raise InputError(
            f"{path} plans the overrides {_shown(config.overrides)} and {_shown(own)} are asked for: {remedy}"
        )


def _shown(value: Any) -> str:
    return (" ".join(value) or "none") if isinstance(value, tuple) else str(value)


def _difference(one: DemoPlan, other: DemoPlan) -> str:
    """The first setting in which two plans differ."""
    a, b = asdict(one.config), asdict(other.config)
    name = next(key for key in a if a[key] != b[key])
    return f"{name} {_shown(a[name])} and {_shown(b[name])}"


def continued(plan: DemoPlan, asked: DemoOptions, report: Callable[[str], None]) -> DemoPlan:
    """The plan with the threads and the precision that are asked for, or float32 where bfloat16 is too slow here."""
    config = plan.config
    threads, precision = asked.threads or config.threads, config.precision
    if asked.precision is not None:
        precision = resolve("cpu", asked.precision).precision
    elif _slow_here(precision):
        precision = "fp32"
    for name, before, after in (("threads", config.threads, threads), ("precision", config.precision, precision)):
        if before != after:
            report(
                f"{name} was {before} and is {after}: finished stages are kept; the rest is not the same bit for bit"
            )
    return replace(plan, config=replace(config, threads=threads, precision=precision))


def _slow_here(precision: str) -> bool:
    """Whether this processor multiplies in this precision without units for it."""
    return precision != "fp32" and not native_bfloat16(resolve_device("cpu"))


def _warn_of_slow_products(config: DemoConfig, report: Callable[[str], None]) -> None:
    if _slow_here(config.precision):
        report(
            f"the plan's precision is {config.precision}, which this processor has no units for: it takes many times "
            "as long; plan anew for float32 (--size without --plan)"
        )
