"""The table that a run ends with."""

from davir_ray.observe.closing import record_lines

RECORD = {
    "run_id": "one-1",
    "run_dir": "runs/one-1",
    "seconds": 2.5,
    "rows": 12,
    "ranked": 12,
    "status": {"ok": 12},
    "measured": {"base": 9, "reference": 12},
    "measured_again": {"base": 4, "reference": 0},
    "reused": {"base": 3, "reference": 0},
    "engine": {"type": "vllm"},
    "selected": 3,
    "tokens": 30,
    "sources": {},
    "score": "davir",
    "length_correlation": None,
    "best": [],
    "borderline": [],
    "worst": [],
    "scored": "runs/one-1/scored",
    "coreset": {},
}


def test_what_was_begun_again_is_told_where_there_was_any():
    lines = list(record_lines(RECORD))
    assert "measured  base: 9 sequences; 3 were in the store; 4 begun again" in lines
    assert "measured  reference: 12 sequences; 0 were in the store" in lines
