"""One opened recording: its pieces behind one another, decoded by libsndfile block by block.

S samples, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unitok_tokenizers.audio.containers.base import ContainerPart, Layout, View, unexplained
from unitok_tokenizers.audio.containers.probe import probe
from unitok_tokenizers.audio.embedded import embedded_bytes
from unitok_tokenizers.errors import InputError

REMEMBERED = 256
"""Layouts that are kept: rows that are parts of one recording do not walk it again and again."""
MOST_FRAMES_A_BLOCK = 1 << 14
"""Samples by which a codec of whole blocks may have more than its header counts."""
BUFFERED = 1 << 16
"""Bytes that a decoder may leave unread behind its last sample."""


def _reason(error: Exception) -> str:
    """What libsndfile says, without the name of what it was given."""
    return str(error).rpartition(": ")[2].strip(" .") or type(error).__name__


def _cannot_read(path: Path | str, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.strerror:  # the system's refusal, whatever the file is
        return InputError(f"cannot read audio {path}: {error.strerror}; check that it is there and may be read")
    return InputError(f"cannot read audio {path}: {_reason(error)}; convert it to WAV or FLAC")


@lru_cache(maxsize=REMEMBERED)
def _layout_of(path: str, size: int, changed: int) -> Layout:
    """The layout of a file, which its size and the time of its last change identify."""
    with open(path, "rb") as source:
        return probe(source, size)


class Recording:
    """Pieces of one sample rate, read as one. Close it, or take it from `open_recording`."""

    def __init__(self, path: Path | str, source: BinaryIO, layout: Layout) -> None:
        import soundfile

        self.path, self.layout = path, layout
        self.views = [View(source, piece.parts) for piece in layout.pieces]
        self.files = [soundfile.SoundFile(view) for view in self.views]
        self.rate = int(self.files[0].samplerate)
        self.lengths = [_frames(piece, file) for piece, file in zip(layout.pieces, self.files)]
        self.missing = layout.missing or (_told_by_log(self.files[0]) if not layout.known else "")
        """What shows that the file is cut; complete when all of it was read."""
        for file, length in zip(self.files, self.lengths):
            if file.samplerate != self.rate:
                raise InputError(
                    f"audio {path} is of several joined recordings, of which {self.lengths[0] / self.rate:.2f} s have "
                    f"{self.rate} Hz and {length / file.samplerate:.2f} s {file.samplerate} Hz; give them as files of "
                    "their own"
                )

    @property
    def frames(self) -> int:
        """Samples a channel."""
        return sum(self.lengths)

    def close(self) -> None:
        """Close the decoders."""
        for file in self.files:
            file.close()

    def blocks(self, start: int, wanted: int | None, size: int) -> Iterator[np.ndarray]:
        """(S, C) float32 blocks of at most `size` samples from sample `start` on; `wanted` None reads to the end."""
        for index, (file, length) in enumerate(zip(self.files, self.lengths)):
            if start >= length and index + 1 < len(self.files):
                start -= length
                continue
            left = length - start if wanted is None else min(wanted, length - start)
            if left <= 0:
                continue
            _skip(file, self.layout.pieces[index].skipped + start, size)
            while left > 0 and len(data := self._decoded(index, min(left, size))):
                left -= len(data)
                wanted = None if wanted is None else wanted - len(data)
                yield data
            start = 0
            if wanted is None:
                self._check_end(index, left)
            elif wanted <= 0:
                return

    def _decoded(self, index: int, count: int) -> np.ndarray:
        """The next samples (S, C); none where the decoder met the end of the file in the middle of something."""
        import soundfile

        view = self.views[index]
        try:
            return self.files[index].read(count, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            if view.reached < view.size:
                raise
            self.missing = self.missing or _reason(error)
            return np.zeros((0, 1), np.float32)

    def _check_end(self, index: int, left: int) -> None:
        """Note what is missing of a piece that was read to its end."""
        piece, view = self.layout.pieces[index], self.views[index]
        if left > 0 and piece.counted:
            self.missing = self.missing or f"its header tells of {left:,} more samples"
        behind = view.size - view.reached - BUFFERED
        if not self.layout.self_delimiting and unexplained(behind, view.reached):
            raise InputError(
                f"audio {self.path} goes on behind the {self.lengths[index] / self.rate:.2f} s that its header tells "
                f"of, for {behind:,} bytes; mend the header, or convert the file again"
            )


def _told_by_log(file: Any) -> str:
    """What libsndfile notes of sizes that do not fit the file, and passes over."""
    lines = (" ".join(line.split()) for line in file.extra_info.splitlines())
    return next((line.strip("* .") for line in lines if "should be" in line or "truncated" in line), "")


def _frames(piece: ContainerPart, file: Any) -> int:
    """Samples a channel of a piece: the container's number where the decoder has whole blocks, else the decoder's."""
    own = max(0, int(file.frames) - piece.skipped)
    if piece.frames is None or not piece.counted:
        return own if piece.frames is None else piece.frames
    return piece.frames if 0 <= own - piece.frames < MOST_FRAMES_A_BLOCK else own


def _skip(file: Any, count: int, size: int) -> None:
    """Pass over samples, by reading them where the format cannot be searched in (GSM 6.10)."""
    if count <= 0:
        return
    if file.seekable():
        file.seek(count)
        return
    while count > 0 and len(data := file.read(min(count, size), dtype="float32", always_2d=True)):
        count -= len(data)


@contextmanager
def open_recording(path: Path | str, held: bytes | None = None) -> Iterator[Recording]:
    """Open a file, or a recording inside a table; with `held`, those bytes of a file, which `path` then only names.

    Raises:
        InputError: it is missing or cannot be read, when it is opened or while it is read.
    """
    import soundfile

    recording = None
    source: BinaryIO | None = None
    try:
        if held is not None:
            source = BytesIO(held)
            layout = probe(source, len(held))
        elif os.path.isfile(path):
            status = os.stat(path)
            layout = _layout_of(os.fspath(path), status.st_size, status.st_mtime_ns)
            source = open(path, "rb")
        else:
            source = embedded_bytes(path)
            if source is None:
                raise InputError(f"no audio file {path}; check the path in the manifest or command")
            layout = probe(source, source.seek(0, os.SEEK_END))
        if layout.trouble:
            raise InputError(f"cannot read audio {path}: {layout.trouble}")
        recording = Recording(path, source, layout)
        yield recording
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise _cannot_read(path, error) from error
    finally:
        if recording is not None:
            recording.close()
        if source is not None:
            source.close()
