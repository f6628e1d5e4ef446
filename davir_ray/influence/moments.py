"""The optimiser's moments beside the adapter of a warm-up checkpoint, by the names of its parameters.

<checkpoint>/adapter_model.safetensors   the parameters, as PEFT saves them
<checkpoint>/moments.safetensors         `exp_avg.<name>` and `exp_avg_sq.<name>` of each, float32
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from davir_ray.errors import ModelError
from davir_ray.models.adapter import MOMENTS, WEIGHTS
from davir_ray.models.safetensors_header import tensor_shapes

if TYPE_CHECKING:
    from torch import Tensor

FIRST, SECOND = "exp_avg", "exp_avg_sq"


@dataclass(frozen=True)
class Moments:
    """Adam's moments by parameter, after the last step of an epoch.

    learning_rate: the mean of the epoch. epoch: from 1. step: the last one.
    """

    first: "Mapping[str, Tensor]"
    second: "Mapping[str, Tensor]"
    learning_rate: float
    epoch: int
    step: int


def write_moments(folder: str | Path, moments: Moments) -> None:
    """Write moments beside an adapter."""
    from safetensors.torch import save_file

    tensors = {f"{FIRST}.{name}": value for name, value in moments.first.items()}
    tensors |= {f"{SECOND}.{name}": value for name, value in moments.second.items()}
    told = {name: str(getattr(moments, name)) for name in ("learning_rate", "epoch", "step")}
    save_file(
        {name: value.float().cpu().contiguous() for name, value in tensors.items()},
        Path(folder, MOMENTS),
        told,
    )


def read_moments(folder: str | Path) -> Moments:
    """Read the moments beside an adapter. Raises `ModelError` where they do not fit its parameters."""
    from safetensors.torch import load_file

    check_moments(Path(folder))
    found = load_file(Path(folder, MOMENTS))
    first, second = (
        {name.removeprefix(f"{part}."): value for name, value in found.items() if name.startswith(f"{part}.")}
        for part in (FIRST, SECOND)
    )
    told = _told(folder)
    return Moments(first, second, float(told["learning_rate"]), int(told["epoch"]), int(told["step"]))


def learning_rate_of(folder: str | Path) -> float:
    """Read the mean learning rate of a checkpoint's epoch, by which it counts. Raises `ModelError`."""
    return float(_told(folder)["learning_rate"])


def _told(folder: str | Path) -> Mapping[str, str]:
    file = Path(folder, MOMENTS)
    if not file.is_file():
        raise ModelError(
            f"{folder}: has no {MOMENTS}; expected a checkpoint that a warm-up left (`davir reference`)"
        )
    with safe_open(file, framework="np") as opened:
        told = opened.metadata() or {}
    if missing := {"learning_rate", "epoch", "step"} - told.keys():
        raise ModelError(f"{file}: does not say {', '.join(sorted(missing))} in its metadata")
    return told


def check_moments(folder: Path) -> None:
    """Check that a folder has moments for its adapter's parameters, by name and shape. Raises `ModelError`."""
    _told(folder)
    parameters, moments = tensor_shapes(folder / WEIGHTS), tensor_shapes(folder / MOMENTS)
    for name, shape in parameters.items():
        for part in (FIRST, SECOND):
            found = moments.get(f"{part}.{name}")
            if found != shape:
                raise ModelError(
                    f"{folder / MOMENTS}: {part} of {name} is {found or 'not there'}; the adapter has {list(shape)}"
                )
