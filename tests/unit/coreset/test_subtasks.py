"""Shares of subtasks, against plain Python over all rows at once."""

import numpy as np
import pyarrow as pa
import pytest

from davir_ray.coreset.subtasks import SubtaskTotals


def table_of(scores, chosen):
    columns = {f"score_{name}": values for name, values in scores.items()}
    return pa.table({**columns, "selected": chosen})


def test_rows_are_counted_for_the_subtask_that_they_score_best_for():
    random = np.random.default_rng(0)
    scores = {name: random.normal(size=50) for name in "abc"}
    chosen = random.random(50) < 0.3
    totals = SubtaskTotals(list("abc"))
    table = table_of(scores, chosen)
    for part in (table.slice(0, 7), table.slice(7, 0), table.slice(7)):
        totals.add(part)
    best = [max("abc", key=lambda name: scores[name][row]) for row in range(50)]
    for name, one in totals.shares().items():
        assert one.ranked == best.count(name)
        assert one.selected == sum(best[row] == name for row in np.flatnonzero(chosen))
        assert one.mean == pytest.approx(scores[name].mean())
        assert one.selected_mean == pytest.approx(scores[name][chosen].mean())


def test_where_no_row_is_chosen_there_is_no_mean():
    totals = SubtaskTotals(["a"])
    totals.add(table_of({"a": [1.0, 3.0]}, [False, False]))
    (one,) = totals.shares().values()
    assert (one.ranked, one.selected, one.mean, one.selected_mean) == (2, 0, 2.0, None)


def test_without_subtasks_nothing_is_told():
    totals = SubtaskTotals([])
    totals.add(pa.table({"selected": [True]}))
    assert totals.shares() == {}
