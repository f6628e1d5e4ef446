"""The table that a run ends with."""

import pytest

from davir_ray import storage
from davir_ray.cli.closing_lines import check_chosen, record_lines, resumed_lines
from davir_ray.errors import NothingChosen
from tests.records import run_record

MEASURED = {
    "measured": {"base": 9, "reference": 12},
    "measured_again": {"base": 4, "reference": 0},
    "reused": {"base": 3, "reference": 0},
}


def test_a_correlation_of_a_sample_says_so():
    record = run_record(ranked=250_000, length_correlation=-0.2, length_correlation_rows=100_000)
    assert "response length -0.20 (a sample of 100,000 rows)" in "\n".join(record_lines(record))


def test_what_was_begun_again_is_told_where_there_was_any():
    lines = list(record_lines(run_record(**MEASURED)))
    assert "measured  base: 9 sequences; 3 were in the store; 4 begun again" in lines
    assert "measured  reference: 12 sequences; 0 were in the store" in lines


def test_rows_that_rounding_could_move_are_told_where_there_are_any():
    noise = {"dtype": "bfloat16", "nats": 0.05, "selected": 2, "left_out": 3}
    told = "\n".join(record_lines(run_record(cut_noise=noise)))
    assert "noise     bfloat16 could move 2 of the 3 chosen rows out, and 3 others in" in told
    told = "\n".join(record_lines(run_record(cut_noise={**noise, "selected": 0, "left_out": 0})))
    assert "noise " not in told


def test_each_subtask_is_told_with_the_rows_that_serve_it_best():
    one = {"ranked": 8, "selected": 2, "mean": 0.5, "selected_mean": 0.75}
    told = list(record_lines(run_record(subtasks={"code": one})))
    assert "subtask   code: the best score of 2 chosen rows, and of 8 ranked ones" in told


@pytest.mark.parametrize("root", ["{}/runs/r-1", "memory://runs-with-pages/r-1"])
def test_the_page_is_named_where_there_is_one(tmp_path, root):
    folder = root.format(tmp_path)
    assert not any(line.startswith("page") for line in record_lines(run_record(run_dir=folder)))
    storage.write_atomic(f"{folder}/report.html", b"<html>")
    assert list(record_lines(run_record(run_dir=folder)))[-1] == f"page      {folder}/report.html"


def test_a_run_that_chose_rows_is_fine():
    check_chosen(run_record())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"ranked": 0, "status": {"empty": 2, "no_score": 10}},
            "nothing was chosen: none of the 12 rows has a score (empty: 2, no_score: 10); "
            "runs/r-1/unscored has the reason of each",
        ),
        (
            {"dropped_by": {"0:difficulty": 4, "1:count": 0, "2:threshold": 8}},
            "nothing was chosen: the rules of `select` left none of the 12 ranked rows "
            "(left out by 0:difficulty: 4, 2:threshold: 8)",
        ),
    ],
)
def test_a_run_that_chose_nothing_says_why_in_one_line_with_counts(changes, said):
    with pytest.raises(NothingChosen) as told:
        check_chosen(run_record(**{"selected": 0} | changes))
    assert str(told.value) == said
    assert told.value.exit_code == 3


@pytest.mark.parametrize(("selected", "lines"), [(3, 1), (0, 0)])
def test_a_resumed_run_names_the_training_that_is_left_if_there_is_something_to_train_on(selected, lines):
    told = list(resumed_lines(run_record(selected=selected), trains=True))
    assert sum(line.startswith("train     not by this command") for line in told) == lines
