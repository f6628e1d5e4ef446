"""Small files of JSON objects, one a line; a file is written anew as a whole."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from davir_ray import storage


def read_lines(uri: str) -> list[dict[str, Any]]:
    """Read the objects of a file; a file that is not there has none."""
    if not storage.exists(uri):
        return []
    return [json.loads(line) for line in storage.read_bytes(uri).decode().splitlines()]


def write_lines(uri: str, objects: Iterable[Mapping[str, Any]]) -> None:
    """Write a file that holds these objects and no others."""
    storage.write_atomic(uri, "".join(json.dumps(one) + "\n" for one in objects).encode())
