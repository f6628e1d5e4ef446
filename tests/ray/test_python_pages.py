"""The Python of the documents, run as it stands in a folder with the smallest recipe of the README."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.documented_commands import FENCED, ROOT

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def blocks(document: str, language: str) -> list[str]:
    return [block for found, block in FENCED.findall((ROOT / document).read_text()) if found == language]


@pytest.fixture
def folder(tmp_path, tiny_models, monkeypatch):
    """The working folder: a corpus, two models, a recipe with an engine that needs no model."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(40)]
    (tmp_path / "data" / "alpaca").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "alpaca" / "rows.parquet")
    (tmp_path / "models").mkdir()
    for name, model in zip(("base", "reference"), tiny_models, strict=True):
        (tmp_path / "models" / name).symlink_to(model)
    (recipe,) = blocks("README.md", "yaml")
    (tmp_path / "recipe.yaml").write_text(recipe)
    return tmp_path


def test_python_of_the_documents_runs(folder):
    from datasets import load_dataset

    names: dict = {}
    for block in blocks("docs/python.md", "python"):
        exec(block, names)
    assert names["run"].record.selected == len(names["coreset"]) == 5
    assert sum(names["run"].record.measured.values()) == 80
    assert names["again"].record.score == "rho_mean"
    assert names["again"].record.selected == 10
    assert set(names["again"].record.measured.values()) == {0}
    assert names["again"].record.run_id != names["run"].record.run_id
    assert list(names["frame"]["rank"]) == list(range(1, 41))
    (reading,) = (block for block in blocks("docs/results.md", "python") if "load_dataset" in block)
    again = {"load_dataset": load_dataset, "run_id": names["run"].record.run_id}
    exec(reading.replace("<run_id>", again["run_id"]), again)
    assert again["coreset"].column_names[:2] == ["question", "answer"]
    assert again["coreset"].to_list() == names["coreset"].to_list()


def test_another_score_of_a_run_is_compared_without_a_model(folder):
    import json

    from click.testing import CliRunner

    import davir_ray
    from davir_ray.cli import main

    run = davir_ray.score("recipe.yaml", overrides={"engine.type": "hash"})
    printed = CliRunner().invoke(main, ["compare", run.folder, "--score", "rho_mean", "--json"])
    assert printed.exit_code == 0, printed.output
    told = json.loads(printed.stdout.splitlines()[-1])
    assert [one["score"] for one in told["runs"]] == ["davir", "rho_mean"]
    again = davir_ray.Run.open(told["runs"][1]["folder"])
    assert set(again.record.measured.values()) == {0}
    chosen = [
        {row["example_id"] for row in one.scored().to_pylist() if row["selected"]} for one in (run, again)
    ]
    (pair,) = told["pairs"]
    assert pair["both"] == len(chosen[0] & chosen[1])
    assert [change["what"] for change in pair["changes"]] == ["score"]


def test_a_run_reports_to_the_trackers_that_its_recipe_names(folder, monkeypatch):
    from mlflow.tracking import MlflowClient

    import davir_ray

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlflow")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    asked = {"engine.type": "hash", "report_to": ["wandb", "mlflow"]}
    run = davir_ray.score("recipe.yaml", overrides=asked)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("davir_ray").experiment_id
    (kept,) = client.search_runs([experiment])
    assert (kept.info.run_name, kept.info.status) == (run.record.run_id, "FINISHED")
    assert kept.data.metrics["selected"] == run.record.selected == 2
    assert kept.data.metrics["base/sequences"] == kept.data.metrics["reference/sequences"] == 40
    assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_the_command_line_and_the_interface_find_the_same_run(folder):
    import json

    from click.testing import CliRunner

    import davir_ray
    from davir_ray.cli import main

    printed = CliRunner().invoke(main, ["score", "recipe.yaml", "--set", "engine.type=hash", "--json"])
    record = json.loads(printed.stdout.splitlines()[-1])
    run = davir_ray.score("recipe.yaml", overrides={"engine.type": "hash"})
    assert (run.record.run_id, run.folder) == (record["run_id"], record["run_dir"])
    assert set(run.record.measured.values()) == {0}  # finished already
    opened = davir_ray.Run.open(folder / "davir" / "runs" / run.record.run_id)
    assert opened.record.measured == record["measured"]
    assert opened.scored().equals(run.scored())
