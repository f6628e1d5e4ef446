"""Rows that rounding could move across the cut, against a simulation of that rounding."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from davir_ray.config import ScoreConfig
from davir_ray.coreset.cut_noise import ROUNDING, Rounding
from davir_ray.coreset.rules import (
    CountRule,
    FractionRule,
    KeepSourcesRule,
    LengthQuotaRule,
    NearDuplicatesRule,
    ThresholdRule,
)
from davir_ray.coreset.summary import summarise
from davir_ray.schema import SCORED
from davir_ray.scores import SCORES

ROWS = 2_000
CONFIG = ScoreConfig()


def losses(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    tokens = random.integers(5, 300, ROWS)
    base = tokens * random.uniform(0.5, 2.0, ROWS)
    return {"tokens": tokens, "base": base, "reference": base * random.uniform(0.5, 1.0, ROWS)}


def table_of(some, value, chosen, rule):
    """A scored table in rank order whose first rows are chosen."""
    order = np.argsort(-value, kind="stable")
    rows = [
        {
            "example_id": int(index).to_bytes(16, "big"),
            "file": "a.jsonl",
            "row": int(index),
            "source": "a",
            "group": "",
            "status": "ok",
            "base_loss": some["base"][index],
            "reference_loss": some["reference"][index],
            "num_tokens": int(some["tokens"][index]),
            "score": value[index],
            "rank": rank + 1,
            "selected": rank < chosen,
            "dropped_by": None if rank < chosen else f"0:{rule}",
        }
        for rank, index in enumerate(order.tolist())
    ]
    return pa.Table.from_pylist(rows, schema=SCORED)


def davir(base, reference):
    return (base - reference) / base


def summed(table, rules, name="davir", dtype="bfloat16"):
    return summarise(
        lambda columns: iter([table.slice(0, 700).select(columns), table.slice(700).select(columns)]),
        rules,
        rounding=Rounding(SCORES[name], CONFIG, dtype),
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_error_of_a_score_is_that_of_scores_measured_again_and_again(dtype):
    some = losses()
    value = davir(some["base"], some["reference"])
    random, nats = np.random.default_rng(1), ROUNDING[dtype] * np.sqrt(some["tokens"])
    again = [
        davir(
            some["base"] + nats * random.normal(size=ROWS),
            some["reference"] + nats * random.normal(size=ROWS),
        )
        for _ in range(400)
    ]
    table = table_of(some, value, 100, "count")
    order = np.argsort(-value, kind="stable")
    found = Rounding(SCORES["davir"], CONFIG, dtype).of(table)
    np.testing.assert_allclose(found, np.std(again, axis=0)[order], rtol=0.25)


def test_the_rows_within_two_errors_of_the_cut_are_counted_on_either_side():
    some = losses()
    value = davir(some["base"], some["reference"])
    table = table_of(some, value, 120, "count")
    error = Rounding(SCORES["davir"], CONFIG, "bfloat16").of(table)
    ordered = np.sort(value)[::-1]
    near = np.abs(ordered - (ordered[119] + ordered[120]) / 2) <= 2 * error
    found = summed(table, [CountRule(count=120)]).cut_noise
    assert (found.dtype, found.selected, found.left_out) == ("bfloat16", near[:120].sum(), near[120:].sum())
    assert found.selected > 0
    assert found.left_out > 0


def test_fewer_rows_are_near_the_cut_in_float16():
    some = losses()
    table = table_of(some, davir(some["base"], some["reference"]), 120, "fraction")
    rules = [FractionRule(fraction=0.06)]
    narrow, wide = (summed(table, rules, dtype=dtype).cut_noise for dtype in ("bfloat16", "float16"))
    assert wide.selected + wide.left_out < narrow.selected + narrow.left_out


@pytest.mark.parametrize(
    ("name", "dtype", "rule"),
    [
        ("davir", "float32", ThresholdRule(min_score=0.4)),
        ("ifd", "bfloat16", ThresholdRule(min_score=0.4)),
        ("random", "bfloat16", ThresholdRule(min_score=0.4)),
        ("davir", "bfloat16", LengthQuotaRule(fraction=0.1)),
    ],
)
def test_nothing_is_said_where_nothing_is_known(name, dtype, rule):
    some = losses()
    table = table_of(some, davir(some["base"], some["reference"]), 120, rule.type)
    assert summed(table, [rule], name, dtype).cut_noise is None


def test_rows_that_other_rules_keep_or_leave_out_are_not_counted():
    some = losses()
    table = table_of(some, davir(some["base"], some["reference"]), 120, "count")
    alone = summed(table, [CountRule(count=120)]).cut_noise
    rows = table.to_pylist()
    for (
        row
    ) in rows:  # of the rows by the cut every second is kept whatever its rank, or left out by another rule
        if row["rank"] % 2:
            row["source"] = "gold" if row["selected"] else "a"
            row["dropped_by"] = None if row["selected"] else "0:near_duplicates"
        elif not row["selected"]:
            row["dropped_by"] = "2:count"
    other = pa.Table.from_pylist(rows, schema=SCORED)
    rules = [NearDuplicatesRule(), KeepSourcesRule(sources=["gold"]), CountRule(count=120)]
    found = summed(other, rules).cut_noise
    assert 0 < found.selected < alone.selected
    assert 0 < found.left_out < alone.left_out


def test_a_threshold_cuts_at_its_bound_however_far_the_next_row_is():
    some = losses()
    value = davir(some["base"], some["reference"])
    gap = np.where((value > 0.3) & (value < 0.45), 0.3, value)
    scale = {**some, "reference": some["base"] * (1 - gap)}
    table = table_of(scale, gap, int((gap >= 0.301).sum()), "threshold")
    assert summed(table, [ThresholdRule(min_score=0.301)]).cut_noise.left_out > 100


def test_of_a_score_of_the_users_nothing_is_said():
    some = losses()
    table = table_of(some, davir(some["base"], some["reference"]), 120, "count")
    own = replace(SCORES["davir"], compute=lambda measured, config: measured.num_tokens["prompt"])
    rounding = Rounding(own, CONFIG, "bfloat16")
    summary = summarise(lambda names: iter([table.select(names)]), [CountRule(count=120)], rounding=rounding)
    assert summary.cut_noise is None


def test_a_choice_of_all_rows_has_no_cut():
    some = losses()
    table = table_of(some, davir(some["base"], some["reference"]), ROWS, "count")
    assert summed(table, [CountRule(count=ROWS)]).cut_noise is None
