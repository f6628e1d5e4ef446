import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from davir_ray.drift import ray_drift
from davir_ray.drift.causes import SIDE
from davir_ray.drift.ray_drift import match
from davir_ray.ids import column_of, keys_of, partition_of, split_table

ROWS = 400


def side(ids, rank, without):
    """Return a night's SIDE table; rows in `without` have no rank."""
    unranked = np.isin(np.arange(len(ids)), without)
    columns = {
        "example_id": column_of(ids),
        "rank": pa.array(rank, pa.int64(), mask=unranked),
        "selected": pa.array(~unranked),
    }
    rows = [columns.get(field.name, pa.nulls(len(ids), field.type)) for field in SIDE]
    return pa.table(rows, schema=SIDE)


@pytest.fixture
def nights():
    rng = np.random.default_rng(0)
    ids = np.frombuffer(rng.bytes(16 * ROWS), dtype="S16")
    before = side(ids[:350], rng.permutation(350) + 1, range(50, 70))
    after = side(ids[50:], rng.permutation(350) + 1, range(250, 300))
    return before, after


def sampled(nights, partitions, monkeypatch):
    monkeypatch.setattr(ray_drift.ray, "get", lambda table: table)
    dealt = [
        split_table(night, partition_of(keys_of(night["example_id"]), partitions), partitions)
        for night in nights
    ]
    found = [match(1, (), *pieces) for pieces in zip(*dealt, strict=True)]
    return sum(count for _, count, _ in found), ray_drift._sampled([table for _, _, table in found])


@pytest.mark.parametrize("rows", [1, 37, 1000])
def test_partitions_give_the_sample_of_the_lowest_ids_that_both_nights_ranked(nights, rows, monkeypatch):
    for module in ("davir_ray.coreset.rank_correlation", "davir_ray.drift.ray_drift"):
        monkeypatch.setattr(f"{module}.SAMPLE_ROWS", rows)
    ranks = [
        dict(zip(keys_of(one["example_id"]).tolist(), one["rank"].to_pylist(), strict=True)) for one in nights
    ]
    both = sorted(key for key in ranks[0] if ranks[0][key] and ranks[1].get(key))
    for partitions in (1, 3, 50):
        count, sample = sampled(nights, partitions, monkeypatch)
        assert count == len(both) == 230
        assert sample.keys.tolist() == both[:rows]
        if rows == 1:
            assert sample.correlation() is None
        else:
            expected = stats.spearmanr(*([night[key] for key in both[:rows]] for night in ranks)).statistic
            assert sample.correlation() == pytest.approx(expected, abs=1e-12)
