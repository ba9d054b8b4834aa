"""Which class of prosody a recording is spoken in, learned from labelled ones: the estimator behind style tokens.

A recording is the means and deviations of what `prosody.style` measures of each of its seconds.

S samples, N recordings, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.encoders.pitch import SAMPLE_RATE
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.prosody.contour import contour
from unitok_tokenizers.prosody.style import window_statistics

RIDGE = 0.1
"""Weight of the classifier's penalty, for each recording that it learns from."""


def manner(samples: np.ndarray, rate: int) -> np.ndarray:
    """(S,) float32 at `rate` Hz → (D,) float64."""
    found = window_statistics(contour(resample(samples, rate, SAMPLE_RATE)))
    return np.concatenate([found.mean(0), found.std(0)])


@dataclass(frozen=True, kw_only=True, eq=False)
class MannerClassifier:
    """A linear classifier, fitted by ridge regression."""

    classes: tuple[str, ...]
    """Names, sorted."""
    mean: np.ndarray
    """(D,) of the features that it learned from."""
    deviation: np.ndarray
    """(D,) of them; infinite where one never varied."""
    weights: np.ndarray
    """(D, C)."""
    center: np.ndarray
    """(C,) share of each class."""

    @staticmethod
    def fit(features: np.ndarray, labels: Sequence[str]) -> MannerClassifier:
        """Of features (N, D) and their classes. InputError for one class."""
        classes = tuple(sorted(set(labels)))
        if len(classes) < 2:
            raise InputError(f"recordings of one class of prosody ({', '.join(classes) or 'none'}) teach no classifier")
        mean, deviation = features.mean(0), features.std(0)
        deviation = np.where(deviation > 1e-6, deviation, np.inf)
        inputs = (features - mean) / deviation
        wanted = np.eye(len(classes))[[classes.index(label) for label in labels]]
        center = wanted.mean(0)
        penalty = RIDGE * len(inputs) * np.eye(inputs.shape[1])
        weights = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ (wanted - center))
        return MannerClassifier(classes=classes, mean=mean, deviation=deviation, weights=weights, center=center)

    def predict(self, features: np.ndarray) -> list[str]:
        """Classes of features (N, D)."""
        scores = (features - self.mean) / self.deviation @ self.weights + self.center
        return [self.classes[int(one)] for one in scores.argmax(1)]
