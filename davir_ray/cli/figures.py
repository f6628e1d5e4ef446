"""Numbers as people write them."""

from typing import Any


def as_written(value: Any) -> str:
    """Return a setting as text; of a float the twelve leading digits, so that what was computed reads as typed."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)
