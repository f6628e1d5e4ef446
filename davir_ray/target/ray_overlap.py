"""Look for the rows of a target in a tokenised corpus: one task a split."""

from collections.abc import Sequence

import ray

from davir_ray.cluster.unexpected import stage
from davir_ray.corpus.split import Split
from davir_ray.errors import CorpusError
from davir_ray.runs.record import Overlaps
from davir_ray.store.prepared import Prepared
from davir_ray.target.overlap import Sought, overlaps_in, together
from davir_ray.target.rows import FewShotRow


@stage(CorpusError)
def find_overlaps(prepared: Prepared, splits: Sequence[Split], rows: Sequence[FewShotRow]) -> Overlaps:
    """Return which rows of the corpus are rows of the target too. splits: those of `prepared`, in order."""
    task, shared = ray.remote(overlaps_of_split), ray.put(Sought.of(rows))
    refs = [task.remote(prepared, index, split.path, shared) for index, split in enumerate(splits)]
    return together(ray.get(refs))


def overlaps_of_split(prepared: Prepared, split: int, path: str, sought: Sought) -> Overlaps:
    """Return what one split has of a target."""
    tokens = prepared.tokens(split, ["example", "view", "sequence_id", "ids"])
    return overlaps_in(sought, path, prepared.examples(split), tokens)
