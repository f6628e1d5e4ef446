import json

from davir_ray import storage
from davir_ray.config import parse_recipe
from davir_ray.run import Run, load_run_or_recipe, run_id_of

TREE = {"corpus": {"paths": "rows.parquet"}, "models": {"base": "b", "reference": "r"}}


def recipe(tmp_path, **changes):
    return parse_recipe(TREE | {"output": str(tmp_path), "store": str(tmp_path)} | changes, "r")


def test_the_run_id_changes_with_what_decides_the_result_and_with_nothing_else(tmp_path):
    one = run_id_of(recipe(tmp_path), "name", "corpus", "model")
    assert one.startswith("name-")
    assert one == run_id_of(
        recipe(tmp_path / "x", engine={"replicas": 9, "num_cpus": 2}), "name", "corpus", "model"
    )
    others = [
        run_id_of(recipe(tmp_path, score={"name": "rho_sum"}), "name", "corpus", "model"),
        run_id_of(recipe(tmp_path, engine={"dtype": "bfloat16"}), "name", "corpus", "model"),
        run_id_of(recipe(tmp_path), "name", "corpus", "other model"),
        run_id_of(recipe(tmp_path), "name", "other corpus", "model"),
    ]
    assert len({one, *others}) == 5


def test_a_run_is_unfinished_until_its_record_is_written(tmp_path):
    run = Run.open(recipe(tmp_path), "name-1")
    assert run.record() is None
    storage.write_atomic(run.uri("work", "x"), b"1")
    run.finish({"rows": 3})
    assert Run.open(recipe(tmp_path), "name-1").record() == {"rows": 3}
    assert not storage.exists(run.uri("work"))


def test_events_go_on_where_a_stopped_run_left_them(tmp_path):
    Run.open(recipe(tmp_path), "name-1").event("begin", rows=1)
    Run.open(recipe(tmp_path), "name-1").event("again")
    lines = storage.read_bytes(str(tmp_path / "name-1" / "events.jsonl")).decode().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["begin", "again"]


def test_a_run_folder_stands_for_its_recipe(tmp_path):
    run = Run.open(recipe(tmp_path), "my-name-0a1b")
    loaded, name = load_run_or_recipe(run.folder, ["score.name=rho_sum"])
    assert name == "my-name"
    assert loaded == recipe(tmp_path, score={"name": "rho_sum"})
