"""Pieces of the report that are drawn: spectrograms as PNG, curves and bars as SVG, audio as data addresses.

Everything is made with numpy and the standard library, so that a report needs no plotting package.

F mel frames, M mel bins.
"""

from __future__ import annotations

import base64
import html
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.audio.io import read_audio

AUDIO_TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".ogg": "audio/ogg"}
FLOOR_DB = 60.0
"""Range of a spectrogram below its loudest point, in dB."""
SHADES = np.array(
    [[11, 9, 36], [59, 15, 112], [120, 28, 129], [183, 55, 121], [237, 104, 96], [254, 176, 120], [252, 253, 191]],
    float,
)
"""Dark violet to pale yellow, evenly spaced: rises in lightness, so that it also reads in grey."""


def data_address(data: bytes, kind: str) -> str:
    """A `data:` address that holds the bytes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def png(pixels: np.ndarray) -> bytes:
    """(height, width, 3) uint8 → a PNG file."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], axis=1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def spectrogram(samples: np.ndarray, sample_rate: int) -> bytes:
    """Log-mel spectrogram of (S,) samples as a PNG, one pixel a frame (100 a second), low frequencies below."""
    config = MelConfig(sample_rate=sample_rate, hop_length=sample_rate // 100, fmax=min(7600.0, sample_rate / 2))
    frames = log_mel(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)), config).numpy()  # (F, M)
    if not len(frames):
        frames = np.zeros((1, config.num_mels), np.float32)
    decibels = frames * (20 / math.log(10))
    level = np.clip((decibels - decibels.max()) / FLOOR_DB + 1.0, 0.0, 1.0)
    steps = np.linspace(0.0, 1.0, len(SHADES))
    shaded = np.stack([np.interp(level, steps, SHADES[:, channel]) for channel in range(3)], axis=-1)  # (F, M, 3)
    return png(shaded.transpose(1, 0, 2)[::-1].astype(np.uint8))


def player(path: Path, caption: str) -> str:
    """A figure with the spectrogram of an audio file and a player for it."""
    import soundfile

    rate = int(soundfile.info(str(path)).samplerate)
    samples = read_audio(path, sample_rate=rate)
    image = data_address(spectrogram(samples, rate), "image/png")
    sound = data_address(path.read_bytes(), AUDIO_TYPES.get(path.suffix, "audio/wav"))
    title = html.escape(caption)
    return (
        f'<figure class="sound"><figcaption>{title} <span class="dim">{len(samples) / rate:.1f} s</span></figcaption>'
        f'<img alt="spectrogram: {title}" src="{image}"><audio controls preload="none" src="{sound}"></audio></figure>'
    )


def curve(title: str, points: Sequence[tuple[float, float]], *, width: int = 260, height: int = 110) -> str:
    """One small line chart; its last value stands beside the title."""
    left, right, top, bottom = 34, 8, 8, 18
    steps, values = [x for x, _ in points], [y for _, y in points]
    low, high = min(values), max(values)
    span = max(high - low, 1e-9)
    end = max(steps[-1], 1.0)

    def place(x: float, y: float) -> str:
        across = left + (width - left - right) * x / end
        down = top + (height - top - bottom) * (high - y) / span
        return f"{across:.1f},{down:.1f}"

    line = " ".join(place(x, y) for x, y in points)
    grid = "".join(
        f'<line class="grid" x1="{left}" x2="{width - right}" y1="{place(0, y).split(",")[1]}" '
        f'y2="{place(0, y).split(",")[1]}"/>'
        f'<text x="{left - 4}" y="{float(place(0, y).split(",")[1]) + 3:.1f}" text-anchor="end">{y:.1f}</text>'
        for y in (low, (low + high) / 2, high)
    )
    marks = (
        f'<text x="{left}" y="{height - 4}">0</text>'
        f'<text x="{width - right}" y="{height - 4}" text-anchor="end">{end:,.0f} steps</text>'
    )
    name = html.escape(title)
    return (
        f'<figure class="curve"><figcaption>{name} <strong>{values[-1]:.2f}</strong></figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss of {name}, last {values[-1]:.2f}">'
        f'{grid}{marks}<polyline points="{line}"/></svg></figure>'
    )


