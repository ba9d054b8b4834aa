"""The step of one sequence on a processor as one compiled function: `cpu_kernel.cpp`, built by the system's compiler.

Of a batch's step it is the attention, which reads what each sequence has filled and not the longest's positions of all.

B sequences, H query heads, G key/value heads, D head size, S cache positions, C width, V vocabulary, O outputs and I
inputs of a matrix.

Torch's operations leave half of such a step to their starts and ends, and its matrix products read a plain bfloat16
matrix at half the rate of memory. The compiler takes some two seconds, once for a machine: what it made is kept. It
knows nothing of the decoder's shape, so that every model uses the same file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from unitok.decoder.kv_cache import KVCache
from unitok.decoder.model import Block, Decoder, FeedForward
from unitok_tokenizers.compute import find_compiler

SOURCE = Path(__file__).with_name("cpu_kernel.cpp")
FLAGS = ("-std=c++17", "-O3", "-funroll-loops", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
NATIVE = ("-march=native", "-mprefer-vector-width=512")
"""Left out where a compiler does not know them."""
WITHOUT_AVX512 = "-mno-avx512f"
"""For a processor that torch's own kernels take for one without, by its nature or by $ATEN_CPU_CAPABILITY."""
LONGEST_HEAD = 1024
"""Head size that `cpu_kernel.cpp` has room for."""
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class _Matrix(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("scales", ctypes.c_void_p), ("bias", ctypes.c_void_p),
                ("rows", ctypes.c_int64), ("columns", ctypes.c_int64)]  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = [("norm", ctypes.c_void_p), ("q_norm", ctypes.c_void_p), ("k_norm", ctypes.c_void_p),
                ("feed_norm", ctypes.c_void_p), ("qkv", _Matrix), ("out", _Matrix), ("gate_up", _Matrix),
                ("down", _Matrix)]  # fmt: skip


class _Decoder(ctypes.Structure):
    _fields_ = [("layers", ctypes.c_void_p), ("embedding", ctypes.c_void_p), ("norm", ctypes.c_void_p),
                ("frequencies", ctypes.c_void_p), ("count", ctypes.c_int64), ("heads", ctypes.c_int64),
                ("kv_heads", ctypes.c_int64), ("size", ctypes.c_int64), ("eps", ctypes.c_float)]  # fmt: skip


class _Heads(ctypes.Structure):
    _fields_ = [("q_norm", ctypes.c_void_p), ("k_norm", ctypes.c_void_p), ("heads", ctypes.c_int64),
                ("kv_heads", ctypes.c_int64), ("size", ctypes.c_int64), ("eps", ctypes.c_float)]  # fmt: skip


class _Cache(ctypes.Structure):
    _fields_ = [("kv", ctypes.c_void_p), ("layer_stride", ctypes.c_int64), ("head_stride", ctypes.c_int64)]


def folder() -> Path:
    """Where compiled files are kept: `unitok` in $XDG_CACHE_HOME, ~/.cache by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unitok"


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled functions, compiled now if they are not kept; None where there is no compiler that can."""
    compiler = find_compiler()
    if compiler is None:
        return None
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = (SOURCE.read_text(encoding="utf-8"), *FLAGS, *for_processor(), version, platform.machine(), processor())
    kept = folder() / f"step-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    try:
        if not kept.exists():
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # others must not write what is run
            if not compile_to(kept, compiler):
                return None
        return ctypes.CDLL(str(kept))
    except OSError:  # a folder that cannot be written, or a file that this system does not load
        return None


def compile_to(path: Path, compiler: str) -> bool:
    """Compile `cpu_kernel.cpp` for this processor into a library, whole or not at all; says whether it worked."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        native = for_processor()
        for extra in (native, [flag for flag in native if "prefer" not in flag], ()):
            command = [compiler, *FLAGS, *extra, str(SOURCE), "-o", str(made)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                made.replace(path)
                return True
    return False


def for_processor() -> list[str]:
    """Flags for this processor, or for the lesser one that torch is held to."""
    intel = platform.machine().lower() in ("x86_64", "amd64")
    lesser = intel and torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT")
    return [*NATIVE, *([WITHOUT_AVX512] if lesser else [])]


def processor() -> str:
    """What this processor can do, as the system tells it: code for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def usable(decoder: Decoder) -> bool:
    """Whether a decoder that a `Stepper` can step lies where the compiled step reads it: on a processor, in order.

    Head sizes that nobody uses are left out too.
    """
    values = list(decoder.parameters())
    return decoder.config.head_dim <= LONGEST_HEAD and all(
        value.device.type == "cpu" and value.dtype in NAMES and value.is_contiguous() for value in values
    )


Weight = tuple[Tensor, Tensor | None]
"""A matrix (O, I), and the scales (O,) of its rows where it is int8."""


