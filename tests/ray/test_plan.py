"""The plan of a recipe against what the run then does, and its reasons."""

import json

import pytest
from click.testing import CliRunner

from davir_ray import pipeline, storage
from davir_ray.cli import main
from davir_ray.cli.plan_lines import plan_lines
from davir_ray.planning.ray_plan import preview
from tests import nights
from tests.conftest import save_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module")
def first(folder, tiny_models, ray_cluster):
    """A plan before any run, and the run."""
    nights.write(folder / "corpus", "a", nights.rows(0, 20))
    nights.write(folder / "corpus", "b", nights.rows(20, 30) + nights.rows(20, 22))
    recipe = slow(folder, tiny_models)
    before = sorted((folder / "runs").rglob("*"))
    plan = preview(recipe, "test")
    assert before == sorted((folder / "runs").rglob("*"))
    return plan, pipeline.score(recipe, "test")


def slow(folder, models, **changes):
    return nights.recipe(
        folder, models, engine={"type": "tests.engines:SlowEngine", "num_cpus": 1}, **changes
    )


def why(plan):
    return {view.model: view.why for view in plan.views}


def test_a_first_plan_says_what_the_run_then_measures(first):
    plan, record = first
    assert plan.measured == record.measured == {"base": 30, "reference": 30}
    assert (plan.run_id, plan.last_run, plan.estimate) == (record.run_id, None, None)
    assert why(plan) == {"base": {"first_run": 30}, "reference": {"first_run": 30}}
    text = "\n".join(plan_lines(plan))
    assert "the first run" in text
    assert "no estimate" in text


def test_the_plan_of_a_finished_run_has_nothing_to_do(folder, tiny_models, first):
    plan = preview(slow(folder, tiny_models), "test")
    assert plan.finished
    assert plan.measured == {"base": 0, "reference": 0}
    assert "nothing to measure" in "\n".join(plan_lines(plan))


@pytest.fixture(scope="module")
def grown(folder, tiny_models, first):
    """Plans of a corpus of which three rows are new and two changed: as it is, and without word of the last rows."""
    nights.write(folder / "corpus", "a", nights.rows(0, 18) + nights.rows(18, 20, "No") + nights.rows(40, 43))
    plan = preview(slow(folder, tiny_models), "test")
    places = f"{first[1].run_dir}/places.json"
    kept = storage.read_bytes(places)
    storage.delete(places)
    without_word = preview(slow(folder, tiny_models), "test")
    storage.write_atomic(places, kept)
    nights.write(folder / "corpus", "a", nights.rows(0, 20))
    return plan, without_word


def test_new_and_changed_rows_are_told_apart_by_their_places(grown, first):
    plan, _ = grown
    assert why(plan) == {one: {"changed_row": 2, "new_row": 3} for one in ("base", "reference")}
    assert plan.reused == {"base": 28, "reference": 28}
    assert plan.last_run == first[1].run_id
    assert not plan.finished


def test_without_word_of_the_last_rows_new_and_changed_are_one(grown):
    assert why(grown[1]) == {one: {"new_or_changed": 5} for one in ("base", "reference")}


def test_the_time_is_that_of_earlier_runs(grown, first):
    plan, record = grown[0], first[1]
    events = [json.loads(line) for line in storage.read_bytes(f"{record.run_dir}/events.jsonl").splitlines()]
    tokens = next(one["tokens"] for one in events if one["event"] == "measure")
    busy = next(one["engine_seconds"] for one in events if one["event"] == "measured")
    base = plan.estimate.models["base"]
    assert base.busy_seconds == pytest.approx(plan.tokens["base"] * busy / tokens, abs=0.06)
    assert plan.estimate.gpu_hours == 0
    assert "loading models not counted" in "\n".join(plan_lines(plan))


def test_another_reference_leaves_the_base_s_measurements_as_they_are(folder, tiny_models, first):
    plan = preview(slow(folder, (tiny_models[0], tiny_models[0])), "test")
    assert why(plan) == {"base": {}, "reference": {}}  # the base is measured, in whatever role
    assert [change.what for change in plan.changes] == ["reference"]
    fingerprints = folder / "store" / "measurements"
    hidden = folder / "hidden"
    reference = first[1].measurements["reference"].rsplit("/", 1)[-1]
    (fingerprints / reference).rename(hidden)
    try:
        gone = preview(slow(folder, tiny_models), "test")
        new = preview(slow(folder, tiny_models, tokens={"max_length": 64}), "test")
    finally:
        storage.delete(str(fingerprints / reference))
        hidden.rename(fingerprints / reference)
    assert why(gone) == {"base": {}, "reference": {"empty_store": 30}}
    assert why(new)["reference"] == {"empty_store": 30}


def test_a_new_model_and_a_new_engine_explain_everything(folder, tiny_models, first):
    other = nights.recipe(folder, tiny_models)
    assert why(preview(other, "test")) == {"base": {"new_engine": 30}, "reference": {"new_engine": 30}}
    third = save_tiny_model(folder / "third", 3)
    plan = preview(slow(folder, (tiny_models[0], third)), "test")
    assert why(plan) == {"base": {}, "reference": {"new_reference": 30}}
    assert plan.estimate.models["reference"].basis.startswith("2 earlier passes of this base")


def test_a_tokens_setting_makes_everything_new_and_says_so(folder, tiny_models, first):
    plan = preview(slow(folder, tiny_models, tokens={"template": "plain"}), "test")
    assert why(plan) == {one: {"new_tokens": 30} for one in ("base", "reference")}
    text = "\n".join(plan_lines(plan))
    assert 'tokens.template: "chat" -> "plain"' in text
    assert "their token ids are new" in text


def test_a_view_that_no_run_asked_for_is_not_measured(folder, tiny_models, first):
    plan = preview(slow(folder, tiny_models, score={"name": "ifd"}), "test")
    views = {view.view: view.why for view in plan.views}
    assert views == {"response": {}, "response_alone": {"not_measured": 30}}


def test_a_reference_that_is_still_to_be_made_counts_as_new(folder, tiny_models, first):
    to_make = slow(folder, (tiny_models[0], None), reference={"fit": "cross", "train": {"zero_stage": None}})
    plan = preview(to_make, "test")
    assert plan.to_make == ("reference",)
    assert plan.measured["base"] == 0
    assert plan.measured["reference-0"] + plan.measured["reference-1"] == 30
    assert (plan.run_id, list(plan.models)) == (None, ["base"])
    assert "reference" not in [change.what for change in plan.changes]
    text = "\n".join(plan_lines(plan))
    assert "named when its reference is made" in text
    assert "the reference is not made yet" in text


def test_davir_plan_and_a_dry_run_print_the_same(folder, tiny_models, first):
    tree = slow(folder, tiny_models).model_dump(mode="json")
    (folder / "test.json").write_text(json.dumps(tree))
    commands = (["plan", str(folder / "test.json")], ["score", str(folder / "test.json"), "--dry-run"])
    one, other = (CliRunner().invoke(main, [*command, "--json"]) for command in commands)
    assert one.exit_code == other.exit_code == 0, one.output + other.output
    assert one.stdout == other.stdout
    assert json.loads(one.stdout.splitlines()[-1])["views"][0]["rows"] == 30
