"""The process that writes checkpoints beside training: it imports no torch and starts at once.

`python -m unitok_training.checkpoint.writer FD PARENT` is that process. It reads a JSON line per checkpoint from its
input, the tensors from the shared memory behind the file descriptor FD, and answers with a JSON line. It ends with its
input, or at once when the process PARENT is killed: what it was writing then never gets its final name.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.files import Plain, write_checkpoint
from unitok_training.checkpoint.shard_files import Share, write_share

PARENT_DIES = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def write(folder: Path, parts: Mapping[str, Mapping[str, Plain]], request: Mapping[str, Any]) -> None:
    """Write what a request asks for: its "state", "step" and "keep", and where it is one process's its "share"."""
    state, step, keep = request["state"], request["step"], request["keep"]
    if request["share"] is None:
        write_checkpoint(folder, parts, state, step=step, keep=keep)
    else:
        write_share(folder, parts, state, step=step, keep=keep, share=Share(**request["share"]))


def serve(handle: int) -> None:
    """Write what is asked for on standard input until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            memory = np.frombuffer(mmap.mmap(handle, request["size"], access=mmap.ACCESS_READ), np.uint8)
            parts = {
                part: {name: Plain(dtype, shape, memory[start:end]) for name, dtype, shape, start, end in tensors}
                for part, tensors in request["parts"].items()
            }
            write(Path(request["folder"]), parts, request)
            answer = {"error": ""}
        except (InputError, OSError) as error:
            answer = {"error": str(error)}
        except Exception:  # told to the process that asked, which raises it
            answer = {"error": "", "defect": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def die_with(parent: int) -> None:
    """Be killed when the process that started this one is (Linux; elsewhere the end of the input has to do)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    for one in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a job: training saves, then ends this one
        signal.signal(one, signal.SIG_IGN)
    die_with(int(sys.argv[2]))
    serve(int(sys.argv[1]))