def bars(rows: Mapping[str, tuple[float, str]]) -> str:
    """A table whose last column shows each value as a bar: name → (value, how to write it)."""
    largest = max((value for value, _ in rows.values()), default=1.0) or 1.0
    lines = [
        f'<tr><td>{html.escape(name)}</td><td class="number">{html.escape(text)}</td>'
        f'<td class="bar"><span style="width:{100 * value / largest:.1f}%"></span></td></tr>'
        for name, (value, text) in rows.items()
    ]
    return f'<table class="bars"><tbody>{"".join(lines)}</tbody></table>'


def whiskers(title: str, rows: Mapping[str, tuple[float, float, Sequence[float]]], *, width: int = 260) -> str:
    """A small chart of bars with intervals: name → (mean, half-width, the single values as points)."""
    left, right, step = 62, 10, 24
    most = max((max(mean + half, *points, 1e-9) for mean, half, points in rows.values()), default=1.0)

    def place(value: float) -> float:
        return left + (width - left - right) * min(max(value, 0.0), most) / most

    lines = []
    for number, (name, (mean, half, points)) in enumerate(rows.items()):
        top = 4 + number * step
        middle = top + 8
        lines.append(
            f'<text x="{left - 6}" y="{middle + 3}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{left}" y="{top}" width="{place(mean) - left:.1f}" height="16"/>'
            f'<line x1="{place(mean - half):.1f}" x2="{place(mean + half):.1f}" y1="{middle}" y2="{middle}"/>'
            + "".join(f'<circle cx="{place(value):.1f}" cy="{middle}" r="2.2"/>' for value in points)
        )
    name = html.escape(title)
    height = 4 + step * len(rows) + 12
    scale = f'<text x="{left}" y="{height - 2}">0</text><text x="{width - right}" y="{height - 2}" text-anchor="end">'
    return (
        f'<figure class="whiskers"><figcaption>{name}</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{name}">{"".join(lines)}{scale}{most:.3g}</text></svg></figure>'
    )


def page(title: str, parts: Sequence[str]) -> bytes:
    """A whole page that refers to nothing outside itself."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    written = (
        f'<!doctype html><html lang="en"><head>{head}<title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    return written.encode("utf-8")


STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --ink: #1d2430; --dim: #667080; --line: #dcdfe4; --card: #ffffff;
  --accent: #3457b2; --good: #1d7a46; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e6e8ec; --dim: #98a2b1; --line: #333a45;
  --card: #1c2027; --accent: #8fb0ff; --good: #68c58f; --bad: #ff8f85; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 66rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; } h2 { font-size: 1.35rem; margin: 3rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .6rem; } p { max-width: 44rem; } .dim { color: var(--dim);
  font-weight: normal; }
code { font-size: .88em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .7rem .42rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { font-size: .82rem; font-weight: 600; color: var(--dim); } td.number, th.number { text-align: right;
  white-space: nowrap; }
td small { display: block; color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); }
.bars td.bar { width: 55%; } .bars td { vertical-align: middle; }
.bar span { display: block; height: .7rem; min-width: 2px; border-radius: 2px; background: var(--accent); }
.grid-of-curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .9rem; margin-bottom: .3rem; }
.curve svg { width: 100%; height: auto; display: block; } .curve polyline { fill: none; stroke: var(--accent);
  stroke-width: 1.6; }
.curve .grid { stroke: var(--line); } .curve text { fill: var(--dim); font-size: 10px; }
.whiskers svg { width: 100%; height: auto; display: block; } .whiskers rect { fill: var(--accent); opacity: .35; }
.whiskers line { stroke: var(--ink); stroke-width: 1.6; } .whiskers circle { fill: var(--ink); opacity: .7; }
.whiskers text { fill: var(--dim); font-size: 10px; }
.example { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.1rem;
  margin: 0 0 .9rem; }
.example dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .9rem; margin: 0 0 .8rem; }
.example dt { color: var(--dim); font-size: .88rem; padding-top: .1rem; } .example dd { margin: 0;
  overflow-wrap: anywhere; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.sound img { width: 100%; height: 90px; display: block; border-radius: 4px; background: #0b0924; }
.sound audio { width: 100%; height: 36px; margin-top: .4rem; }
details { margin: .8rem 0; } summary { cursor: pointer; margin-bottom: .8rem; }
"""
