"""How commands show the stages of a pipeline that run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitok_training.runs.stage_progress import Display


def shown_stages(*, stderr: bool = False) -> tuple[Callable[[str], None], Display | None]:
    """(what takes lines, what shows the stages of a pipeline: bars on a terminal, None for lines)."""
    from rich.console import Console

    from unitok_training.runs.stage_progress import BarDisplay

    console = Console(highlight=False, stderr=stderr)

    def say(line: str) -> None:
        console.print(f"[{time.strftime('%H:%M:%S')}] {line}", markup=False, soft_wrap=True)

    return say, BarDisplay() if console.is_terminal else None
