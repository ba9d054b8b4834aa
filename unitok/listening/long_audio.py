"""Recordings of any length: cut into pieces that a decoder can read, and their transcripts joined.

A cut lies in a pause wherever there is one. Where somebody talks without a pause two pieces overlap, and the words that
both transcripts hold are found and kept once. Samples come as a stream of blocks: memory does not grow with length.

S samples, F level frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.audio.speech_activity import FRAME_SECONDS, levels
from unitok_tokenizers.text.scripts import SPACELESS, TOKEN

SILENCE_DB = -70.0
"""Level (full scale = 0 dB) below which there is nothing to hear: ten steps of 16-bit audio."""
CONTRAST_DB = 12.0
"""A pause is at least this much below the loud parts around it."""
RANGE_DB = 40.0
"""Everything further below the loud parts counts as equally quiet."""
QUIET_SHARE = 1 / 3
"""A frame is quiet in the lowest third of the range between the quietest and the loud frames."""
ENDS_SPACELESS, BEGINS_SPACELESS = re.compile(rf"[{SPACELESS}]\s*$"), re.compile(rf"^\s*[{SPACELESS}]")


SHORT_PAUSE = 0.08
"""Between two sentences in a hurry: as long as the longest closures of most plosives, of which the widest is taken."""
SHORTEST_PIECE = 1.0
"""Pieces are not cut shorter than this, in seconds, whatever was learned."""


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How long recordings are cut, in seconds."""

    longest: float = 12.0
    """Longest piece."""
    search: float = 8.0
    """The end of a piece within which a pause is looked for."""
    pause: float = 0.12
    """Shortest pause; closures of plosives are shorter."""
    good_pause: float = 0.5
    """Longer pauses are no better; among equals the last is taken."""
    overlap: float = 2.0
    """What two pieces share where there is no pause; 0 parts them at the quietest moment."""
    leeway: float = 0.5
    """How far an overlap's end moves to the quietest moment nearby."""

    def __post_init__(self) -> None:
        assert 0 < self.pause <= self.good_pause <= self.search < self.longest, self
        assert not self.overlap or self.leeway < self.overlap < self.longest - 2 * self.leeway, self

    @staticmethod
    def of(longest: float, *, overlap: bool) -> Cutting:
        """For pieces of at most `longest` seconds, which overlap where there is no pause or do not."""
        longest = max(longest, SHORTEST_PIECE)
        search = longest * 2 / 3
        shared = longest / 6
        return Cutting(
            longest=longest,
            search=search,
            pause=SHORT_PAUSE,
            good_pause=min(0.5, search),
            overlap=shared if overlap else 0.0,
            leeway=shared / 4,
        )


@dataclass(frozen=True, kw_only=True)
class AudioChunk:
    """A part of a recording."""

    samples: np.ndarray
    """(S,) float32."""
    start: int
    """Index of its first sample in the recording."""
    overlap: int
    """How many of its first samples the piece before it holds as well; 0 after a pause."""


def smoothed(level: np.ndarray) -> np.ndarray:
    """(F,) mean of each level and its two neighbors; the ends are their own."""
    return np.convolve(np.pad(level, 1, mode="edge"), np.ones(3) / 3, mode="valid")


