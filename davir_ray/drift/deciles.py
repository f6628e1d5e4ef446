"""The spread of the scores of each source: the lowest, the nine deciles, the highest.

Tables come in rank order, so a decile is the row at a place, and is found by counting.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STEPS = 10
Wanted = Mapping[str, Sequence[int]]
"""Source -> places from 0, within the rows of that source in a part."""


def sources_in(table: pa.Table) -> Counter[str]:
    """Count the rows of each source."""
    counts = pc.value_counts(table["source"]).to_pylist()
    return Counter({one["values"]: one["counts"] for one in counts})


def wanted_places(counts: Sequence[Counter[str]]) -> list[dict[str, list[int]]]:
    """Say which rows of each part are wanted. counts: the rows of each part by source, in rank order."""
    total: Counter[str] = sum(counts, Counter())
    places = {source: decile_places(rows) for source, rows in total.items()}
    wanted, before = [], Counter[str]()
    for part in counts:
        wanted.append(
            {
                source: [
                    place - before[source] for place in places[source] if 0 <= place - before[source] < rows
                ]
                for source, rows in part.items()
            }
        )
        before += part
    return wanted


def decile_places(rows: int) -> list[int]:
    """Return the places of the first row, of the nine deciles and of the last row, from 0."""
    return [(rows - 1) * step // STEPS for step in range(STEPS + 1)]


def scores_at(table: pa.Table, wanted: Wanted) -> dict[str, list[float]]:
    """Return the scores at some places of each source."""
    return {
        source: np.asarray(table.filter(pc.equal(table["source"], source))["score"])[list(places)].tolist()
        for source, places in wanted.items()
    }


def joined(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Put the scores found in all parts together, lowest first."""
    sources = sorted({source for part in parts for source in part})
    return {source: sorted(value for part in parts for value in part.get(source, ())) for source in sources}
