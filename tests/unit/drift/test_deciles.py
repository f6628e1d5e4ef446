import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.drift.deciles import decile_places, joined, scores_at, sources_in, wanted_places

ROWS = st.lists(st.tuples(st.sampled_from("xyz"), st.floats(-3, 1)), min_size=1, max_size=60)


@given(ROWS, st.lists(st.integers(0, 60), max_size=3))
def test_deciles_of_parts_are_those_of_the_whole(rows, cuts):
    rows = sorted(rows, key=lambda row: -row[1])
    table = pa.table(
        {"source": [row[0] for row in rows], "score": pa.array([row[1] for row in rows], pa.float64())}
    )
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [table.slice(a, b - a) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    wanted = wanted_places([sources_in(part) for part in parts])
    found = joined([scores_at(part, places) for part, places in zip(parts, wanted, strict=True)])
    for source in {row[0] for row in rows}:
        values = [score for name, score in rows if name == source]
        assert np.allclose(found[source], np.percentile(values, range(0, 101, 10), method="higher"), atol=0)
    assert set(found) == {row[0] for row in rows}


def test_of_one_row_all_deciles_are_that_row():
    assert decile_places(1) == [0] * 11
    assert decile_places(11) == list(range(11))


def test_a_run_without_ranked_rows_has_no_deciles():
    empty = pa.table({"source": pa.array([], pa.string()), "score": pa.array([], pa.float64())})
    assert wanted_places([sources_in(empty)]) == [{}]
    assert joined([scores_at(empty, {})]) == {}
