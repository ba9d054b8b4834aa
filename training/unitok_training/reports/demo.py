"""The report of a run: one self-contained HTML page that a browser opens from anywhere.

It reads what the stages left in the run folder: `metrics.json`, `train/metrics.jsonl`, `examples/`, `pipeline.json`.
A part whose file is missing is left out.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.files import atomic_write_bytes, read_json
from unitok_tokenizers.grammar.tasks.registry import VARIANTS
from unitok_tokenizers.text.score_normalizer import STATED
from unitok_training.reports.html import bars, curve, page, player
from unitok_training.trainer.metrics import flatten, read_metrics

EXAMPLES_PER_TASK = 5
WITHOUT_EARS = (
    "The judge learned from the corpus that it scores and forgives what a stranger would not understand. For scores by "
    "ears that never saw it (Whisper, a speaker encoder, DNSMOS): make install-real, then unitok evaluate --ears auto, "
    "or the demo again."
)
SHOWN_AT_ONCE = 2
"""Examples of a task in plain view; the others unfold."""
TASK_TITLES = {
    **{one.metric: one.variant.title for one in VARIANTS.values() if one.variant.title},
    "resynthesis.codes": "Reference speech through the codec and back",
    "resynthesis.units": "Reference speech through units and back",
}


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One row of the table of results."""

    title: str
    key: str
    """Dotted key of the figure."""
    at_most: float | None = None
    """Target from above, for the figure less `minus`."""
    at_least: float | None = None
    """Target from below."""
    minus: str | None = None
    """Key of the control that is subtracted before comparing."""
    below: str | None = None
    """Key of the control that the figure must stay under."""
    above: str | None = None
    """Key of the control that the figure must exceed."""
    percent: bool = False
    """Write as a percentage."""


LINES: tuple[ResultRow, ...] = (
    ResultRow(title="Judge: word errors on reference audio", key="judge.wer", at_most=0.12, percent=True),
    ResultRow(title="Control: the judge on noise", key="judge.control_noise_wer", at_least=0.8, percent=True),
    ResultRow(
        title="Control: the judge against shuffled texts", key="judge.control_shuffled_wer", at_least=0.8, percent=True
    ),
    ResultRow(title="Recognition: word errors", key="asr.wer", at_most=0.15, percent=True),
    ResultRow(title="Recognition, known voices", key="asr.seen_voices.wer", at_most=0.08, percent=True),
    ResultRow(title="Recognition from acoustic codes", key="asr.codes.wer", at_most=0.25, percent=True),
    ResultRow(title="Text translation: BLEU", key="mt.bleu", at_least=85),
    ResultRow(title="Speech translation to text: BLEU", key="s2tt.bleu", at_least=60),
    ResultRow(title="Speech translation to text, known voices: BLEU", key="s2tt.seen_voices.bleu", at_least=70),
    ResultRow(
        title="Synthesis through units, read by the judge",
        key="tts.units.judge_wer",
        minus="judge.wer",
        at_most=0.20,
        percent=True,
    ),
    ResultRow(
        title="Synthesis through codes, read by the judge",
        key="tts.codes.judge_wer",
        minus="judge.wer",
        at_most=0.30,
        percent=True,
    ),
    ResultRow(title="Ears (Whisper, English): word errors on recordings", key="ears.recordings.wer", percent=True),
    ResultRow(
        title="Synthesis through units, read by ears",
        key="tts.units.ears.wer",
        minus="ears.recordings.wer",
        at_most=0.15,
        percent=True,
    ),
    ResultRow(
        title="Synthesis through codes, read by ears",
        key="tts.codes.ears.wer",
        minus="ears.recordings.wer",
        at_most=0.25,
        percent=True,
    ),
    ResultRow(title="Units alone, read by ears", key="resynthesis.units.ears.wer", percent=True),
    ResultRow(title="Codec alone, read by ears", key="resynthesis.codes.ears.wer", percent=True),
    ResultRow(
        title="Recordings: cosine of two of one speaker",
        key="ears.recordings.similarity",
        above="ears.recordings.similarity_impostor",
    ),
    ResultRow(
        title="Synthesis through units: cosine with the speaker",
        key="tts.units.ears.similarity",
        above="tts.units.ears.similarity_impostor",
    ),
    ResultRow(
        title="Synthesis through codes: cosine with the speaker",
        key="tts.codes.ears.similarity",
        above="tts.codes.ears.similarity_impostor",
    ),
    ResultRow(title="Recordings: DNSMOS, 1 to 5", key="ears.recordings.dnsmos"),
    ResultRow(title="Synthesis through units: DNSMOS", key="tts.units.ears.dnsmos"),
    ResultRow(title="Synthesis through codes: DNSMOS", key="tts.codes.ears.dnsmos"),
    ResultRow(
        title="Synthesis through codes: the voice that was asked for",
        key="tts.codes.voice_match",
        at_least=0.80,
        percent=True,
    ),
    ResultRow(title="Speech to speech through texts: ASR-BLEU", key="s2st_chained.asr_bleu", at_least=45),
    ResultRow(title="Speech to speech, direct: ASR-BLEU", key="s2st.asr_bleu"),
    ResultRow(
        title="Codec alone, read by the judge",
        key="resynthesis.codes.judge_wer",
        minus="judge.wer",
        at_most=0.05,
        percent=True,
    ),
    ResultRow(
        title="Units alone, read by the judge",
        key="resynthesis.units.judge_wer",
        minus="judge.wer",
        at_most=0.10,
        percent=True,
    ),
    ResultRow(title="Text: perplexity per piece", key="lm.ppl", below="lm.five_gram_ppl"),
    ResultRow(title="Speech: real before scrambled order", key="slm.order_accuracy", at_least=0.8, percent=True),
    ResultRow(
        title="Interleaved: the right half chosen", key="ilm.cloze_accuracy", above="ilm.cloze_chance", percent=True
    ),
    ResultRow(title="Seconds in all", key="seconds.total", at_most=900),
    ResultRow(title="Peak memory, bytes", key="memory.peak_bytes", at_most=6e9),
    ResultRow(title="Padding in training packs", key="train.padding_share", at_most=0.005, percent=True),
    ResultRow(title="Training examples dropped", key="train.dropped_share", at_most=0.0, percent=True),
)