def find_pause(level: np.ndarray, begin: int, cutting: Cutting) -> int | None:
    """The middle frame of the best pause at or after frame `begin` of (F,) levels, or None."""
    level = smoothed(level)  # noise that flickers would cut a pause into pieces
    loud = float(np.quantile(level, 0.95))
    floor = max(float(level[begin:].min(initial=loud)), loud - RANGE_DB)
    if loud > SILENCE_DB and loud - floor < CONTRAST_DB:
        return None
    quiet = level[begin:] <= max(floor + QUIET_SHARE * (loud - floor), SILENCE_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    best, best_width = None, 0
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
        width = min(end - start, round(cutting.good_pause / FRAME_SECONDS))
        if width >= max(best_width, round(cutting.pause / FRAME_SECONDS)):
            best, best_width = begin + (start + end) // 2, width
    return best


def cut(blocks: Iterable[np.ndarray], rate: int, cutting: Cutting | None = None) -> Iterator[AudioChunk]:
    """Cut a recording that comes as blocks (S,) at `rate` Hz into pieces.

    Without the overlaps the pieces are the recording, every sample once and in order. At most one piece and one block
    are held at a time.
    """
    cutting = cutting or Cutting()
    longest = round(cutting.longest * rate)
    held, start, overlap = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > longest:
            end, following = _next_cut(held[:longest], rate, cutting)
            yield AudioChunk(samples=held[:end].copy(), start=start, overlap=overlap)
            held, start, overlap = held[following:], start + following, end - following
    if len(held) > overlap or start == 0:
        yield AudioChunk(samples=held, start=start, overlap=overlap)


def _next_cut(samples: np.ndarray, rate: int, cutting: Cutting) -> tuple[int, int]:
    """(end of this piece, start of the next) within (S,) samples of the longest piece."""
    level = levels(samples, rate)
    hop = max(1, round(FRAME_SECONDS * rate))

    def frames(seconds: float) -> int:
        return round(seconds / FRAME_SECONDS)

    pause = find_pause(level, max(1, len(level) - frames(cutting.search)), cutting)
    if pause is not None:
        return pause * hop + hop // 2, pause * hop + hop // 2
    leeway = frames(cutting.leeway)
    smooth = smoothed(level)
    last = len(level) - 2 * leeway
    end = last + int(np.argmin(smooth[last:]))
    if not cutting.overlap:
        return end * hop + hop // 2, end * hop + hop // 2
    center = max(1 + leeway, end - frames(cutting.overlap))
    following = center - leeway + int(np.argmin(smooth[center - leeway : center + leeway]))
    return end * hop + hop // 2, following * hop + hop // 2


def words_of(text: str) -> list[str]:
    """Words as they are compared: without case and punctuation; characters in scripts without spaces."""
    found = []
    for token in TOKEN.findall(text):
        plain = "".join(character for character in token.casefold() if character.isalnum())
        found.append(plain or token)
    return found


def join_texts(left: str, right: str) -> str:
    """Two texts that follow one another after a pause."""
    left, right = left.strip(), right.strip()
    gap = "" if ENDS_SPACELESS.search(left) and BEGINS_SPACELESS.search(right) else " "
    return f"{left}{gap}{right}".strip()


def merge_texts(left: str, right: str, left_shared: float, right_shared: float) -> str:
    """Join transcripts of two pieces that overlap, with the shared words once.

    A piece that ends or begins within a word may hold a wrong word there: around the words that agree, the left text's
    later ones and the right text's earlier ones are left out, because the other text heard them whole.

    Args:
        left: transcript of the first piece.
        right: transcript of the second.
        left_shared: about how many of the left text's last words lie in the overlap.
        right_shared: about how many of the right text's first words do.
    """
    a, b = words_of(left), words_of(right)
    if not a or not b:
        return join_texts(left, right)
    kept_left, dropped_right = _seam(a, b, left_shared, right_shared)
    left_ends = [match.end() for match in TOKEN.finditer(left)]
    right_starts = [match.start() for match in TOKEN.finditer(right)]
    head = left[: left_ends[kept_left - 1]] if kept_left else ""
    tail = right[right_starts[dropped_right] :] if dropped_right < len(b) else ""
    return join_texts(head, tail)


def _seam(a: Sequence[str], b: Sequence[str], left_shared: float, right_shared: float) -> tuple[int, int]:
    """(words of `a` to keep, words of `b` to leave out), by the run of equal words that explains the overlap best.

    The cost of a run is how far it, with the words beside it, is from the expected size of the overlap, and the words
    beside it that must be left out; longer runs are less likely to be chance.
    """
    reach = round(2 * max(left_shared, right_shared)) + 3
    best: tuple[float, int, int] | None = None
    for beside_a in range(min(reach, len(a))):
        for beside_b in range(min(reach, len(b))):
            # the run ends where `beside_a` words of a are left, and begins after `beside_b` words of b
            for size in range(1, min(reach, len(a) - beside_a, len(b) - beside_b) + 1):
                if a[len(a) - beside_a - size : len(a) - beside_a] != b[beside_b : beside_b + size]:
                    continue
                cost = abs(size + beside_a - left_shared) + abs(size + beside_b - right_shared)
                cost += beside_a + beside_b - 0.5 * size
                if best is None or cost < best[0]:
                    best = (cost, len(a) - beside_a, beside_b + size)
    if best is not None:
        return best[1], best[2]
    # nothing agrees: each text up to the middle of what they share
    return len(a) - min(round(left_shared / 2), len(a)), min(round(right_shared / 2), len(b))


class JoinedTranscript:
    """The text of a recording, grown piece by piece."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.text = ""
        self.trace: list[str] = []
        """One line per piece, for people."""
        self._last: tuple[int, str] = (0, "")

    def add(self, piece: AudioChunk, text: str, *, begin: float | None = None) -> None:
        """Append what was heard in the next piece, which began at second `begin` of the recording."""
        begin = piece.start / self.rate if begin is None else begin
        seconds = len(piece.samples) / self.rate
        self.trace.append(f"{begin:.1f} s + {seconds:.1f} s: {text}")
        if piece.overlap:
            length, before = self._last
            left = len(words_of(before)) * piece.overlap / max(length, 1)
            right = len(words_of(text)) * piece.overlap / max(len(piece.samples), 1)
            self.text = merge_texts(self.text, text, left, right)
        else:
            self.text = join_texts(self.text, text)
        self._last = len(piece.samples), text
