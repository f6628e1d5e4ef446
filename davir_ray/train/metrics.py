"""What a training logged, as a file of its run: one JSON object a line, from the first step on."""

from typing import Any

from davir_ray import storage
from davir_ray.storage.json_lines import read_lines, write_lines

METRICS = "metrics.jsonl"


def write_metrics(folder: str, entries: list[dict[str, Any]]) -> None:
    """Write the file anew."""
    write_lines(storage.join(folder, METRICS), entries)


def read_metrics(folder: str) -> list[dict[str, Any]]:
    """Read what was logged; nothing before the first step."""
    return read_lines(storage.join(folder, METRICS))
