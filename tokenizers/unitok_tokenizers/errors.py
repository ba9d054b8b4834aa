"""The one exception that a user's input can cause, and what is said of a package that is not there."""

from __future__ import annotations

EXTRAS = {
    "jiwer": "eval",
    "sacrebleu": "eval",
    "transformers": "hf",
    "tokenizers": "hf",
    "datasets": "data",
    "espeakng_loader": "demo",
}
"""Optional package → the extra that brings it."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message says what is wrong, where, the value found and the remedy. The command line prints it alone and exits
    with code 2; everything else that is raised is a defect of the package and keeps its traceback.
    """


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Which optional package is missing and how it comes; None where it is none of them."""
    extra = EXTRAS.get((error.name or "").partition(".")[0])
    return None if extra is None else f"needs {error.name}: pip install 'unitok[{extra}]'"
