"""Look for the rows of a target in a tokenised corpus: one task a split, and once for both."""

from collections.abc import Sequence
from hashlib import blake2b

import ray

from davir_ray import storage
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

    What was found in a split before is read: looking takes a millisecond a row.
    """
    layout = PreparedLayout(prepared.folder)
    uris = [layout.overlaps_with(_both(digest, few_shot)) for digest in listing.digests]
    found = dict(enumerate(storage.concurrently(_kept, uris)))
    new = [index for index, one in found.items() if one is None]
    for index, one in find_overlaps(prepared, listing.splits, new, few_shot.rows).items():
        write_sealed(uris[index], one.tree())
        found[index] = one
    whole = together([one for one in found.values() if one is not None])
    _tell(whole, what)
    return whole


def _both(split: str, few_shot: FewShot) -> str:
    """Name a split and a target."""
    return blake2b(f"{split} {few_shot.digest}".encode(), digest_size=16).hexdigest()


def _tell(found: Overlaps, what: str) -> None:
    for one in found.named:
        alike = "nearly the same" if one.near else "the same"
        warn(f"target: {one.target} is {alike} row as {one.corpus} of {what}")


def _kept(uri: str) -> Overlaps | None:
    try:
        return parsed(Overlaps, read_sealed(uri), uri)
    except FileNotFoundError:
        return None
    except DamagedPart as damage:
        set_aside(damage)
        return None


@stage(CorpusError)
def find_overlaps(
    prepared: Prepared, splits: Sequence[Split], wanted: Sequence[int], rows: Sequence[FewShotRow]
) -> dict[int, Overlaps]:
    """Return what each of the wanted splits has of the target's rows. splits: those of `prepared`, in order."""
    if not wanted:
        return {}
    task, shared = ray.remote(overlaps_of_split), ray.put(Sought.of(rows))
    refs = [task.remote(prepared, index, splits[index].path, shared) for index in wanted]
    return dict(zip(wanted, ray.get(refs), strict=True))


def overlaps_of_split(prepared: Prepared, split: int, path: str, sought: Sought) -> Overlaps:
    """Return what one split has of a target."""
    tokens = prepared.tokens(split, ["example", "view", "sequence_id", "ids"])
    return overlaps_in(sought, path, prepared.examples(split), tokens)
