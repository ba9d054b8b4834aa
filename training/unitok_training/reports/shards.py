"""A page about token shards: one self-contained HTML file, with some rows as text, tokens and sound.

S samples, F frames, Q codebooks.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.io import read_audio
from unitok_tokenizers.data.shard_statistics import (
    CodebookUse,
    Duplicates,
    Statistics,
    chosen_rows,
    histogram,
    statistics,
)
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.grammar.streams import columns_of, ids_column
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.reports.html import bars, data_address, page, spectrogram
from unitok_vocoder.vocoder import Vocoder

ROWS = 8
MOST_SECONDS = 10.0
"""Of a recording that the page holds: 160 kB or so as FLAC at `RATE`."""
RATE = 16000
MOST_IDS = 200
"""Ids of a stream that a row shows."""
MOST_SPEAKERS, MOST_CODEBOOKS = 30, 64


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """What makes tokens readable and audible; a page without it shows ids and recordings."""

    tokenizers: TokenizerSet | None = None
    """Those that the shards were prepared with: text pieces are shown, and codes decoded."""
    vocoder: Vocoder | None = None
    """For codes that a codec does not turn into samples by itself."""


def write_shard_page(shards: Shards, path: Path | str, sounds: Sounds | None = None, *, rows: int = ROWS) -> None:
    """Write the page; recordings that are no longer where the shards say are left out.

    Raises:
        InputError: tokenizers that made other streams than the shards', or a place that cannot be written.
    """
    with_sound = sounds or Sounds()
    if with_sound.tokenizers is not None:
        _check(shards, with_sound.tokenizers)
    found = statistics(shards)
    title = f"Shards {shards.folder.resolve().name}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{found.rows:,} rows, {found.hours:,.2f} hours of recordings, {len(found.languages)} languages, "
        f"{len(found.speakers)} speakers.</p>",
        *_shares(found),
        *_lengths(shards),
        *_codebooks(found.codebooks),
        *_duplicates(found.duplicates),
        *_skipped(shards.manifest["skipped"]),
        "<h2>Rows</h2>",
        *(_row(shards, index, with_sound) for index in chosen_rows(shards, rows)),
    ]
    atomic_write_bytes(path, page(title, parts))


def _check(shards: Shards, tokenizers: TokenizerSet) -> None:
    for info in tokenizers.infos():
        own = shards.streams.get(info.name)
        if own is not None and own.fingerprint != info.fingerprint:
            raise InputError(
                f"stream {info.name!r}: the shards have fingerprint {own.fingerprint}, the tokenizers "
                f"{info.fingerprint}; give those that the shards were prepared with"
            )


def _shares(found: Statistics) -> list[str]:
    splits = {name: (float(rows), f"{rows:,} rows") for name, rows in found.splits.items()}
    return [
        *("<h2>Splits</h2>", bars(splits)),
        *("<h2>Languages</h2>", bars(_hours(found.languages))),
        *("<h2>Speakers</h2>", bars(_hours(dict(list(found.speakers.items())[:MOST_SPEAKERS])))),
        *_left_out(len(found.speakers) - MOST_SPEAKERS, "speakers with fewer rows"),
    ]


def _hours(counts: Mapping[str, tuple[int, float]]) -> dict[str, tuple[float, str]]:
    return {
        name or "unknown": (float(rows), f"{rows:,} rows, {hours:,.2f} h") for name, (rows, hours) in counts.items()
    }


def _left_out(count: int, what: str) -> list[str]:
    return [f'<p class="dim">and {count:,} {what}</p>'] if count > 0 else []


def _lengths(shards: Shards) -> list[str]:
    """Histograms of seconds and of the ids of each stream in a row."""
    columns = {"seconds of recordings": shards.seconds[shards.seconds > 0]}
    for info in shards.streams.values():
        lengths = shards.offsets(ids_column(info.name)).lengths() // len(info.cardinalities)
        columns[f"{info.name} of a row" + (" (frames)" if info.kind == "codes" else "")] = lengths[lengths > 0]
    charts = "".join(_histogram(name, values) for name, values in columns.items() if len(values))
    return ["<h2>Lengths</h2>", f'<div class="grid-of-curves">{charts}</div>']


def _histogram(title: str, values: np.ndarray, *, width: int = 260, height: int = 110) -> str:
    steps = histogram(values)
    most, end = max(count for _, _, count in steps), steps[-1][1]
    left, bottom = 8, 18
    step = (width - 2 * left) / len(steps)
    drawn = "".join(
        f'<rect x="{left + number * step:.1f}" y="{(height - bottom) * (1 - count / most):.1f}" '
        f'width="{step - 1:.1f}" height="{(height - bottom) * count / most:.1f}"><title>{low:.3g} to {high:.3g}: '
        f"{count:,} rows</title></rect>"
        for number, (low, high, count) in enumerate(steps)
    )
    name = html.escape(title)
    return (
        f'<figure class="whiskers"><figcaption>{name} <strong>median {float(np.median(values)):.3g}</strong>, most '
        f'{float(values.max()):.4g}</figcaption><svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
        f'{drawn}<text x="{left}" y="{height - 4}">0</text><text x="{width - left}" y="{height - 4}" '
        f'text-anchor="end">{end:.3g}</text></svg></figure>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{html.escape(one)}</th>" for one in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _codebooks(uses: Sequence[CodebookUse]) -> list[str]:
    rows = [
        (one.stream, str(one.codebook), f"{one.size:,}", f"{one.count:,}", f"{one.used:,} ({100 * one.share:.1f} %)",
         f"{one.perplexity:,.1f}")
        for one in uses[:MOST_CODEBOOKS]
    ]  # fmt: skip
    return [
        "<h2>Use of ids</h2>",
        "<p>Perplexity says how many ids would tell as much if all were used equally often. Runs of deduplicated units "
        "count once.</p>",
        _table(("stream", "codebook", "ids", "stored", "used", "perplexity"), rows),
        *_left_out(len(uses) - MOST_CODEBOOKS, "codebooks"),
    ]


def _duplicates(found: Sequence[Duplicates]) -> list[str]:
    rows = [
        (one.what, f"{one.rows:,}", "; ".join(" = ".join(group) for group in one.examples) or "none") for one in found
    ]
    return ["<h2>Duplicates</h2>", _table(("equal in", "rows that repeat an earlier one", "such as"), rows)]


def _skipped(skipped: Mapping[str, int]) -> list[str]:
    rows = [(reason, f"{count:,}") for reason, count in skipped.items()]
    return ["<h2>Left out when prepared</h2>", _table(("reason", "rows"), rows)] if rows else []


# -- rows -------------------------------------------------------------------------------------------------------


def _row(shards: Shards, index: int, sounds: Sounds) -> str:
    row = shards.row(index)
    about = [("id", row["id"]), ("language", row["lang"]), ("speaker", row["speaker"]), ("split", row["split"]),
             ("seconds", f"{row['seconds']:.2f}"), ("text", row["text"] or "")]  # fmt: skip
    about += [(info.name, _ids(shards, index, info.name, sounds)) for info in shards.streams.values()]
    items = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in about if value)
    heard = [_sound(name, samples, rate) for name, samples, rate in _heard(shards, index, row, sounds)]
    return f'<div class="example"><dl>{items}</dl><div class="sounds">{"".join(heard)}</div></div>'


def _ids(shards: Shards, index: int, stream: str, sounds: Sounds) -> str:
    """A row's tokens as they read: text pieces, units with their durations, frames of codes."""
    info = shards.streams[stream]
    ids = shards.cell(ids_column(stream), index)
    more = " …" if len(ids) > MOST_IDS else ""
    if info.kind == "text" and sounds.tokenizers is not None:
        pieces = sounds.tokenizers.text.pieces()
        return " ".join(pieces[one] for one in ids[:MOST_IDS]) + more
    if info.kind == "codes":
        frames = shards.codes(index, stream)[: max(1, MOST_IDS // len(info.cardinalities))]
        return " ".join(":".join(map(str, frame)) for frame in frames.tolist()) + more
    if info.deduplicated:
        durations = shards.cell(columns_of(info)[1], index)
        return " ".join(f"{one}×{times}" for one, times in zip(ids[:MOST_IDS], durations)) + more
    return " ".join(map(str, ids[:MOST_IDS].tolist())) + more


def _heard(shards: Shards, index: int, row: Mapping[str, Any], sounds: Sounds) -> list[tuple[str, np.ndarray, int]]:
    """(what, samples (S,), Hz) of the recording, where it is still there, and of codes that can be decoded."""
    found = []
    if row["audio"]:
        seconds = min(row["seconds"] or MOST_SECONDS, MOST_SECONDS)
        try:
            samples = read_audio(shards.folder / row["audio"], sample_rate=RATE, offset=row["offset"], seconds=seconds)
            found.append(("recording", samples, RATE))
        except InputError:
            pass  # shards are of use without their recordings, and so is the page
    codec = None if sounds.tokenizers is None else sounds.tokenizers.codec
    if codec is None or codec.name not in shards.streams:
        return found
    codes = shards.codes(index, codec.name)[: int(MOST_SECONDS * codec.frame_rate)]
    if len(codes):
        made = sounds.vocoder.from_codes(codes, codec) if sounds.vocoder is not None else codec.decode(codes)
        rate = sounds.vocoder.sample_rate if sounds.vocoder is not None else codec.sample_rate
        if made is not None:
            found.append((f"from {codec.name}", made, rate))
    return found


def _sound(name: str, samples: np.ndarray, rate: int) -> str:
    import soundfile

    encoded = io.BytesIO()
    soundfile.write(encoded, np.clip(samples, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    image = data_address(spectrogram(samples, rate), "image/png")
    sound = data_address(encoded.getvalue(), "audio/flac")
    title = html.escape(name)
    return (
        f'<figure class="sound"><figcaption>{title} <span class="dim">{len(samples) / rate:.1f} s</span></figcaption>'
        f'<img alt="spectrogram: {title}" src="{image}"><audio controls preload="none" src="{sound}"></audio></figure>'
    )
