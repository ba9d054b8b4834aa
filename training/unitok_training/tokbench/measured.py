"""What a measurement says where it has nothing to measure."""

from __future__ import annotations


class NotMeasured(Exception):
    """Carries the reason, for people; the table shows a dash, and the reason below."""