def lookup(metrics: Mapping[str, Any], key: str) -> float | None:
    """Figure under a dotted key, or None."""
    value: Any = metrics
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return float(value) if isinstance(value, int | float) else None


def write_number(value: float, percent: bool = False) -> str:
    """A figure as people read it."""
    if percent:
        return f"{100 * value:.1f} %"
    if abs(value) >= 1e6:
        return f"{value / 1e9:.2f} × 10⁹"
    return f"{value:,.0f}" if abs(value) >= 1000 or (value == int(value) and abs(value) >= 10) else f"{value:.2f}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A line with its figure."""

    figure: float
    control: str
    """Written control, empty without one."""
    target: str
    """Written target, empty without one."""
    met: bool | None
    """Whether the target is met; None without one."""


def judge_line(line: ResultRow, metrics: Mapping[str, Any]) -> Verdict | None:
    """Compare a line's figure with its target and control; None where it was not measured."""
    figure = lookup(metrics, line.key)
    if figure is None:
        return None
    control_key = line.minus or line.below or line.above
    control = lookup(metrics, control_key) if control_key else None
    written = f"{control_key} {write_number(control, line.percent)}" if control is not None else ""
    compared = figure - control if line.minus and control is not None else figure
    prefix = f"{line.minus} + " if line.minus else ""
    if line.at_most is not None:
        return Verdict(
            figure=figure, control=written, met=compared <= line.at_most,
            target=f"≤ {prefix}{write_number(line.at_most, line.percent)}",
        )  # fmt: skip
    if line.at_least is not None:
        target = f"≥ {write_number(line.at_least, line.percent)}"
        return Verdict(figure=figure, control=written, met=compared >= line.at_least, target=target)
    if control is None:
        return Verdict(figure=figure, control=written, met=None, target="reported")
    if line.below:
        return Verdict(figure=figure, control=written, met=figure < control, target="below the control")
    return Verdict(figure=figure, control=written, met=figure > control, target="above the control")


