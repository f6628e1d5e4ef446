"""Look for the rows of a target in a tokenised corpus: one task a split, and once for both."""

from collections.abc import Sequence
from hashlib import blake2b

import ray

from davir_ray.cluster.unexpected import stage
from davir_ray.corpus.listing import Listing
from davir_ray.corpus.split import Split
from davir_ray.errors import CorpusError, DamagedPart
from davir_ray.progress import warn
from davir_ray.runs.record import Overlaps
from davir_ray.storage.damage import set_aside
from davir_ray.storage.layout import PreparedLayout
from davir_ray.storage.sealed import read_sealed, write_sealed
from davir_ray.storage.typed import parsed
from davir_ray.store.prepared import Prepared
from davir_ray.target.overlap import Sought, overlaps_in, together
from davir_ray.target.rows import FewShot, FewShotRow


def overlaps_with(prepared: Prepared, listing: Listing, few_shot: FewShot, what: str) -> Overlaps:
    """Return which rows of a corpus are rows of the target too, and say so. what: the corpus in words.

    What was found before is read: looking takes a millisecond a row.
    """
    both = blake2b(f"{listing.digest} {few_shot.digest}".encode(), digest_size=16).hexdigest()
    found = _kept(uri := PreparedLayout(prepared.folder).overlaps_with(both))
    if found is None:
        found = find_overlaps(prepared, listing.splits, few_shot.rows)
        write_sealed(uri, found.tree())
    for one in found.named:
        alike = "nearly the same" if one.near else "the same"
        warn(f"target: {one.target} is {alike} row as {one.corpus} of {what}")
    return found


def _kept(uri: str) -> Overlaps | None:
    try:
        return parsed(Overlaps, read_sealed(uri), uri)
    except FileNotFoundError:
        return None
    except DamagedPart as damage:
        set_aside(damage)
        return None


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
