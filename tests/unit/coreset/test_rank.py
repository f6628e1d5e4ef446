import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.coreset.rank import choose_bounds, mark_repeats, number, rank_keys, sample_keys
from davir_ray.coreset.ray_rank import ROWS
from davir_ray.ids import keys_of

scores = st.one_of(st.floats(allow_infinity=False), st.sampled_from([0.0, -0.0, 1.0, -1.0]))
rows = st.lists(st.tuples(scores, st.binary(min_size=16, max_size=16)), max_size=50)


def columns(values):
    ids = keys_of(pa.array([key for _, key in values], pa.binary(16)))
    return np.array([score for score, _ in values], dtype=np.float64), ids


def expected(values, sign):
    def place(item):
        score, key = item
        return (True, 0.0, key) if np.isnan(score) else (False, sign * score, key)

    return sorted(values, key=place)


@given(rows)
def test_rank_keys_sort_as_score_then_id_does(values):
    score, ids = columns(values)
    for order, sign in (("highest", -1), ("lowest", 1)):
        by_key = [values[i] for i in np.argsort(rank_keys(score, ids, order), kind="stable")]
        assert repr([(s + 0.0, k) for s, k in by_key]) == repr(
            [(s + 0.0, k) for s, k in expected(values, sign)]
        )


@given(rows, st.integers(1, 6))
def test_ranges_follow_one_another_and_together_hold_all_rows(values, ranges):
    score, ids = columns(values)
    keys = rank_keys(score, ids, "highest")
    bounds = choose_bounds(sample_keys(keys, ids, 1.0), ranges)
    place = np.searchsorted(bounds, keys, side="right")
    assert [k for r in range(ranges) for k in np.sort(keys[place == r]).tolist()] == np.sort(keys).tolist()


@given(rows, st.floats(0, 1), st.randoms())
def test_the_sample_does_not_depend_on_the_order_of_rows(values, share, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    drawn = [
        np.sort(sample_keys(rank_keys(*columns(v), "highest"), columns(v)[1], share))
        for v in (values, shuffled)
    ]
    assert drawn[0].tolist() == drawn[1].tolist()


def row(key, score, source="s", status="ok", place=0, split=0):
    return {
        "example_id": key.ljust(16, b"."),
        "source": source,
        "group": "",
        "status": status,
        "score": score,
        "split": split,
        "row": place,
    }


def settled(*values):
    table = pa.Table.from_pylist(list(values), schema=ROWS)
    score = np.array([value["score"] if value["score"] is not None else np.nan for value in values])
    keys = rank_keys(score, keys_of(table["example_id"]), "highest")
    return mark_repeats(table, keys, ["a.jsonl", "b.jsonl"]).to_pylist()


def test_the_first_by_location_stands_for_its_repeats_and_they_name_it():
    rows = [
        row(b"a", 0.5, "s", place=0, split=1),
        row(b"b", 0.1, place=8),
        row(b"a", 0.5, "t", place=9),
        row(b"a", 0.5, "t", place=7),
    ]
    for values in (rows, rows[::-1]):
        first, *repeats, other = settled(*values)
        assert (first["status"], first["source"], first["score"]) == ("ok", "t", 0.5)
        assert (first["split"], first["row"]) == (0, 7)
        assert [(one["split"], one["row"]) for one in repeats] == [(0, 9), (1, 0)]
        assert {one["status"] for one in repeats} == {"duplicate"}
        assert {one["score"] for one in repeats} == {None}
        assert {one["reason"] for one in repeats} == {"the same content as a.jsonl:7"}
        assert (other["example_id"][:1], other["status"], other["score"]) == (b"b", "ok", 0.1)


def test_rows_without_a_score_keep_their_own_status():
    assert [
        r["status"] for r in settled(row(b"a", None, status="empty"), row(b"a", None, status="empty"))
    ] == [
        "empty",
        "empty",
    ]


def test_ranks_go_on_from_the_range_before_and_skip_rows_without_a_score():
    table = pa.table({"score": pa.array([3.0, None, 1.0])})
    numbered = number(table, before=4, total=8)
    assert numbered["rank"].to_pylist() == [5, None, 6]
    assert numbered["percentile"].to_pylist() == [50.0, None, 37.5]
