"""The order of rows in an epoch, so that a training that is resumed goes on with the rows that it had not seen."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochOrder(Sampler[int]):
    """Rows grouped by length, in an order that follows from the seed and the epoch alone.

    By itself the sampler of transformers draws from the generator of the process, which stands elsewhere after a
    resumption: some rows would come twice in that epoch and others not at all. The epoch is asked for when it begins,
    because with several workers accelerate's `set_epoch` does not reach this sampler.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int, epoch: Callable[[], int]) -> None:
        self.sampler = sampler
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        self.sampler.generator = torch.Generator().manual_seed(self.seed + self.epoch())
        return iter(self.sampler)


class ResumableOrder:
    """Gives a trainer of transformers an `EpochOrder` where it groups by length."""

    args: Any
    state: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        return EpochOrder(sampler, self.args.seed, lambda: int(self.state.epoch or 0))
