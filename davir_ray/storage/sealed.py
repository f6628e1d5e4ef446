"""Small JSON files that tell whether they are what was written: a digest of all the rest is in them, as `seal`.

It covers the names of the file and of its folder, too: a file of another run does not pass for one of this.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from davir_ray import storage
from davir_ray.errors import DamagedPart

SEAL = "seal"


def write_sealed(uri: str, tree: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal."""
    storage.write_atomic(uri, json.dumps({**tree, SEAL: _seal_of(uri, tree)}, indent=2).encode())


def read_sealed(uri: str, *keys: str) -> dict[str, Any]:
    """Read a sealed object that has these keys, without the seal.

    Raises `DamagedPart`; `FileNotFoundError` where there is none.
    """
    tree = read_object(uri)
    if tree.pop(SEAL, None) != _seal_of(uri, tree):
        raise DamagedPart(uri, "is not what was written there: its seal does not fit")
    if absent := [key for key in keys if key not in tree]:
        raise DamagedPart(uri, f"has no {absent[0]}: another kind of file has its name")
    return tree


def read_object(uri: str) -> dict[str, Any]:
    """Read a JSON object. Raises `DamagedPart`; `FileNotFoundError` where there is none."""
    try:
        tree = json.loads(storage.read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise DamagedPart(uri, f"is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise DamagedPart(uri, f"is no JSON object but a {type(tree).__name__}")
    return tree


def _seal_of(uri: str, tree: Mapping[str, Any]) -> str:
    written = json.loads(json.dumps(tree))  # as it comes back: keys are text
    text = json.dumps([uri.split("/")[-2:], written], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()
