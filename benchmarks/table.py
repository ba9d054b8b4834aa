"""`RESULTS.md`: the results for people, a row for each kind of processor, made of `results.json` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.results import GOALS


def number(value: float) -> str:
    """Three significant digits, large figures with a unit prefix."""
    for scale, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= scale:
            return f"{value / (scale if scale != 1e4 else 1e3):.3g}{suffix}"
    return f"{value:.3g}"


def markdown(results: Mapping[str, Any]) -> str:
    """The tables: goals, every arm, what must be known of them, and the processors."""
    kinds = results["processors"]
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks` from `benchmarks/results.json`; do not edit by hand. A ratio is one of",
        "rounds in turn in one process at equal precision, the lower where there are several, whose rows follow it.",
        "Other work is the largest share of all cores that other processes took before or meanwhile: above 15 % a",
        "figure is refused, or its row says that it was forced.",
        "",
        "| key | what | goal | processor | reached | | commit | threads | seed | other work |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += _goal_rows(kinds)
    lines += ["", "## Arms", "", "| arm | processor | median | least … greatest | rounds | unit | settings | commit |"]
    lines += ["|---|---|---|---|---|---|---|---|", *_arm_rows(kinds)]
    lines += ["", "## Notes", ""]
    for kind, part in kinds.items():
        lines += [f"### {kind}", ""]
        notes = {key: note for subject in part["subjects"].values() for key, note in subject["notes"].items()}
        lines += [*(f"- `{key}`: {note}" for key, note in sorted(notes.items())), ""]
    lines += ["## Processors", ""]
    lines += [f"- {kind}: {machine_line(part['machine'])}" for kind, part in kinds.items()]
    return "\n".join(lines) + "\n"


def machine_line(machine: Mapping[str, Any]) -> str:
    """What else there is to know of a machine."""
    parts = [f"{machine.get('cores', '?')} cores", f"{machine.get('cpu_capability', '?')} in torch's own kernels"]
    parts += [f"torch {machine.get('torch', '?')}", f"{machine.get('memory_bytes', 0) / 1e9:.0f} GB of memory"]
    parts += [machine["gpu"]["name"] if "gpu" in machine else "no GPU"]
    parts += [f"`{name}={value}`" for name, value in machine.get("held_to", {}).items()]
    return ", ".join(parts)


def _goal_rows(kinds: Mapping[str, Any]) -> Iterator[str]:
    for key, goal in GOALS.items():
        measured = [
            (kind, subject)
            for kind, part in kinds.items()
            for subject in part["subjects"].values()
            if key in subject["ratios"]
        ]
        if not measured:
            yield f"| `{key}` | {goal.text} | {goal.sign} | — | — | not measured | | | | |"
        for kind, subject in measured:
            value = subject["ratios"][key]
            reached = "—" if value is None else number(value)
            verdict = "not measured" if value is None else "met" if goal.met(value) else "**missed**"
            yield f"| `{key}` | {goal.text} | {goal.sign} | {kind} | {reached} | {verdict} | {_run(subject['run'])} |"


def _run(run: Mapping[str, Any]) -> str:
    forced = f" (forced: {', '.join(run['forced'])})" if run["forced"] else ""
    return f"{run['commit'] or '?'} | {run['threads']} | {run['seed']} | {run['busy_share']:.0%}{forced}"


def _arm_rows(kinds: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (f"{name}.{arm}", kind, figure, subject["run"]["commit"])
        for kind, part in kinds.items()
        for name, subject in part["subjects"].items()
        for arm, figure in subject["arms"].items()
    ]
    for name, kind, arm, commit in sorted(rows, key=lambda row: row[:2]):
        settings = ", ".join(f"{key} {value}" for key, value in arm["settings"].items())
        spread = f"{number(arm['low'])} … {number(arm['high'])}"
        figures = f"{number(arm['median'])} | {spread} | {len(arm['rounds'])} | {arm['unit']}"
        yield f"| `{name}` | {kind} | {figures} | {settings} | {commit} |"
