"""Small files of JSON objects, one a line; a file is written anew as a whole."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from davir_ray import storage
from davir_ray.errors import DamagedPart


def read_lines(uri: str) -> list[dict[str, Any]]:
    """Read the objects of a file; one that is not there has none, and a torn last line is dropped.

    Raises `DamagedPart` for any other line that is no JSON object.
    """
    if not storage.exists(uri):
        return []
    *lines, last = storage.read_bytes(uri).split(b"\n")
    objects = [_object(uri, number, line) for number, line in enumerate(lines, 1)]
    try:
        return [*objects, *([_object(uri, len(lines) + 1, last)] if last else [])]
    except DamagedPart:
        return objects


def _object(uri: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        one = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DamagedPart(uri, f"line {number} is not JSON: {error}") from error
    if not isinstance(one, dict):
        raise DamagedPart(uri, f"line {number} is no JSON object: {line[:40]!r}")
    return one


def write_lines(uri: str, objects: Iterable[Mapping[str, Any]]) -> None:
    """Write a file that holds these objects and no others."""
    storage.write_atomic(uri, "".join(json.dumps(one) + "\n" for one in objects).encode())