def results_table(metrics: Mapping[str, Any], *, targets: bool) -> str:
    """The lines that were measured; with targets where they were set for this corpus."""
    rows, missing = [], []
    for line in LINES:
        verdict = judge_line(line, metrics)
        if verdict is None:
            missing.append(line.key)
            continue
        mark = ""
        if verdict.met is not None and targets:
            mark = '<span class="good">met</span>' if verdict.met else '<span class="bad">missed</span>'
        cells = f'<td class="number"><strong>{write_number(verdict.figure, line.percent)}</strong></td>'
        if targets:
            cells += f'<td class="number">{html.escape(verdict.target)}</td><td>{mark}</td>'
        rows.append(
            f"<tr><td>{html.escape(line.title)}<small><code>{line.key}</code>{counted(line.key, metrics)}</small></td>"
            f"{cells}"
            f"<td>{html.escape(verdict.control)}</td></tr>"
        )
    extra = '<th class="number">target</th><th></th>' if targets else ""
    heads = f'<th>what</th><th class="number">figure</th>{extra}<th>control</th>'
    left_out = f'<p class="dim">Not measured here: <code>{", ".join(missing)}</code></p>' if missing else ""
    if "ears" not in metrics:
        left_out += f'<p class="dim">{html.escape(WITHOUT_EARS)}</p>'
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{left_out}"
    )


UNITS = {"wer": "words", "cer": "characters", "mer": "words, and characters of scripts without spaces"}


def counted(key: str, metrics: Mapping[str, Any]) -> str:
    """What a score counts, as its evaluation says beside it: words or characters, or BLEU's tokens."""
    place: Any = metrics
    *path, last = key.split(".")
    for part in path:
        place = place.get(part, {}) if isinstance(place, Mapping) else {}
    if last.endswith("wer") and place.get("unit") in UNITS:
        return f" counts {UNITS[place['unit']]}"
    if isinstance(name := place.get(f"{last}_tokenizer"), str):
        return f" tokens: {html.escape(name)}"
    return ""


def loss_curves(run: Path) -> str:
    """A small chart per task, from the training's log."""
    rows = read_metrics(run / "train" / "metrics.jsonl")
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for task, value in row.get("loss_by_task", {}).items():
            series.setdefault(task, []).append((float(row["step"]), float(value)))
    charts = [curve(task, points) for task, points in sorted(series.items()) if len(points) > 1]
    if not charts:
        return ""
    return (
        "<h2>Loss per task</h2><p>Mean negative log-likelihood of a supervised token, in nats, on what was trained on "
        f'between two log lines.</p><div class="grid-of-curves">{"".join(charts)}</div>'
    )


def example_card(example: Mapping[str, Any], folder: Path) -> str:
    """One example: its texts, and players with spectrograms."""
    parts = [("source", example.get("source")), ("reference", example.get("reference"))]
    parts += [("output", example.get("output")), ("", example.get("note"))]
    texts = "".join(f"<dt>{name}</dt><dd>{html.escape(str(text))}</dd>" for name, text in parts if text)
    heard = "given" if str(example["task"]).startswith(("asr", "s2")) else "reference"
    sounds = [
        player(folder / str(example[name]), caption)
        for name, caption in (("reference_audio", heard), ("audio", "generated"))
        if example.get(name) and (folder / str(example[name])).exists()
    ]
    row = f'<div class="sounds">{"".join(sounds)}</div>' if sounds else ""
    return f'<div class="example"><dl>{texts}</dl>{row}</div>'


