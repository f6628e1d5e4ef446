"""The shapes of the tensors of a safetensors file, read from its header without loading it."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from davir_ray.errors import ModelError

Shapes = dict[str, list[int]]


def tensor_shapes(path: Path) -> Shapes:
    """Map each tensor's name to its shape. Raises `ModelError` for a file that is cut off or something else."""
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path}: is cut off, or is not a safetensors file ({error})") from error
