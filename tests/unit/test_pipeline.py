"""What a record tells of measuring."""

import pyarrow as pa

from davir_ray.job import counts
from davir_ray.measure.ray_measure import Plan


def test_what_was_begun_again_is_summed_over_all_starts_of_a_run():
    plans = {"base": Plan(12, 9, 90, pa.table({})), "reference": Plan(12, 12, 120, pa.table({}))}
    events = [
        {"event": "measure", "role": "base", "again": 0},
        {"event": "measure", "role": "base", "again": 4},  # the next start, which found a chunk of 4 begun
        {"event": "measured", "role": "base", "again": 2},
        {"event": "measure", "role": "reference", "again": 0},
        {"event": "measured", "role": "reference", "again": 0},
        {"event": "rank", "rows": 12},
    ]
    assert counts(plans, events) == {
        "measured": {"base": 9, "reference": 12},
        "measured_again": {"base": 6, "reference": 0},
        "reused": {"base": 3, "reference": 0},
    }