def example_sections(run: Path) -> str:
    """Five examples per task, of held-out sentences."""
    if not (run / "examples" / "examples.json").exists():
        return ""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for example in read_json(run / "examples" / "examples.json"):
        by_task.setdefault(example["task"], []).append(example)
    order = [*TASK_TITLES, *(task for task in by_task if task not in TASK_TITLES)]
    sections = []
    for task in order:
        chosen = by_task.get(task, [])[:EXAMPLES_PER_TASK]
        if not chosen:
            continue
        cards = [example_card(example, run / "examples") for example in chosen]
        shown, folded = "".join(cards[:SHOWN_AT_ONCE]), "".join(cards[SHOWN_AT_ONCE:])
        if folded:
            shown += f"<details><summary>{len(cards) - SHOWN_AT_ONCE} more</summary>{folded}</details>"
        sections.append(f"<h3>{html.escape(TASK_TITLES.get(task, task))}</h3>{shown}")
    if not sections:
        return ""
    return (
        "<h2>Look and listen</h2><p>The first test sentences of each task, not chosen. Spectrograms run from left to "
        f"right, low frequencies below.</p>{''.join(sections)}"
    )


def costs(metrics: Mapping[str, Any]) -> str:
    """Seconds and memory per stage."""
    seconds = {
        name: float(value) for name, value in metrics.get("seconds", {}).items() if isinstance(value, int | float)
    }
    memory = metrics.get("memory", {}).get("by_stage", {})
    if not seconds:
        return ""
    totals = ("total", "sum_of_stages")
    times = {name: (value, f"{value:,.0f} s") for name, value in seconds.items() if name not in totals}
    total = ""
    if "total" in seconds:
        total = f"<p>{seconds['total']:,.0f} seconds in all; stages that run side by side overlap.</p>"
    spent = f"<h3>Seconds</h3>{bars(times)}"
    held = {name: (float(value), f"{value / 1e9:.2f} GB") for name, value in memory.items()}
    return f"<h2>Time and memory</h2>{total}{spent}" + (f"<h3>Peak memory</h3>{bars(held)}" if held else "")


def introduction(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What was run on what."""
    corpus = metrics.get("corpus", {})
    source = settings.get("manifest") or f"phrase corpus, {', '.join(settings.get('languages', []))}"
    facts = [f"Corpus: {source}."]
    if "train_rows" in corpus:
        facts.append(f"{corpus['train_rows']:,} utterances for training, {corpus.get('test_rows', 0):,} for the test.")
    if "seen_4gram_share" in corpus:
        share = write_number(float(corpus["seen_4gram_share"]), percent=True)
        facts.append(f"Training contains {share} of the test's 4-word sequences.")
    if settings.get("manifest") is None:
        facts.append("Test sentences and test voices are held out unless a line says otherwise.")
    else:
        for key, what in (("seen_text_share", "whose words"), ("seen_voice_share", "by a speaker who")):
            if key in corpus:
                share = write_number(float(corpus[key]), percent=True)
                facts.append(f"Test utterances {what} training has as well: {share}.")
    facts.append(f"Scores of text are computed after one normalization: {STATED}.")
    stamp = ""
    if "checkpoint" in metrics:
        stamp = f'<p class="dim">Checkpoint <code>{html.escape(str(metrics["checkpoint"]))}</code></p>'
    return f"<h1>One decoder, text and speech</h1><p>{html.escape(' '.join(facts))}</p>{stamp}"


def all_figures(metrics: Mapping[str, Any]) -> str:
    """Every number, for looking up."""
    flat = {name.replace("/", "."): value for name, value in flatten(metrics).items()}
    cells = '<tr><td><code>{}</code></td><td class="number">{:.6g}</td></tr>'
    rows = "".join(cells.format(html.escape(name), value) for name, value in flat.items())
    return f"<details><summary>All {len(flat)} figures</summary><table><tbody>{rows}</tbody></table></details>"


def write_html(run: Path | str) -> Path:
    """Write `report.html` into a run folder and return its path.

    Raises:
        InputError: the folder has no readable `metrics.json`.
    """
    root = Path(run)
    metrics = read_json(root / "metrics.json")
    settings = read_json(root / "pipeline.json") if (root / "pipeline.json").exists() else {}
    parts: Sequence[str] = (
        introduction(metrics, settings),
        "<h2>Results</h2>",
        results_table(metrics, targets=settings.get("manifest") is None),
        all_figures(metrics),
        example_sections(root),
        loss_curves(root),
        costs(metrics),
    )
    atomic_write_bytes(root / "report.html", page("unitok report", parts))
    return root / "report.html"
