"""What a recipe reaches for, where it is not there."""

import json
from dataclasses import asdict

import pytest

from davir_ray.cli.doctor_lines import check_well, finding_lines
from davir_ray.doctor import examine
from davir_ray.doctor.finding import Finding
from davir_ray.doctor.reach import extras_of, look_at_reach
from davir_ray.errors import BrokenEnvironment
from davir_ray.recipe import parse_recipe


def found(tmp_path, **changes):
    tree = {
        "corpus": {"paths": str(tmp_path / "rows.jsonl")},
        "models": {"base": str(tmp_path / "base")},
        "store": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
    }
    return {one.name: one for one in look_at_reach(parse_recipe(tree | changes, "r"), "my r.yaml")}


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "a", "answer": "b"}) + "\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return tmp_path


def test_what_is_there_is_well_and_nothing_is_left_behind(whole):
    assert {name: one.state for name, one in found(whole).items()} == dict.fromkeys(
        ("corpus", "models.base", "store", "output"), "ok"
    )
    assert not any((whole / "store").iterdir())


def test_what_is_not_there_is_told_with_what_brings_it(whole, monkeypatch):
    (whole / "file").touch()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = {"base": "nobody/no-such-model", "reference": str(whole / "none" / "here")}
    paths = {"paths": str(whole / "none.jsonl")}
    told = found(whole, corpus=paths, models=models, store=str(whole / "file" / "store"))
    assert {one.state for name, one in told.items() if name != "output"} == {"wrong"}
    assert "none.jsonl: no such file or folder" in told["corpus"].problem
    assert told["models.base"].mend == "hf download nobody/no-such-model"
    assert "there is no such folder" in told["models.reference"].problem
    assert told["corpus"].mend == "davir validate 'my r.yaml'  # once its paths are right"
    assert "cannot be written" in told["store"].problem
    assert told["store"].mend.startswith("name another folder under `store` in my r.yaml")


def test_every_place_that_rows_are_read_from_is_looked_at(whole):
    (whole / "few.jsonl").write_text(json.dumps({"question": "a", "answer": "b"}) + "\n")
    there, gone = {"paths": str(whole / "few.jsonl")}, {"paths": str(whole / "gone.jsonl")}
    told = found(
        whole,
        target=there,
        score={"name": "rds"},
        models={"base": str(whole / "base")},
        train={"corpus": there, "eval_corpus": gone},
    )
    states = {name: one.state for name, one in told.items() if "corpus" in name or name == "target"}
    assert states == {"corpus": "ok", "target": "ok", "train.corpus": "ok", "train.eval_corpus": "wrong"}
    assert "gone.jsonl" in told["train.eval_corpus"].problem


def test_a_recipe_that_cannot_be_read_is_a_finding_whatever_is_the_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(examine, "look_at_packages", lambda needed: ())
    (tmp_path / "r.yaml").write_text("corpus: {paths: a}")
    told = {one.name: one for one in examine.examine(str(tmp_path / "r.yaml"))}
    assert "models: is missing" in told["recipe"].problem

    def broken(*_):
        raise ImportError("libarrow.so: cannot open shared object file")

    monkeypatch.setattr("davir_ray.runs.run.load_run_or_recipe", broken)
    told = {one.name: one for one in examine.examine("r.yaml")}
    assert (
        told["recipe"].problem
        == "cannot be read here: ImportError: libarrow.so: cannot open shared object file"
    )


def test_the_extras_that_a_recipe_needs_follow_from_its_uris_its_engine_and_its_trainings():
    tree = {"corpus": {"paths": "rows.jsonl"}, "models": {"base": "b", "reference": "r"}}
    assert extras_of(parse_recipe(tree, "r")) == set()
    more = {
        "corpus": {"paths": ["gs://b/rows.jsonl", "az://c/x"]},
        "engine": {"type": "vllm"},
        "store": "s3://b/store",
    }
    assert extras_of(parse_recipe(tree | more, "r")) == {"gs", "az", "s3", "vllm", "vllm-cpu"}
    assert extras_of(parse_recipe(tree | {"train": {}}, "r")) == {"train"}


def test_lines_have_what_mends_below_what_is_wrong_and_the_end_counts_it():
    findings = [
        Finding("Python", "ok", "3.11.7"),
        Finding("corpus", "wrong", "", "two files\n  a\n  b", "davir validate r.yaml"),
    ]
    assert [line for one in findings for line in finding_lines(one)] == [
        "ok      Python           3.11.7",
        "wrong   corpus           two files",
        "                         a",
        "                         b",
        "                         -> davir validate r.yaml",
    ]
    with pytest.raises(BrokenEnvironment, match=r"^1 of 2 are wrong: corpus$") as caught:
        check_well(findings)
    assert caught.value.exit_code == 9
    check_well(findings[:1])
    assert asdict(findings[0])["state"] == "ok"
