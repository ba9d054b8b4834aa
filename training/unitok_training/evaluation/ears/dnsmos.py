"""DNSMOS (Reddy et al. 2022, P.835): estimated opinion of the overall quality, without a reference.

The network hears 9.01 s; shorter recordings are repeated, of longer ones the windows that begin at every second are
averaged. Its raw answer goes through the polynomial that it was published with.

N recordings, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok_tokenizers.errors import InputError

SAMPLE_RATE = 16000
WINDOW = int(9.01 * SAMPLE_RATE)
OVERALL = (-0.06766283, 1.11546468, 0.04602535)
"""Coefficients of the overall score, highest power first."""


@dataclass
class Dnsmos:
    """A `QualityModel`."""

    session: Any
    """`onnxruntime.InferenceSession` of `sig_bak_ovr.onnx`."""
    sample_rate: int = SAMPLE_RATE
    """Hz of the samples that it takes."""

    @staticmethod
    def load(file: Path | str) -> Dnsmos:
        """Read `sig_bak_ovr.onnx`; InputError where onnxruntime or the file is missing, or the file is another."""
        if not Path(file).is_file():
            raise InputError(f"no quality model {file}; it is in the package speechmos: make install-real")
        try:
            import onnxruntime
        except ImportError:
            raise InputError("DNSMOS needs the package onnxruntime: make install-real") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            inputs, outputs = session.get_inputs(), session.get_outputs()
        except Exception as error:  # onnxruntime's own errors have no common class
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{file} is no ONNX model that can be read ({reason}); install speechmos again") from error
        if [one.name for one in inputs] != ["input_1"] or len(outputs) != 1:
            raise InputError(f"{file} is not DNSMOS (sig_bak_ovr.onnx): it has other inputs; install speechmos again")
        return Dnsmos(session)

    def rate(self, recordings: Sequence[np.ndarray]) -> np.ndarray:
        """As `QualityModel.rate`."""
        return np.array([self._rate(np.asarray(samples, dtype=np.float32)) for samples in recordings])

    def _rate(self, samples: np.ndarray) -> float:
        if not len(samples):
            return float("nan")
        samples = np.clip(samples, -1.0, 1.0)
        while len(samples) < WINDOW:
            samples = np.concatenate([samples, samples])
        count = int(len(samples) // SAMPLE_RATE - WINDOW / SAMPLE_RATE) + 1  # speechmos counts whole seconds
        windows = [samples[None, at : at + WINDOW] for at in range(0, count * SAMPLE_RATE, SAMPLE_RATE)]
        raw = [self.session.run(None, {"input_1": window})[0][0][2] for window in windows]
        return float(np.polyval(OVERALL, np.array(raw, dtype=np.float64)).mean())
