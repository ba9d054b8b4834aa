"""Frames of an encoder that does not move, on disk: what it gives for a recording is computed once.

A folder for each encoder (its weights, its configuration, the precision that it computed in) holds segments, which are
safetensors files of some recordings each, mapped into memory. Every process writes segments of its own, whole or not at
all, and reads what others have finished. T frames, D width, V labels.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from unitok.frontends.base import Encoded
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, cannot_use, ensure_folder, fingerprint

FORMAT = "1"
SEGMENT_BYTES = 16 << 20
"""Frames that are written together; a process that is killed loses at most so many, which are computed again."""


class FrameCache:
    """Frames by the name of what was heard.

    Args:
        folder: of all encoders' frames.
        encoder: whose frames they are; it must not move.
        precision: that it computes in, as `Compute.precision` says.
        most_bytes: of all segments in the folder; what does not fit is computed every time. Processes that write at
            the same moment may exceed it by a segment each.

    Raises:
        InputError: a folder that cannot be written.
    """

    def __init__(self, folder: Path | str, encoder: FrameEncoder, *, precision: str, most_bytes: int) -> None:
        self.identity = fingerprint([FORMAT, encoder.to_json(), encoder.fingerprint, precision])
        self.root, self.folder, self.most_bytes = Path(folder), Path(folder) / self.identity, most_bytes
        ensure_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._news: list[str] = []
        self._lock = threading.RLock()  # readers ask while the trainer adds
        self._places: dict[str, tuple[Any, int]] = {}  # recording → (the open segment, length of its input)
        self._seen: set[str] = set()  # names of segments that were looked at
        self._changed = -1
        self._used = 0
        self._full = False
        self._waiting: dict[str, Encoded] = {}
        self._waiting_bytes = 0
        self._look()

    def __len__(self) -> int:
        """Recordings that are known."""
        return len(self._places.keys() | self._waiting.keys())

    def __str__(self) -> str:
        return f"frames of the encoder are kept in {self.folder}: {len(self)} recordings so far"

    def told(self) -> list[str]:
        """What there is to tell since it was last asked."""
        with self._lock:
            found, self._news = self._news, []
        return found

    def get(self, key: str) -> Encoded | None:
        """The frames of a recording, on the host, where they are known."""
        with self._lock:
            if key in self._waiting:
                return self._waiting[key]
            if key not in self._places and os.stat(self.folder).st_mtime_ns != self._changed:
                self._look()  # another process has written
            if key not in self._places:
                return None
            segment, size = self._places[key]
            ctc = segment.get_tensor(f"{key}.ctc") if f"{key}.ctc" in segment.keys() else None
            return Encoded(size, segment.get_tensor(f"{key}.hidden"), ctc)

    def put(self, key: str, found: Encoded) -> None:
        """Keep the frames of a recording, on the host, while there is room."""
        parts = [found.hidden] if found.ctc is None else [found.hidden, found.ctc]
        size = sum(part.numel() * part.element_size() for part in parts)
        with self._lock:
            if self._full or key in self._waiting or key in self._places:
                return
            if self._used + self._waiting_bytes + size > self.most_bytes:
                self._full = True
                self._news.append(
                    f"{self.root} holds the {self.most_bytes / 1e9:g} GB that frames.max_gb allows: frames of further "
                    "recordings are computed every time"
                )
                return
            self._waiting[key] = found
            self._waiting_bytes += size
            if self._waiting_bytes >= SEGMENT_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what is not written yet. A full disk costs the next run time, and this one nothing: it is told."""
        with self._lock:
            if not self._waiting:
                return
            tensors = {f"{key}.hidden": one.hidden.contiguous() for key, one in self._waiting.items()}
            heads = ((key, one.ctc) for key, one in self._waiting.items())
            tensors |= {f"{key}.ctc": ctc.contiguous() for key, ctc in heads if ctc is not None}
            sizes = json.dumps({key: one.size for key, one in self._waiting.items()})
            about = {"format": FORMAT, "encoder": self.identity, "recordings": sizes}
            self._waiting, self._waiting_bytes = {}, 0
            try:
                atomic_write_bytes(self.folder / f"{uuid.uuid4().hex}.safetensors", save(tensors, about))
            except InputError as error:
                self._full = True
                self._news.append(f"{error}: frames of further recordings are computed every time")
                return
            self._look()

    def _look(self) -> None:
        """Take in segments that were finished since the last look."""
        try:
            self._changed = os.stat(self.folder).st_mtime_ns  # before: what comes meanwhile is looked at again
            for path in sorted(self.folder.glob("*.safetensors")):
                if path.name not in self._seen:
                    self._seen.add(path.name)
                    self._take(path)
            self._used = sum(path.stat().st_size for path in self.root.rglob("*.safetensors"))
        except OSError as error:
            raise cannot_use(error) from error

    def _take(self, path: Path) -> None:
        """Open a segment; what is torn or another version's is told and left, and its recordings are encoded again."""
        try:
            segment: Any = safe_open(path, framework="pt")
            about = segment.metadata() or {}
            if (about.get("format"), about.get("encoder")) != (FORMAT, self.identity):
                raise ValueError("it is of another version or encoder")
            sizes = {str(key): int(size) for key, size in json.loads(about["recordings"]).items()}
            if {f"{key}.hidden" for key in sizes} - set(segment.keys()):
                raise ValueError("frames are missing")
        except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._news.append(f"{path} is not used ({reason}): its frames are computed again; it may be removed")
            return
        for key, size in sizes.items():
            self._places.setdefault(key, (segment, size))


def name_of(parts: Sequence[Any]) -> str:
    """A name for what is heard, from all that decides it: 32 hexadecimal digits of JSON values."""
    text = json.dumps(list(parts), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


@torch.no_grad()
def encoded_alone(encoder: FrameEncoder, inputs: Sequence[torch.Tensor]) -> Encoded:
    """The frames of one recording, where the encoder is: alone, so that they do not depend on its neighbors."""
    frames = encoder([tuple(inputs)])
    known = encoder.frames_in(tuple(inputs))
    count = int(frames.lengths[0]) if known is None else known
    ctc = None if frames.ctc is None else frames.ctc[0, :count]
    return Encoded(len(inputs[0]), frames.hidden[0, :count], ctc)
