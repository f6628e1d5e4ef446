import pytest

from davir_ray import storage
from davir_ray.config import NightlyConfig
from davir_ray.drift.result import CoreSetsCompared
from davir_ray.errors import PastLimits, RecipeError, StoreError
from davir_ray.nightly.limits import check_limits, past_limits
from davir_ray.nightly.nights import Nights, night_of
from davir_ray.recipe import parse_recipe
from davir_ray.runs.changes import Change
from davir_ray.runs.record import SkippedFile
from tests.records import drift, night_line, night_record, run_record

RECORD = run_record(
    rows=100,
    ranked=80,
    selected=8,
    status={"ok": 70, "truncated": 10, "duplicate": 10, "empty": 6, "engine_error": 4},
    measured={"base": 5, "reference": 5},
    reused={"base": 75, "reference": 75},
)
CORE_SET = CoreSetsCompared(before=6, after=6, both=4, change=0.5, came={"data": 3}, went={"others": 3})
SELECT = tuple(Change(what="select", detail=detail) for detail in "xy")
DRIFT = drift(changes=SELECT, core_set=CORE_SET)


def night(drifted=None, measured_before=False):
    return night_of(RECORD, drifted, measured_before=measured_before)


def test_a_night_counts_rows_that_failed_but_not_repeats_and_not_cut_ones():
    assert night().failed == 10
    assert night().measured == {"base": 5, "reference": 5}
    assert night().drift is None


def test_rows_that_their_label_leaves_out_did_not_fail():
    record = RECORD.model_copy(update={"rows": 150, "status": RECORD.status | {"undesirable": 50}})
    assert night_of(record, None, measured_before=False).failed == 10


def test_a_night_whose_run_is_an_earlier_night_s_measured_nothing():
    again = night(measured_before=True)
    assert again.measured == {"base": 0, "reference": 0}
    assert again.reused == {"base": 80, "reference": 80}


def test_a_night_keeps_the_drift_in_short():
    assert night(DRIFT).drift.tree() == {
        "before": "r-0",
        "changed": ["select"],
        "coreset_change": 0.5,
        "in": {"data": 3},
        "out": {"others": 3},
        "rank_correlation": 0.9,
    }


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        ({"max_failed_fraction": 0.1}, []),
        ({"max_failed_fraction": 0.09}, ["max_failed_fraction"]),
        ({"max_failed_fraction": None}, []),
        ({"max_failed_fraction": 0.1, "max_coreset_change": 0.5}, []),
        ({"max_failed_fraction": 0.1, "max_coreset_change": 0.49}, ["max_coreset_change"]),
        ({"max_failed_fraction": 0.1, "max_coreset_change": None}, []),
        ({"max_failed_fraction": 0.1, "min_rank_correlation": 0.9}, []),
        (
            {"max_failed_fraction": 0, "min_rank_correlation": 0.91},
            ["max_failed_fraction", "min_rank_correlation"],
        ),
    ],
)
def test_a_limit_may_be_reached_and_not_passed(limits, broken):
    found = past_limits(NightlyConfig(**limits), night(DRIFT))
    assert [sentence.partition(":")[0] for sentence in found] == [f"nightly.{name}" for name in broken]


@pytest.mark.parametrize(("most", "broken"), [(0, True), (1, False), (None, False)])
def test_a_file_that_was_left_out_is_past_its_limit(most, broken):
    skipped = SkippedFile(path="x.parquet", reason="cut off")
    record = RECORD.model_copy(update={"bad_files": (skipped,)})
    limits = NightlyConfig(max_failed_fraction=None, max_bad_files=most)
    found = past_limits(limits, night_of(record, None, measured_before=False))
    assert found == (("nightly.max_bad_files: 0, and 1 files were skipped",) if broken else ())


def test_a_first_night_and_one_without_common_rows_have_no_drift_to_judge():
    strict = NightlyConfig(max_failed_fraction=None, max_coreset_change=0, min_rank_correlation=1)
    assert past_limits(strict, night()) == ()
    unlike = DRIFT.model_copy(update={"rank_correlation": None})
    assert [one.split(":")[0] for one in past_limits(strict, night(unlike))] == ["nightly.max_coreset_change"]


def test_past_limits_are_an_error_with_an_exit_code_of_its_own():
    with pytest.raises(PastLimits, match="one\n  two") as error:
        check_limits(night_record(past_limits=("one", "two")))
    assert error.value.exit_code == 8
    check_limits(night_record())


def test_the_recipe_sets_the_limits():
    tree = {"corpus": {"paths": "x"}, "models": {"base": "b"}}
    assert parse_recipe(tree, "r").nightly == NightlyConfig(max_failed_fraction=0.05, max_coreset_change=0.5)
    assert (
        parse_recipe(tree | {"nightly": {"max_coreset_change": 0.1}}, "r").nightly.max_coreset_change == 0.1
    )
    with pytest.raises(RecipeError, match="max_failed_fraction"):
        parse_recipe(tree | {"nightly": {"max_failed_fraction": 5}}, "r")


def test_nights_are_lines_the_latest_last(tmp_path):
    nights = Nights(str(tmp_path / "nightly" / "n"))
    assert nights.read() == []
    one, other = (night_line(run_id=name) for name in "ab")
    nights.add(one)
    nights.add(other)
    assert nights.read() == [one, other]


def test_of_nights_a_torn_last_line_is_dropped_and_any_other_is_an_error(tmp_path):
    nights = Nights(str(tmp_path / "n"))
    for name in "abc":
        nights.add(night_line(run_id=name))
    whole = storage.read_bytes(nights.uri)
    storage.write_atomic(nights.uri, whole[:-9])
    assert [night.run_id for night in nights.read()] == ["a", "b"]
    storage.write_atomic(nights.uri, whole.replace(b'"b"', b'"b'))
    with pytest.raises(StoreError, match=r"nights.jsonl: line 2 is not JSON.*take the line out"):
        nights.read()
