"""What a safetensors file holds, read from its header without loading it."""

import json
from pathlib import Path

from davir_ray.errors import ModelError

Shapes = dict[str, list[int]]


def tensor_shapes(path: Path) -> Shapes:
    """Map each tensor's name to its shape. Raises `ModelError` for a file that is cut off or something else.

    The layout: the header's length in 8 bytes, little-endian; the header as JSON; the tensors.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = dict(json.loads(file.read(length if length < size else 0)))
        entries.pop("__metadata__", None)
        shapes = {name: entry["shape"] for name, entry in entries.items()}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{path}: is not a safetensors file") from error
    if size != 8 + length + end:
        raise ModelError(f"{path}: is cut off: {size} bytes of {8 + length + end}")
    return shapes
