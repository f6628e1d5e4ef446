"""What a training logged, as a file of its run: one JSON object a line, from the first step on."""

import json
from typing import Any

from davir_ray import storage

METRICS = "metrics.jsonl"


def write_metrics(folder: str, entries: list[dict[str, Any]]) -> None:
    """Write the file anew."""
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    storage.write_atomic(storage.join(folder, METRICS), lines.encode())


def read_metrics(folder: str) -> list[dict[str, Any]]:
    """Read what was logged; nothing before the first step."""
    uri = storage.join(folder, METRICS)
    if not storage.exists(uri):
        return []
    return [json.loads(line) for line in storage.read_bytes(uri).decode().splitlines()]
