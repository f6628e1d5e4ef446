"""A score table from one machine to another: the same core-set, and no model there but the base's tokenizer."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from davir_ray import pipeline
from davir_ray.cli import main
from davir_ray.errors import NotMeasured
from davir_ray.recipe import load_recipe, parse_recipe

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ROWS = [{"question": f"What is {i} and {i % 7}?", "answer": f"It is {i + i % 7}."} for i in range(40)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_models, ray_cluster):
    """Score a corpus here, export the table, and lay corpus, table and tokenizer where there is nothing else."""
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    pq.write_table(pa.Table.from_pylist(ROWS), here / "rows.parquet")
    base, reference = tiny_models
    tree = {
        "corpus": {"paths": str(here / "rows.parquet")},
        "models": {"base": base, "reference": reference},
        "engine": {"type": "hash", "num_cpus": 1},
        "select": [{"type": "count", "count": 5}],
        "store": str(here / "store"),
        "output": str(here / "runs"),
    }
    record = pipeline.score(parse_recipe(tree, "r"), "r")
    table = there / "rows.davir.parquet"
    told = CliRunner().invoke(main, ["score-table", "export", record.run_dir, str(table)])
    assert told.exit_code == 0, told.output
    shutil.copy(here / "rows.parquet", there / "rows.parquet")
    (there / "base").mkdir()
    for file in Path(base).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, there / "base")
    return record, table, told.output


def told_recipe(output: str) -> dict:
    """Read the lines of a recipe that `import` prints."""
    return yaml.safe_load("\n".join(line[2:] for line in output.splitlines() if line.startswith("  ")))


def best(record) -> list:
    rows = pq.read_table(record.scored).select(["example_id", "score", "rank", "selected", "base_loss"])
    return rows.to_pylist()


def test_who_has_the_corpus_and_the_table_selects_the_same_rows_without_a_model(shared, monkeypatch):
    record, table, exported = shared
    there = table.parent
    monkeypatch.chdir(there)
    assert "base      40 sequences of base" in exported
    told = CliRunner().invoke(main, ["score-table", "import", str(table)])
    assert told.exit_code == 0, told.output
    (there / "recipe.yaml").write_text(
        yaml.safe_dump(
            told_recipe(told.output)
            | {"corpus": {"paths": "rows.parquet"}, "select": [{"type": "count", "count": 5}]}
        )
    )
    assert not list(there.rglob("*.safetensors"))
    again = pipeline.score(load_recipe("recipe.yaml", []), "recipe", may_measure=False)
    assert best(again) == best(record)
    assert again.measured == {"base": 0, "reference": 0}
    assert (again.models, again.engine.type) == (record.models, "hash")

    more = [*pq.read_table("rows.parquet").to_pylist(), {"question": "New?", "answer": "Yes."}]
    pq.write_table(pa.Table.from_pylist(more), "more.parquet")
    with pytest.raises(
        NotMeasured, match=r"1 of 41 sequences are not measured under base, and its model is not"
    ):
        pipeline.score(load_recipe("recipe.yaml", ["corpus.paths=more.parquet"]), "recipe")
