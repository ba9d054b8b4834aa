"""What a comparison says: means and intervals over seeds as JSON, as a table of text, and as one page with a plot."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, read_json, write_json
from unitok_training.experiments.compare.recipes import CODES_IN
from unitok_training.reports.demo import costs, lookup, write_number
from unitok_training.reports.html import page, whiskers
from unitok_training.runs.stage_graph import WALL, StageRecord
from unitok_training.systems.base.intervals import Counted, compared, interval
from unitok_training.trainer.metrics import flatten

ADDED = "added.json"
"""File of a run folder with figures of other commands."""
ROWS = "rows.json"
"""File of an approach's folder: errors and words of each sentence that it spoke, by who read them."""
FLAT = f"{CODES_IN}flat"
"""What other layouts are compared with, sentence by sentence."""
SEEDED = re.compile(r"(.+?)-\d+(?:-(.+))?")
"""Name of a training's stage: its approach, a seed, and what else it is told by."""
RESAMPLES = 1000
"""Draws of a paired bootstrap."""
TITLES = {
    "tokens": "Equal decoder tokens",
    "steps": "Equal optimizer steps",
    "parameters": "Equal trainable parameters, equal decoder tokens",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One row of a table."""

    title: str
    key: str
    """Dotted key below an approach."""
    unit: str = ""
    """Written behind the figure."""
    scale: float = 1.0
    """What a figure is multiplied by to be written."""


MEASURES: tuple[Measure, ...] = (
    Measure(title="Recognition: word errors (WER)", key="asr.wer", unit="%", scale=100),
    Measure(title="Text translation: BLEU", key="mt.bleu"),
    Measure(title="Speech to translated text: BLEU", key="s2tt.bleu"),
    Measure(title="Speech to translated speech: ASR-BLEU", key="s2st.asr_bleu"),
    Measure(title="… through both texts in one stream: ASR-BLEU", key="s2st_chained.asr_bleu"),
    Measure(title="… cascade, errors of recognition (WER)", key="s2st.stages.recognise.wer", unit="%", scale=100),
    Measure(title="… cascade, translation of reference texts: BLEU", key="s2st.stages.translate.bleu"),
    Measure(title="… cascade, errors of speaking, read by the judge", key="s2st.stages.speak.wer", unit="%", scale=100),
    Measure(title="Text to speech, read by the judge (WER)", key="tts.wer", unit="%", scale=100),
    Measure(title="… above that of `codes-flat`", key="tts.over_flat.wer", unit="%", scale=100),
    Measure(title="… at most (95 %, same sentences)", key="tts.over_flat.high", unit="%", scale=100),
    Measure(
        title="Text to speech, read by an ear that knows no recording (WER)", key="tts.ears.wer", unit="%", scale=100
    ),  # fmt: skip
    Measure(title="… above that of `codes-flat`, to the ear", key="tts.ears.over_flat.wer", unit="%", scale=100),
    Measure(title="… at most (95 %, same sentences), to the ear", key="tts.ears.over_flat.high", unit="%", scale=100),
    Measure(title="Text to speech, of the processor for a second", key="tts.ms_per_second", unit="ms"),
    Measure(title="Text perplexity before", key="text.ppl.before"),
    Measure(title="Text perplexity after", key="text.ppl.after"),
    Measure(title="Trainable parameters", key="trainable_parameters", unit="M", scale=1e-6),
    Measure(title="Decoder tokens per second of speech", key="decoder_tokens_per_second"),
    Measure(title="Decoder tokens trained on", key="train.decoder_tokens", unit="M", scale=1e-6),
    Measure(title="Optimizer steps", key="train.steps"),
    Measure(title="Training", key="train.seconds", unit="s"),
    Measure(title="Scoring", key="scoring.seconds", unit="s"),
    Measure(title="Peak memory", key="peak_bytes", unit="GB", scale=1e-9),
)


ADDED_TITLES = {
    "first_pass.wer": "First pass on noisy audio: WER",
    "rescoring.wer": "Rescored: WER",
    "rescoring.lambda": "Weight of the language model (λ)",
    "ger.wer": "Generative error correction: WER",
    "oracle.wer": "Best of the list: WER",
}
"""Titles of figures of other commands; the others are shown by their keys."""


def load_runs(out: Path, names: Sequence[str], records: Mapping[str, StageRecord]) -> list[dict[str, Any]]:
    """Results of one approach with every seed."""
    return [
        {**read_json(out / "arms" / name / "result.json"), "peak_bytes": records[name].peak_bytes} for name in names
    ]


def gather(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"mean", "interval", "seeds"} of figures that every seed has, nested as they are in one result."""
    flat = [flatten(run) for run in runs]
    found: dict[str, Any] = {"mean": {}, "interval": {}, "seeds": {}}
    for name in flat[0]:
        values = [one[name] for one in flat if name in one]
        if len(values) < len(flat):
            continue
        mean, half = interval(values)
        for kind, value in (("mean", mean), ("interval", half), ("seeds", values)):
            place = found[kind]
            *path, last = name.split("/")
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
    return found


def write_results(
    out: Path, tables: Mapping[str, Mapping[str, Sequence[str]]], records: Mapping[str, StageRecord]
) -> dict[str, Any]:
    """Write `results.json` and `report.html` into a run folder; returns the results.

    The first table's means stand at the top (`latent.asr.wer`), its intervals below `interval`, single figures below
    `seeds`; every table is also below `tables`. Figures of other commands (`add_figures`) come on top.
    """
    results: dict[str, Any] = {}
    results["tables"] = {
        budget: {approach: gather(load_runs(out, names, records)) for approach, names in arms.items()}
        for budget, arms in tables.items()
    }
    for budget, arms in tables.items():
        over_flat(out, results["tables"][budget], arms)
    first = results["tables"][next(iter(tables))]
    for approach in first:
        results[approach] = first[approach]["mean"]
    for kind in ("interval", "seeds"):
        results[kind] = {approach: first[approach][kind] for approach in first}
    results["seconds"] = seconds_of(out, records)
    added = added_figures(out)
    results = merged(results, added)
    write_json(out / "results.json", results)
    write_page(out, results, added)
    return results


def seconds_of(out: Path, records: Mapping[str, StageRecord]) -> dict[str, float]:
    """Seconds of what is shared, of a training of each kind on average, and of all."""
    found: dict[str, list[float]] = {}
    for name, record in records.items():
        training = SEEDED.fullmatch(name)
        kind = name if training is None else " ".join(filter(None, training.groups()))
        found.setdefault(kind, []).append(record.seconds)
    seconds = {name: round(fmean(values), 1) for name, values in found.items()}
    seconds["sum_of_stages"] = round(sum(record.seconds for record in records.values()), 1)
    if (out / WALL).exists():
        seconds["total"] = read_json(out / WALL)["seconds"]
    return seconds


def add_figures(out: Path, files: Sequence[Path]) -> None:
    """Keep figures of other commands, so that they stand in the results from now on. InputError for no such file."""
    found = added_figures(out)
    for path in files:
        value = read_json(path)
        if not isinstance(value, dict):
            raise InputError(f"{path} holds a {type(value).__name__}, not an object; give the results.json of a run")
        found = merged(found, value)
    if files:
        write_json(out / ADDED, found)


def added_figures(out: Path) -> dict[str, Any]:
    """What was added so far."""
    path = out / ADDED
    return dict(read_json(path)) if path.exists() else {}


def over_flat(out: Path, table: dict[str, Any], arms: Mapping[str, Sequence[str]]) -> None:
    """Put how many more words are read wrong in what a layout says than in what the flat one does, with the ends of the
    interval of a paired bootstrap over the same sentences of all seeds."""
    if FLAT not in arms:
        return
    coded = {name: runs for name, runs in arms.items() if name.startswith(CODES_IN)}
    spoken = {name: [read_json(out / "arms" / run / ROWS) for run in runs] for name, runs in coded.items()}
    for name, runs in spoken.items():
        if name == FLAT:
            continue
        for key in sorted(set.intersection(*(set(run) for run in (*runs, *spoken[FLAT])))):
            one, other = ([counted(run[key]) for run in some] for some in (runs, spoken[FLAT]))
            found = compared("wer", one, other, resamples=RESAMPLES, seed=0)
            put(table[name]["mean"], f"{key}.over_flat", {each.removeprefix("wer."): found[each] for each in found})


def counted(row: Mapping[str, Sequence[float]]) -> Counted:
    """Errors and words of sentences, as they lie in a file."""
    return Counted(counts=np.array(row["counts"]), sizes=np.array(row["sizes"]))


def put(place: dict[str, Any], key: str, value: Any) -> None:
    """Store under a dotted key."""
    *path, last = key.split(".")
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects as one; where both have a figure, the other's."""
    found = dict(one)
    for key, value in other.items():
        before = found.get(key)
        found[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return found


def written(measure: Measure, table: Mapping[str, Any], approach: str) -> str:
    """Mean and interval such as 3.1 ± 0.4 %, or a dash where an approach has no such figure."""
    mean = lookup(table[approach]["mean"], measure.key)
    if mean is None:
        return "–"
    half = lookup(table[approach]["interval"], measure.key)
    spread = f" ± {write_number(half * measure.scale)}" if half else ""
    return f"{write_number(mean * measure.scale)}{spread} {measure.unit}".rstrip()


def rows_of(table: Mapping[str, Any]) -> list[list[str]]:
    """The lines of a table: title, then one cell an approach; lines that no approach has are left out."""
    found = [[one.title, *(written(one, table, approach) for approach in table)] for one in MEASURES]
    return [row for row in found if any(cell != "–" for cell in row[1:])]


def as_text(results: Mapping[str, Any]) -> str:
    """All tables in Markdown, as the documentation shows them."""
    parts = []
    for budget, table in results["tables"].items():
        lines = [["", *table], ["---", *(["---:"] * len(table))], *rows_of(table)]
        parts.append(f"{TITLES[budget]}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


# -- the page -----------------------------------------------------------------------------------------------------


def table_html(table: Mapping[str, Any]) -> str:
    """A table of means and intervals."""
    heads = "".join(f'<th class="number">{name}</th>' for name in table)
    lines = [
        f"<tr><td>{html.escape(row[0])}</td>"
        + "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows_of(table)
    ]
    head = f"<thead><tr><th></th>{heads}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def seeds_of(approach: Mapping[str, Any], key: str) -> list[float]:
    """A figure of every seed; none where it is of all seeds together."""
    found: Any = approach["seeds"]
    for part in key.split("."):
        found = found.get(part, {})
    return list(found)


def plots(table: Mapping[str, Any]) -> str:
    """One small chart a measure: a bar an approach, its interval, and a point a seed."""
    charts = []
    for measure in MEASURES:
        bars = {}
        for approach in table:
            mean, values = lookup(table[approach]["mean"], measure.key), seeds_of(table[approach], measure.key)
            if mean is None or not values:
                continue
            half = lookup(table[approach]["interval"], measure.key) or 0.0
            scaled = [value * measure.scale for value in values]
            bars[approach] = (mean * measure.scale, half * measure.scale, scaled)
        if len(bars) > 1:
            charts.append(whiskers(f"{measure.title}, {measure.unit}".rstrip(", "), bars))
    return f'<h3>As bars, with intervals and single seeds</h3><div class="grid-of-curves">{"".join(charts)}</div>'


def added_html(added: Mapping[str, Any]) -> str:
    """Figures of other commands: of n-best lists, of what a cascade loses."""
    flat = {name.replace("/", "."): value for name, value in flatten(added).items()}
    known = [name for name in ADDED_TITLES if name in flat]
    cells = [
        f'<tr><td>{html.escape(ADDED_TITLES.get(name, name))}</td><td class="number">{flat[name]:.4g}</td></tr>'
        for name in [*known, *(name for name in flat if name not in ADDED_TITLES)]
    ]
    return f"<h2>Text between the parts, and what a cascade loses</h2><table>{''.join(cells)}</table>" if cells else ""


def write_page(out: Path, results: Mapping[str, Any], added: Mapping[str, Any]) -> Path:
    """Write `report.html`, which refers to nothing outside itself."""
    parts = [
        "<h1>Three ways in, one core</h1><p>Discrete tokens, latent vectors and a cascade of texts, trained from the "
        "same text-only decoder on the same corpus, scored on held-out sentences by held-out voices. Figures are means "
        "over seeds with the half-width of the 95 % interval (Student's t).</p>"
    ]
    for budget, table in results["tables"].items():
        parts.append(f"<h2>{TITLES[budget]}</h2>{table_html(table)}{plots(table)}")
    parts += [added_html(added), costs({"seconds": results["seconds"]})]
    atomic_write_bytes(out / "report.html", page("unitok compare", parts))
    return out / "report.html"
