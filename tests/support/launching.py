"""Start tests' scripts in several processes."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tools.soak import PRELOAD

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
"""After which a start counts as one that hangs."""
PATHS = [str(ROOT), *(str(ROOT / folder) for folder in ("tokenizers", "training", "vocoder"))]
RANKS = (*PRELOAD, "torch.distributed.fsdp", "unitok_training.trainer.decoder", "unitok_training.train_latent")
"""What processes have imported before they are forked."""


def torchrun(arguments: Sequence[str], processes: int) -> subprocess.CompletedProcess[str]:
    """A script, or `-m` and a module, with its arguments in so many processes of one thread each."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=SECONDS)


def ranks(arguments: Sequence[str], processes: int) -> subprocess.CompletedProcess[str]:
    """The same without torchrun, which imports torch once for itself and once a process: here processes are forked from
    one that has imported it, and are told what torchrun would tell them. All end when one fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(RANKS))
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        logs = [Path(folder) / str(rank) for rank in range(processes)]
        started = [
            context.Process(target=_rank, args=(list(arguments), rank, processes, port, str(log)))
            for rank, log in enumerate(logs)
        ]
        for process in started:
            process.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and any(one.exitcode is None for one in started):
            if any(one.exitcode for one in started):
                break
            time.sleep(0.02)
        for one in started:
            one.kill()
            one.join()
        codes = [one.exitcode or 0 for one in started]
        said, errors = (
            "".join(
                log.with_suffix(kind).read_text(encoding="utf-8", errors="replace")
                for log in logs
                if log.with_suffix(kind).exists()
            )
            for kind in (".out", ".err")
        )
    return subprocess.CompletedProcess(list(arguments), next(filter(None, codes), 0), said, errors)


def _rank(arguments: list[str], rank: int, processes: int, port: int, log: str) -> None:
    """Body of one process: a script or a module, its output in a file."""
    import torch

    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(PATHS),
    }  # fmt: skip
    torch.set_num_threads(1)
    code: object = 0
    try:
        module = arguments[0] == "-m"
        sys.argv = arguments[module:]
        if module:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def runs(process: int) -> bool:
    """Whether a process of this number is at work: one that ended and that nobody has waited for is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
