"""Nights on real Ray with the hash engine: what is new is measured, and the drift names its causes."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from scipy import stats

from davir_ray.cli import main
from davir_ray.cli.night_lines import night_lines
from davir_ray.drift.result import RowsCompared
from davir_ray.errors import PastLimits
from davir_ray.inputs import checks
from davir_ray.nightly.limits import check_limits
from davir_ray.nightly.night import run_night
from davir_ray.nightly.nights import NightRecord
from davir_ray.recipe import load_recipe
from davir_ray.runs.lease import Lease, take
from davir_ray.storage.sealed import read_sealed
from tests import nights
from tests.conftest import save_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def scored(night: NightRecord) -> dict[bytes, dict]:
    return {row["example_id"]: row for row in pq.read_table(night.scored).to_pylist()}


def lines_of(folder: Path, name: str = "test") -> list[dict]:
    return [
        json.loads(line)
        for line in (folder / "runs/nightly" / name / "nights.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nights")


@pytest.fixture(scope="module")
def first(folder, tiny_models, ray_cluster):
    """A first night: a hundred rows in two sources."""
    nights.write(folder / "corpus", "a", nights.rows(0, 60))
    nights.write(folder / "corpus", "b", nights.rows(60, 100))
    return run_night(nights.recipe(folder, tiny_models), "test")


def prepared_parts(folder: Path) -> dict[Path, int]:
    """What is prepared, and when it was written."""
    return {part: part.stat().st_mtime_ns for part in folder.glob("store/prepared/*/*/*.parquet")}


@pytest.fixture(scope="module")
def prepared_first(folder, first):
    """What the first night prepared."""
    return prepared_parts(folder)


@pytest.fixture(scope="module")
def second(folder, tiny_models, first, prepared_first):
    """A second night: ten rows more."""
    nights.write(folder / "corpus", "a2", nights.rows(100, 110))
    return run_night(nights.recipe(folder, tiny_models), "test")


@pytest.fixture(scope="module")
def third(folder, tiny_models, second):
    """A third night: half of the second source is gone, and another rule chooses."""
    nights.write(folder / "corpus", "b", nights.rows(80, 100))
    rule = [{"type": "fraction", "fraction": 0.4}]
    return run_night(nights.recipe(folder, tiny_models, select=rule), "test")


@pytest.fixture(scope="module")
def other_reference(folder, tiny_models):
    """The base, and a reference that no night before had."""
    return tiny_models[0], save_tiny_model(folder / "other", 2)


@pytest.fixture(scope="module")
def fourth(folder, other_reference, third):
    """A fourth night: another reference."""
    rule = [{"type": "fraction", "fraction": 0.4}]
    changed = nights.recipe(folder, other_reference, select=rule, nightly={"max_coreset_change": None})
    return run_night(changed, "test")


def moves(before: NightRecord, after: NightRecord) -> tuple[set[bytes], set[bytes]]:
    """What the scored tables say came into the core-set, and went out of it."""
    one, other = ({key for key, row in scored(night).items() if row["selected"]} for night in (before, after))
    return other - one, one - other


def test_a_first_night_measures_everything_and_has_no_drift(first):
    assert first.night.measured == {"base": 100, "reference": 100}
    assert first.drift is None
    assert first.past_limits == ()
    assert any("no night before" in line for line in night_lines(first))


def test_the_second_night_prepares_the_new_file_alone(folder, prepared_first, second):
    new = prepared_parts(folder).items() - prepared_first.items()
    assert prepared_first.items() <= prepared_parts(folder).items()
    assert sorted(part.parent.name for part, _ in new) == ["examples", "tokens"]


def test_the_second_night_measures_the_new_rows_and_names_them(first, second):
    assert second.night.measured == {"base": 10, "reference": 10}
    assert second.night.reused == {"base": 100, "reference": 100}
    drift = second.drift
    assert drift.rows == RowsCompared(before=100, after=110, both=100)
    assert drift.changes == ()
    came, went = moves(first, second)
    old = scored(first)
    new_data = sum(key not in old for key in came)
    expected = {"data": new_data, "others": len(came) - new_data}
    assert drift.core_set.came == {cause: count for cause, count in expected.items() if count}
    assert drift.core_set.went == ({"others": len(went)} if went else {})
    assert sum(drift.core_set.came.values()) + drift.core_set.both == second.selected


def test_old_rows_keep_their_order_so_ranks_correlate_fully(second):
    assert second.drift.rank_correlation == 1.0
    assert second.drift.ranked_in_both == 100


def test_the_deciles_are_those_of_the_scores_of_each_source(first, second):
    for when, night in (("before", first), ("after", second)):
        for source, spread in second.drift.scores.items():
            values = [row["score"] for row in scored(night).values() if row["source"] == source]
            expected = np.percentile(values, range(0, 101, 10), method="higher").tolist()
            assert getattr(spread, when) == pytest.approx(expected, rel=1e-12)


def test_a_night_with_another_rule_measures_nothing_and_names_the_rule(second, third):
    assert third.night.measured == {"base": 0, "reference": 0}
    drift = third.drift
    assert [change.what for change in drift.changes] == ["select"]
    assert drift.rows == RowsCompared(before=110, after=90, both=90)
    came, went = moves(second, third)
    gone = sum(key not in scored(third) for key in went)
    assert drift.core_set.came == {"rule": len(came)}
    expected = {"data": gone, "rule": len(went) - gone}
    assert drift.core_set.went == {cause: count for cause, count in expected.items() if count}
    assert gone > 0


def test_a_night_with_another_reference_measures_it_alone_and_names_it(third, fourth):
    assert fourth.night.measured == {"base": 0, "reference": 90}
    drift = fourth.drift
    assert [change.what for change in drift.changes] == ["reference"]
    came, went = moves(third, fourth)
    assert drift.core_set.came == {"model": len(came)}
    assert drift.core_set.went == {"model": len(went)}
    one, other = scored(third), scored(fourth)
    ranks = [[table[key]["rank"] for key in one] for table in (one, other)]
    assert drift.rank_correlation == pytest.approx(stats.spearmanr(*ranks).statistic, abs=1e-12)


def test_the_drift_lies_in_the_run_and_a_line_a_night_beside_them(folder, fourth):
    assert read_sealed(f"{fourth.run_dir}/drift.json") == fourth.drift.tree()
    lines = lines_of(folder)
    assert [line["rows"] for line in lines] == [100, 110, 90, 90]
    assert [line["drift"] and line["drift"]["before"] for line in lines] == [
        None,
        *(line["run_id"] for line in lines[:-1]),
    ]
    text = "\n".join(night_lines(fourth))
    assert "new base or reference" in text
    assert "rank correlation" in text


def test_the_page_of_a_night_tells_of_the_drift(second):
    page = Path(second.run_dir, "report.html").read_text()
    assert f"<h3>Since {second.drift.before}</h3>" in page
    new = second.drift.rows.after - second.drift.rows.both
    assert f"<p>{new} rows are new, 0 are gone, {second.drift.rows.both} are in both.</p>" in page
    core_set = second.drift.core_set
    assert f"<summary>Rows that came in: {sum(core_set.came.values())}</summary>" in page
    assert f"<summary>Rows that went out: {sum(core_set.went.values())}</summary>" in page


def test_the_same_night_again_tells_the_same_and_adds_no_line(folder, other_reference, fourth):
    rule = [{"type": "fraction", "fraction": 0.4}]
    again = run_night(nights.recipe(folder, other_reference, select=rule), "test")
    assert (again.night, again.drift, again.is_new) == (fourth.night, fourth.drift, False)
    assert len(lines_of(folder)) == 4
    assert "nothing is new since" in "\n".join(night_lines(again))


def test_limits_are_judged_anew_each_time_and_name_the_setting(folder, other_reference, fourth):
    rule = [{"type": "fraction", "fraction": 0.4}]
    strict = {"max_coreset_change": 0.1, "min_rank_correlation": 0.9}
    again = run_night(nights.recipe(folder, other_reference, select=rule, nightly=strict), "test")
    assert fourth.past_limits == ()
    with pytest.raises(PastLimits, match=r"nightly.max_coreset_change: 0.1.*\n.*min_rank_correlation: 0.9"):
        check_limits(again)


def test_many_partitions_give_the_drift_that_one_does(first, second, fourth, monkeypatch):
    from davir_ray.drift.ray_drift import measure_drift
    from davir_ray.runs.history import past_run

    monkeypatch.setattr("davir_ray.drift.ray_drift.partitions_for", lambda rows: 3)
    runs = [past_run(night.run_dir) for night in (first, second, fourth)]
    assert measure_drift(runs[0], runs[1]) == second.drift
    far = measure_drift(runs[0], runs[2])
    one, other = scored(first), scored(fourth)
    both = sorted(set(one) & set(other))
    ranks = [[table[key]["rank"] for key in both] for table in (one, other)]
    assert far.rank_correlation == pytest.approx(stats.spearmanr(*ranks).statistic, abs=1e-12)
    assert far.ranked_in_both == len(both) == 80


@pytest.fixture(scope="module")
def ten_rows(tmp_path_factory, tiny_models) -> Path:
    """A folder with the recipe `night.json`, for ten rows of which one cannot be scored."""
    folder = tmp_path_factory.mktemp("ten-rows")
    nights.write(folder / "corpus", "a", nights.rows(0, 8))
    nights.write(folder / "corpus", "b", [{"question": "What?", "answer": ""}, *nights.rows(8, 9)])
    tree = nights.recipe(folder, tiny_models).model_dump(mode="json")
    (folder / "night.json").write_text(json.dumps(tree))
    return folder


def davir_nightly(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["nightly", str(folder / "night.json"), *options])


def test_a_start_beside_another_does_nothing_and_says_so(ten_rows):
    lease = take(str(ten_rows / "runs/nightly/night/lease"))
    assert isinstance(lease, Lease)
    with lease:
        done = davir_nightly(ten_rows, "--json")
    assert done.exit_code == 0, done.output
    assert f"another start is at work since {time.strftime('%Y')}" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["busy"]["pid"] == os.getpid()
    assert not list((ten_rows / "runs").glob("night-*"))


@pytest.fixture(scope="module")
def past_limits(ten_rows) -> list[Result]:
    """The night of the ten rows, which is past a limit, as it is told twice."""
    return [davir_nightly(ten_rows) for _ in range(2)]


def test_a_night_past_its_limits_is_written_down_and_ends_with_exit_code_8(ten_rows, past_limits):
    for done in past_limits:
        assert done.exit_code == 8, done.output
        assert "nightly.max_failed_fraction: 0.05, and 1 of 10 rows have no score" in done.output
    assert [line["failed"] for line in lines_of(ten_rows, "night")] == [1]
    done = davir_nightly(ten_rows, "--set", "nightly.max_failed_fraction=0.2", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["night"]["rows"] == 10


def test_a_night_stopped_before_its_line_is_closed_by_the_next_start(ten_rows, past_limits):
    (before,) = lines_of(ten_rows, "night")
    (ten_rows / "runs/nightly/night/nights.jsonl").unlink()
    again = run_night(load_recipe(str(ten_rows / "night.json")), "night")
    assert again.is_new
    assert again.night.measured == before["measured"] == {"base": 9, "reference": 9}


def counted(monkeypatch) -> Counter[str]:
    """Count how often inputs are resolved from now on."""
    calls = Counter()

    def counting(name):
        work = getattr(checks, name)

        def call(*args, **kwargs):
            calls[name] += 1
            return work(*args, **kwargs)

        return call

    for name in ("list_corpus", "resolve_all"):
        monkeypatch.setattr(checks, name, counting(name))
    return calls


@pytest.mark.timeout(900)
def test_a_night_makes_the_reference_and_trains_if_the_recipe_says_so(tmp_path, tiny_models, monkeypatch):
    resolved = counted(monkeypatch)
    nights.write(tmp_path / "corpus", "a", nights.rows(0, 8))
    nights.write(tmp_path / "corpus", "b", nights.rows(8, 10))
    once = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "zero_stage": None,
        "device": "cpu",
        "num_cpus_per_worker": 1,
    }
    recipe = nights.recipe(tmp_path, (tiny_models[0], None), reference={"train": once}, train=once)
    night = run_night(recipe, "test")
    assert night.night.measured == {"base": 10, "reference": 10}
    assert night.train.steps == 1
    once_each = "once each: for the reference, for scoring and for training"
    assert resolved == {"list_corpus": 3, "resolve_all": 3}, once_each
    assert "trained   sft" in "\n".join(night_lines(night))
