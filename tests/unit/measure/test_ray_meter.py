"""What a pass counts, without a cluster."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from davir_ray.measure import ray_meter
from davir_ray.measure.measurement import Plan, Work
from davir_ray.measure.ray_meter import COUNTED, Meter
from davir_ray.runs.events import ANY_EVENT

TODO = [{"sequences": 3, "tokens": 300}, {"sequences": 2, "tokens": 200}]


@pytest.fixture
def published(monkeypatch) -> list[tuple]:
    """What was handed to Ray."""
    calls: list[tuple] = []
    monkeypatch.setattr(ray_meter, "publish", lambda *call: calls.append(call))
    return calls


def chunk(sequences: int, tokens: int) -> dict[str, float]:
    return dict.fromkeys(COUNTED, 0) | {"sequences": sequences, "tokens": tokens, "engine_seconds": 1.25}


def meter(notes: list[dict], planned: Plan, todo=TODO) -> Meter:
    work = Work(SimpleNamespace(label="base"), planned, todo)
    return Meter("run-1", work, lambda **event: notes.append(event))


def test_what_is_counted_is_published_by_the_chunk_and_noted_with_its_sums(published):
    notes: list[dict] = []
    one = meter(notes, Plan(20, 5, 500, pa.table({})))
    assert published == [
        ("run-1", "base", {"missing_sequences": 5, "reuse_share": 0.75, "tokens_per_second": 0.0})
    ]
    one.add(chunk(3, 300))
    assert published[-1][2]["sequences"] == 3
    one.add(chunk(2, 200))
    assert published[-1][2]["sequences"] == 2  # Prometheus adds up what a counter is raised by
    assert published[-1][2]["missing_sequences"] == 0
    one.note()
    (noted,) = notes
    assert noted.items() >= {"role": "base", "sequences": 5, "tokens": 500, "engine_seconds": 2.5}.items()
    assert noted["tokens_per_second"] > 0
    ANY_EVENT.validate_python({"time": 0.0, "event": "progress", **noted})


def test_a_long_pass_is_noted_once_a_minute(published, monkeypatch):
    notes: list[dict] = []
    now = iter([0.0, 59.0, 61.0, 61.0, 62.0])
    monkeypatch.setattr(ray_meter, "monotonic", lambda: next(now))
    one = meter(notes, Plan(5, 5, 500, pa.table({})))
    for sequences in (1, 2, 1):
        one.add(chunk(sequences, 100))
    assert [noted["sequences"] for noted in notes] == [3]


def test_where_nothing_is_asked_for_all_of_it_is_there(published):
    assert meter([], Plan(0, 0, 0, pa.table({})), []).reuse_share == 1.0
