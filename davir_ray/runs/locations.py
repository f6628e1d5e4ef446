"""Where each row of a run's corpus was: kept with the run, so that a later one can tell changed rows from new ones.

<run>/places.json    {"prepared": folder, "splits": [[path, first row, part], ...]}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from davir_ray.corpus.split import Split
from davir_ray.errors import DamagedPart
from davir_ray.ids import Keys, find, keys_of
from davir_ray.progress import warn
from davir_ray.runs.run import Run
from davir_ray.storage.layout import RunLayout
from davir_ray.storage.sealed import read_sealed, write_sealed
from davir_ray.store.prepared import Prepared

ABSENT = b""
"""Stands for the content of a place that held no row."""


@dataclass(frozen=True)
class Places:
    """The rows of a corpus by file and row. splits: file and first row of each split."""

    prepared: Prepared
    splits: tuple[tuple[str, int], ...]

    def contents(self, path: str, rows: NDArray[np.int64]) -> Keys:
        """Return the example id that stood in each row of a file [N]; `ABSENT` where there was none."""
        contents = np.full(len(rows), ABSENT, dtype="S16")
        for split in self._overlapping(path, rows):
            examples = self.prepared.examples(split)
            order = np.argsort(there := examples["row"].to_numpy(), kind="stable")
            index = find(rows, there[order])
            inside = index >= 0
            contents[inside] = keys_of(examples["example_id"])[order][index[inside]]
        return contents

    def split_of(self, path: str, row: int) -> int:
        """Return the split that a row of a file is in. Raises `DamagedPart` if none is."""
        for split in self._overlapping(path, np.array([row])):
            return split
        raise DamagedPart(RunLayout.places, f"has no place for row {row} of {path}")

    def _overlapping(self, path: str, rows: NDArray[np.int64]) -> list[int]:
        """List the splits of a file that may hold one of these rows."""
        starts = sorted((first, split) for split, (name, first) in enumerate(self.splits) if name == path)
        return [
            split
            for (first, split), (end, _) in pairwise([*starts, (np.iinfo(np.int64).max, -1)])
            if ((rows >= first) & (rows < end)).any()
        ]


def write_places(run: Run, prepared: Prepared, splits: Sequence[Split]) -> None:
    """Keep where the rows of a run are."""
    named = [[one.path, one.first_row, part] for one, part in zip(splits, prepared.parts, strict=True)]
    tree = {"prepared": prepared.folder, "splits": named}
    write_sealed(run.paths.places, tree)


def read_places(run_dir: str) -> Places | None:
    """Read where the rows of a run were; None if that is not known any more."""
    try:
        tree = read_sealed(RunLayout(run_dir).places, "prepared", "splits")
    except FileNotFoundError:
        return None
    except DamagedPart as damage:
        warn(f"{damage}; changed rows are told of as new ones")
        return None
    splits = tuple((path, first) for path, first, _ in tree["splits"])
    prepared = Prepared(tree["prepared"], tuple(part for _, _, part in tree["splits"]))
    places = Places(prepared, splits)
    return places if places.prepared.done() >= set(range(len(splits))) else None