class NativeStep:
    """A decoder's step of one sequence. Matrices are read where they lie, norms and biases are copied as float32.

    Args:
        decoder: what is to be computed; `usable`.
        functions: `library()`.
        matrices: qkv, out, gate_up and down of every block in turn, and the head at the end.
    """

    def __init__(self, decoder: Decoder, functions: ctypes.CDLL, matrices: Sequence[Weight]) -> None:
        self.keep: list[object] = [decoder]
        """What the structures point into."""
        config, dtype = decoder.config, NAMES[decoder.norm.dtype]
        rest = iter(matrices)
        layers = [self._layer(block, rest) for block in decoder.blocks if isinstance(block, Block)]
        (weight, scales) = head = next(rest)
        self.step = getattr(functions, f"step_{dtype}" if scales is None else f"step_int8_{dtype}")
        self.linear = getattr(functions, f"linear_{dtype}" if scales is None else "linear_int8")
        self.head, self.layers = self._matrix(head, None), (_Layer * len(layers))(*layers)
        self.decoder = _Decoder(
            ctypes.addressof(self.layers), decoder.embedding.data_ptr(), self._floats(decoder.norm),
            self._floats(decoder.frequencies), config.layers, config.heads, config.kv_heads, config.head_dim,
            config.norm_eps,
        )  # fmt: skip
        self.width, self.rows, self.dtype = config.width, len(weight), decoder.norm.dtype
        self.attention = getattr(functions, f"attention_{dtype}")
        self.heads = [
            _Heads(layer.q_norm, layer.k_norm, config.heads, config.kv_heads, config.head_dim, config.norm_eps)
            for layer in self.layers
        ]

    def _layer(self, block: Block, matrices: Iterator[Weight]) -> _Layer:
        feed = block.feed_forward
        assert isinstance(feed, FeedForward)
        return _Layer(
            self._floats(block.norm), self._floats(block.q_norm), self._floats(block.k_norm), self._floats(feed.norm),
            self._matrix(next(matrices), block.qkv_bias), self._matrix(next(matrices), block.out_bias),
            self._matrix(next(matrices), None), self._matrix(next(matrices), None),
        )  # fmt: skip

    def _floats(self, value: Tensor | None) -> int | None:
        """Address of a vector's numbers in float32; None stays None."""
        if value is None:
            return None
        kept = value.detach().float().contiguous()
        self.keep.append(kept)
        return kept.data_ptr()

    def _matrix(self, value: Weight, bias: Tensor | None) -> _Matrix:
        weight, scales = value
        self.keep.append(weight)
        return _Matrix(weight.data_ptr(), self._floats(scales), self._floats(bias), *weight.shape)

    def __call__(self, token: int | Tensor, cache: KVCache, position: int) -> Tensor:
        """Append an id to the only sequence in a cache, at `position`; returns its hidden state (1, C), float32.

        A vector (1, C) in the place of the id is read instead of an embedding row.
        """
        hidden = torch.empty(1, self.width, device="cpu")
        kv = cache.kv
        there = _Cache(kv.data_ptr(), kv.stride(0), kv.stride(2))
        if isinstance(token, Tensor):
            entering = token.to(self.dtype).contiguous()
            decoder, row = _Decoder.from_buffer_copy(self.decoder), 0  # row 0 of a table of one row
            decoder.embedding = entering.data_ptr()
        else:
            decoder, row = self.decoder, token
        self.step(
            ctypes.byref(decoder), ctypes.byref(there), ctypes.c_int64(row), ctypes.c_int64(position),
            torch.get_num_threads(), ctypes.c_void_p(hidden.data_ptr()),
        )  # fmt: skip
        return hidden

    def attend(self, layer: int, joint: Tensor, own: Tensor, lengths: Tensor, turns: Tensor) -> Tensor:
        """Append a position to every sequence of a layer's cache, and attend: (B, H + 2G, D) → (B, H · D).

        joint: queries, keys and values as the matrix yields them; own (B, 2G, S, D) the layer's cache; lengths (B,)
        int64 what of it is filled; turns (S, D) float32 cosines before sines of every position.
        """
        mixed = joint.new_empty(len(joint), self.heads[layer].heads * joint.shape[-1])
        assert joint.is_contiguous() and turns.is_contiguous() and lengths.is_contiguous()
        self.attention(
            ctypes.byref(self.heads[layer]), ctypes.c_void_p(own.data_ptr()), ctypes.c_int64(own.stride(0)),
            ctypes.c_int64(own.stride(1)), ctypes.c_int64(len(joint)), ctypes.c_void_p(lengths.data_ptr()),
            ctypes.c_void_p(turns.data_ptr()), ctypes.c_void_p(joint.data_ptr()), torch.get_num_threads(),
            ctypes.c_void_p(mixed.data_ptr()),
        )  # fmt: skip
        return mixed

    def logits(self, hidden: Tensor) -> Tensor:
        """(1, C) → (1, V), float32."""
        hidden = hidden.float().contiguous()
        out = torch.empty(1, self.rows, device="cpu")
        self.linear(
            ctypes.byref(self.head), ctypes.c_void_p(hidden.data_ptr()), torch.get_num_threads(),
            ctypes.c_void_p(out.data_ptr()),
        )  # fmt: skip
        return out
