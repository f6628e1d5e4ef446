"""What a training logged, as a file of its run: one JSON object a line, from the first step on."""

from typing import Any

from davir_ray.errors import DamagedPart
from davir_ray.progress import warn
from davir_ray.storage.json_lines import read_lines, write_lines
from davir_ray.storage.layout import RunLayout


def write_metrics(folder: str, entries: list[dict[str, Any]]) -> None:
    """Write the file anew."""
    write_lines(RunLayout(folder).metrics, entries)


def read_metrics(folder: str) -> list[dict[str, Any]]:
    """Read what was logged; nothing before the first step, or if the file is damaged, which is said."""
    try:
        return metrics_at(RunLayout(folder).metrics)
    except DamagedPart as damage:
        warn(f"{damage}; what was logged before now is forgotten")
        return []


def metrics_at(uri: str) -> list[dict[str, Any]]:
    """Read the entries of such a file; none where there is no file. Raises `DamagedPart`."""
    entries = read_lines(uri)
    for number, entry in enumerate(entries, 1):
        if not all(isinstance(entry.get(name), int) for name in ("step", "max_steps")):
            raise DamagedPart(uri, f"line {number} has no step: {str(entry)[:60]}")
    return entries
