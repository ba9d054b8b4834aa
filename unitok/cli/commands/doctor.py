"""The command `doctor`: what is installed, what this machine computes with, and what would be faster."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES: Mapping[str, str] = {
    "torch": "",
    "numpy": "",
    "safetensors": "",
    "sentencepiece": "",
    "soundfile": "",
    "soxr": "",
    "pyarrow": "",
    "transformers": "hf",
    "tokenizers": "hf",
    "datasets": "data",
    "tensorboard": "train",
    "jiwer": "eval",
    "sacrebleu": "eval",
    "matplotlib": "eval",
    "espeakng-loader": "demo",
    "babel": "text",
    "unicode-rbnf": "text",
    "sentencex": "text",
    "pocketsphinx": "cascade",
    "einops": "codec",
    "scipy": "codec",
    "flash-attn": "flash",
}
"""Distribution → the extra that brings it; "" for what unitok cannot do without."""
GIB = 1 << 30


def add_commands(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="what is installed, what this machine offers, what would be faster")
    doctor.add_argument("--json", action="store_true", help="the same as JSON")
    doctor.set_defaults(run=run_doctor, continues=False)


def run_doctor(options: argparse.Namespace) -> None:
    found = examine()
    print(json.dumps(found, indent=2) if options.json else "\n".join(lines(found)))


def examine() -> dict[str, Any]:
    """Everything the command tells, as JSON. A part that cannot be found out is null."""
    import torch

    import unitok
    from unitok_tokenizers.compute import available_threads, bf16_units, find_compiler, resolve

    found: dict[str, Any] = {
        "unitok": unitok.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: installed(name) for name in PACKAGES},
        "attention": {"cpu": kernel("cpu")},
        "threads": {
            "used": torch.get_num_threads(),
            "available": available_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "memory": free_memory(),
        "bf16_units": bf16_units(),
        "compiler": find_compiler() is not None,
        "compute": resolve().to_json(),
        "torch_cuda": torch.version.cuda,
        "driver": shutil.which("nvidia-smi") is not None,
        "gpus": [],
    }
    if torch.cuda.is_available():
        found["attention"]["cuda"] = kernel("cuda")
        found["gpus"] = [gpu(index) for index in range(torch.cuda.device_count())]
    return found | {"faster": advice(found)}


def installed(name: str) -> str | None:
    """Version of a distribution, None where it is absent."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def kernel(device_type: str) -> str:
    """Name of the attention kernel that a device would use, or why there is none."""
    from unitok.decoder.attention import resolve

    try:
        return str(resolve(device_type).__name__)
    except (ImportError, OSError) as error:  # built for another torch or CUDA
        return f"does not load: {' '.join(str(error).split())}"


def free_memory() -> dict[str, int | None]:
    """{"free_bytes", "total_bytes"}: memory that can be had without swapping, as Linux estimates it."""
    table: dict[str, int] = {}
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            table[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return {"free_bytes": table.get("MemAvailable"), "total_bytes": table.get("MemTotal")}


def gpu(index: int) -> dict[str, Any]:
    """Name, memory and bfloat16 units of a GPU."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "free_bytes": free,
        "total_bytes": total,
        "bf16_units": properties.major >= 8,
    }


def advice(found: Mapping[str, Any]) -> list[str]:
    """What would be faster, most helpful first; empty where there is nothing to say."""
    tips = []
    threads = found["threads"]
    if found["driver"] and not found["torch_cuda"]:
        tips.append("there is an NVIDIA driver and torch is built for the processor alone: install a CUDA build")
    elif found["driver"] and not found["gpus"]:
        tips.append("there is an NVIDIA driver and torch sees no GPU: look at CUDA_VISIBLE_DEVICES and the driver")
    elif not found["gpus"]:
        tips.append("there is no GPU: `unitok cost demo --device h100` tells what one would change")
    elif found["packages"]["flash-attn"] is None:
        tips.append("flash-attention: pip install 'unitok[flash]' --no-build-isolation (torch's kernel is used now)")
    if not all(one["bf16_units"] for one in found["gpus"]):
        tips.append("a GPU without bfloat16 units: float32 is used, at a fraction of its half-precision rate")
    if not found["gpus"]:
        if threads["used"] < threads["available"]:
            tips.append(
                f"{threads['used']} of {threads['available']} processors are used: OMP_NUM_THREADS="
                f"{threads['available']}, and for `unitok demo` --threads {threads['available']}"
            )
        if not found["compiler"]:
            tips.append("there is no C++ compiler: with g++ or clang++, --set train.compile=true has an effect")
    return tips


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    rows = [("unitok", found["unitok"]), ("python", f"{found['python']}, {found['system']}")]
    for name, version in found["packages"].items():
        missing = f"absent: pip install 'unitok[{PACKAGES[name]}]'" if PACKAGES[name] else "absent: unitok needs it"
        rows.append((name, version or missing))
    rows += [(f"attention on {device}", name) for device, name in found["attention"].items()]
    threads, memory = found["threads"], found["memory"]
    rows.append(("threads", f"{threads['used']} of {threads['available']} processors"))
    rows.append(("free memory", f"{gib(memory['free_bytes'])} of {gib(memory['total_bytes'])}"))
    rows.append(("bfloat16 units", found["bf16_units"] or "unknown"))
    rows.append(("computes in", f"{found['compute']['precision']} on {found['compute']['device']}"))
    rows.append(("C++ compiler", "yes" if found["compiler"] else "none"))
    for one in found["gpus"]:
        rows.append(("GPU", f"{one['name']}, {gib(one['free_bytes'])} of {gib(one['total_bytes'])} free"))
    if not found["gpus"]:
        rows.append(("GPU", "none"))
    rows += [("faster" if not index else "", tip) for index, tip in enumerate(found["faster"])]
    width = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{width}}{value}" for name, value in rows]


def gib(size: int | None) -> str:
    """A size in GiB."""
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"
