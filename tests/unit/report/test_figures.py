"""The numbers of a page, beside what pandas and scipy say of the same table."""

import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from davir_ray.config import ScoreConfig
from davir_ray.report import figures as figures_module
from davir_ray.report import shares as shares_module
from davir_ray.report.alternatives import alternatives, overlap_with_longest
from davir_ray.report.figures import BINS, Figures, figures_of, told_rows
from davir_ray.report.page import cut_sides, learnt, spread
from davir_ray.report.sample import LowestIds
from davir_ray.runs.record import load_record
from davir_ray.runs.run import load_run_or_recipe
from tests.made_runs import made_run, write_corpus

ROWS = 400


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two sources; 3 rows have no answer, and one repeats another."""
    root, draw = tmp_path_factory.mktemp("made"), random.Random(0)
    rows = [
        {"question": f"{index}?", "answer": "word " * draw.randint(1, 60), "topic": draw.choice("abc")}
        for index in range(ROWS)
    ]
    for index in (7, 8, 9):
        rows[index]["answer"] = ""
    rows[20] = rows[21]
    write_corpus(root / "corpus", {"chat": rows[:300], "maths": rows[300:]})
    return made_run(root, "made-0123456789ab", fraction=0.25)


@pytest.fixture(scope="module")
def table(run) -> pd.DataFrame:
    return pq.read_table(run / "scored").to_pandas()


@pytest.fixture(scope="module")
def found(run) -> Figures:
    return figures_of(parts(run), load_record(str(run)).ranked)


def parts(run):
    return sorted(map(str, (run / "scored").glob("*.parquet")))


def test_the_histogram_counts_every_ranked_row_once(found, table):
    ranked = table[table["rank"].notna()]
    histogram, bins = found.histogram, found.histogram.edges
    assert histogram.ranked.sum() == len(ranked) == ROWS - 4
    assert histogram.selected.sum() == table["selected"].sum()
    for counts, scores in (
        (histogram.ranked, ranked["score"]),
        (histogram.selected, table[table["selected"]]["score"]),
    ):
        assert counts[1:-1].tolist() == np.histogram(scores, bins)[0].tolist()
        assert (counts[0], counts[-1]) == ((scores < bins[0]).sum(), (scores > bins[-1]).sum())
    assert len(bins) == BINS + 1
    tail = int(len(ranked) * figures_module.TAIL)
    ordered = np.sort(ranked["score"])
    assert (bins[0], bins[-1]) == pytest.approx((ordered[tail], ordered[-1 - tail]))


@pytest.mark.parametrize("column", ["source", "group"])
def test_shares_are_those_of_a_group_by(found, table, column):
    named, others = (found.sources if column == "source" else found.groups).largest(10)
    assert others == 0
    assert {one.name for one in named} == set(table[column])
    for one in named:
        rows = table[table[column] == one.name]
        ranked, chosen = rows[rows["rank"].notna()], rows[rows["selected"]]
        assert (one.rows, one.ranked, one.selected) == (len(rows), len(ranked), len(chosen))
        assert (one.ranked_tokens, one.tokens) == (ranked["num_tokens"].sum(), chosen["num_tokens"].sum())


def test_the_largest_are_named_and_the_others_counted(found):
    named, others = found.groups.largest(2)
    assert [one.rows for one in named] == sorted(
        [one.rows for one in found.groups.largest(9)[0]], reverse=True
    )[:2]
    assert others == len(found.groups.counts) - 2


def test_groups_without_end_are_not_held(run, monkeypatch):
    monkeypatch.setattr(shares_module, "MOST_NAMES", 1)
    groups = figures_of(parts(run), 100).groups
    assert groups.too_many
    assert groups.counts == {}


def test_lengths_are_those_of_the_table(found, table):
    for counts, rows in (
        (found.lengths, table[table["rank"].notna()]),
        (found.chosen_lengths, table[table["selected"]]),
    ):
        count, mean, places = spread(counts)
        tokens = rows["num_tokens"]
        assert (count, mean) == (len(rows), pytest.approx(tokens.mean()))
        assert places == [np.quantile(tokens, q, method="inverted_cdf") for q in (0.1, 0.5, 0.9)]
    assert spread(np.zeros(3, dtype=np.int64)) == (0, None, [])


def test_the_rows_that_are_asked_for_are_told_whole(run, table):
    told = told_rows(parts(run), [1, 200])
    assert set(told) == {1, 200}
    row = table[table["rank"] == 200].iloc[0]
    assert told[200]["file"] == row["file"]
    assert told[200]["example_id"] == row["example_id"].hex()


def test_the_bins_reach_both_sides_of_the_cut(run, table):
    scores = table[table["rank"].notna()]["score"]
    sides = [scores.max() + 1, scores.min() - 1]
    histogram = figures_of(parts(run), len(scores), sides).histogram
    assert (histogram.edges[0], histogram.edges[-1]) == (sides[1], sides[0])
    assert (histogram.ranked[0], histogram.ranked[-1]) == (0, 0)


def test_other_scores_are_those_of_their_formulas(found, table):
    rows = table[table["rank"].notna()].sort_values("example_id")
    tokens, base, reference = rows["num_tokens"], rows["base_loss"], rows["reference_loss"]
    values = {
        "davir": (base - reference) / base,
        "rho_sum": base - reference,
        "rho_mean": (base - reference) / tokens,
    }
    told = alternatives(found.sample.rows, "davir", ScoreConfig())
    assert [one.name for one in told] == list(values)
    chosen = set(rows[rows["selected"]]["example_id"])
    for one in told:
        assert one.correlation == pytest.approx(spearmanr(values[one.name], tokens).statistic)
    for one in told[1:]:
        highest = rows.loc[values[one.name].sort_values(ascending=False, kind="stable").index[: len(chosen)]]
        assert one.overlap == pytest.approx(len(chosen & set(highest["example_id"])) / len(chosen))
    longest = rows.sort_values("num_tokens", ascending=False, kind="stable")[: len(chosen)]
    shared = len(chosen & set(longest["example_id"]))
    assert overlap_with_longest(found.sample.rows) == pytest.approx(shared / len(chosen))


def test_the_chosen_score_is_correlated_as_the_record_says(run, found):
    told = alternatives(found.sample.rows, "davir", ScoreConfig())
    assert told[0].correlation == load_record(str(run)).length_correlation


def test_a_score_that_needs_what_was_not_measured_is_not_offered(found):
    rows = found.sample.rows
    at = rows.column_names.index("reference_loss")
    without = rows.set_column(at, rows.schema.field(at), pa.nulls(len(rows), pa.float64()))
    assert [one.name for one in alternatives(without, "ifd", ScoreConfig())] == ["ifd", "base_loss"]
    assert learnt(without) is None


def test_what_the_reference_learnt(found, table):
    ranked = table[table["rank"].notna()]
    assert learnt(found.sample.rows) == pytest.approx((ranked["reference_loss"] < ranked["base_loss"]).mean())


def test_a_sample_is_the_lowest_ids_whatever_the_parts(table, run):
    whole = pq.read_table(run / "scored")
    by_row, at_once = LowestIds(50), LowestIds(50)
    at_once.add(whole)
    for start in range(0, len(whole), 7):
        by_row.add(whole.slice(start, 7))
    assert by_row.rows["example_id"].to_pylist() == sorted(table["example_id"])[:50]
    assert by_row.rows["score"].to_pylist() == at_once.rows["score"].to_pylist()


def test_the_cut_lies_between_the_last_chosen_and_the_first_left_out(run, table):
    record, (recipe, _) = load_record(str(run)), load_run_or_recipe(str(run), ())
    last = int(table["selected"].sum())
    told = told_rows(parts(run), [1, last, last + 1, 390])
    scores = table.set_index("rank")["score"]
    assert cut_sides(record, recipe, told) == [(scores[last], scores[last + 1])]
    pinned = recipe.model_copy(update={"select": ()})
    assert cut_sides(record, pinned, told) == []
