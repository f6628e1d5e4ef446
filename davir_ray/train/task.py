"""What Ray Train hands to its workers. Light, because Ray's controller loads it too and needs no trainer."""

from dataclasses import dataclass
from typing import Any

from davir_ray.config import ModelConfig, TrainConfig


@dataclass(frozen=True)
class TrainTask:
    """Everything that a worker needs.

    base: what is trained; identity: its content, as the driver saw it. folder: the run's; rows, and eval_rows where
    something is held out, lie in it, and the model goes there. max_length: of a packed sequence. keeps_epochs: each
    epoch leaves its adapter with the optimiser's moments.
    """

    train: TrainConfig
    base: ModelConfig
    identity: str
    folder: str
    evaluates: bool
    device: str
    max_length: int
    keeps_epochs: bool


def train_worker(config: dict[str, Any]) -> None:
    """Train; the entry point that Ray Train calls in every worker, with a `TrainTask` under `task`."""
    from davir_ray.train.ray_worker import work

    work(config["task"])
