"""The benchmark's results as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unitok_tokenizers.audio.changes import CHANGES

COLUMNS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("kbit/s", ("bits.nominal",), "kilo"),
    ("no runs", ("bits.deduplicated",), "kilo"),
    ("entropy", ("bits.entropy",), "kilo"),
    ("usage", ("usage",), "mean"),
    ("MI", ("text.first.mi", "text.all.mi"), ".1f"),
    ("CER", ("text.first.cer", "text.all.cer"), ".3f"),
    ("WER", ("text.first.wer", "text.all.wer"), ".3f"),
    ("purity", ("phones.purity", "phones.cluster_purity"), ".3f"),
    ("NMI", ("phones.nmi",), ".3f"),
    ("changed", tuple(f"robustness.{name}" for name in CHANGES), ".2f"),
    ("speaker", ("speaker.tokens.accuracy", "speaker.features.accuracy"), ".2f"),
    ("chance", ("speaker.tokens.chance",), ".2f"),
    ("ear WER", ("ears.wer",), ".3f"),
    ("voice", ("ears.similarity", "ears.similarity_impostor"), ".2f"),
    ("DNSMOS", ("ears.dnsmos",), ".2f"),
    ("× real time", ("speed.times_real_time",), ".1f"),
)
"""Title, keys of one cell, and how their numbers are written."""
LEGEND = """\
kbit/s: frame rate × Σ log2 of the codebooks' sizes (Opus: measured); no runs: of frames that differ from the one
before; entropy: of each code by itself. usage: share of the codes that occur, mean over codebooks. MI, CER, WER: of a
CTC reader of the first codebook / of all; MI in nats an utterance. purity: of phones / of clusters. changed: edits from
the tokens of recordings to those at another speed / pitch / in noise / in a room, ÷ the former. speaker: accuracy
from tokens / from the encoder's frames. voice: similarity to the speaker / to others. × real time: seconds of
recordings tokenized in a second."""
DASH = "—"


def cell(figures: Mapping[str, Any], keys: Sequence[str], form: str) -> str:
    """Numbers of one cell; a dash for what was not measured."""
    found = [figures.get(key) for key in keys]
    while len(found) > 1 and found[-1] is None:  # a stream of one codebook has no second number
        found.pop()
    return " / ".join(DASH if one is None else written(one, form) for one in found)


def written(value: Any, form: str) -> str:
    """One number."""
    if form == "kilo":
        return f"{value / 1000:.2f}"
    if form == "mean":
        return f"{sum(value) / len(value):.2f}"
    return format(value, form)


def lines_of(results: Mapping[str, Any]) -> list[list[str]]:
    """Heading and rows, as cells."""
    rows = [["", *(title for title, _, _ in COLUMNS)]]
    for one in (results["recordings"], *results["contestants"], *results["classical"]):
        rows.append([one["name"], *(cell(one["figures"], keys, form) for _, keys, form in COLUMNS)])
    return rows


def reasons(results: Mapping[str, Any]) -> list[str]:
    """Why there are dashes, each reason once: key and reason, with those that it holds for."""
    found: dict[str, list[str]] = {}
    for one in (results["recordings"], *results["contestants"], *results["classical"]):
        for key, reason in one["why"].items():
            found.setdefault(f"{key}: {reason}", []).append(one["name"])
    return [f"{DASH} {what} ({', '.join(names)})" for what, names in found.items()]


def spoken_by(results: Mapping[str, Any]) -> list[str]:
    """What speaks the tokens of each contestant that ears heard."""
    every = (*results["contestants"], *results["classical"])
    return [f"{one['name']}: spoken by {one['figures']['ears.by']}" for one in every if "ears.by" in one["figures"]]


def about(results: Mapping[str, Any]) -> str:
    """The corpus, and what computed, in a line."""
    corpus, computed = results["corpus"], results["computed"]
    labels = f"; labels: {corpus['labels']}" if corpus["labels"] else ""
    return (
        f"{corpus['held_out']} recordings of {corpus['split']}, {corpus['train']} to learn from{labels}; "
        f"{computed['device']}, {computed['threads']} threads, {computed['processor']}"
    )


def as_text(results: Mapping[str, Any]) -> str:
    """For a terminal."""
    rows = lines_of(results)
    used = [place for place in range(len(rows[0])) if place == 0 or any(row[place] != DASH for row in rows[1:])]
    widths = [max(len(row[place]) for row in rows) for place in used]
    table = [
        "  ".join(row[p].ljust(w) if p == 0 else row[p].rjust(w) for p, w in zip(used, widths)).rstrip() for row in rows
    ]
    return "\n".join([*table, "", *spoken_by(results), *reasons(results), about(results)])


def as_markdown(results: Mapping[str, Any]) -> str:
    """`table.md`."""
    head, *rows = [["".join(one.replace("|", "\\|")) for one in row] for row in lines_of(results)]
    table = [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * len(COLUMNS)], *rows)]
    notes = [f"- {line}" for line in (*spoken_by(results), *reasons(results))]
    return "\n".join(["# Tokenizers compared", "", about(results), "", *table, "", LEGEND, "", *notes, ""])
