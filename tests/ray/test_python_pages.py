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

    first, again = blocks("docs/python.md", "python")
    names: dict = {}
    exec(first, names)
    assert names["record"].selected == 5
    assert sum(names["record"].measured.values()) == 80
    exec(again, names)
    assert names["record"].score == "rho_mean"
    assert set(names["record"].measured.values()) == {0}
    (reading,) = (block for block in blocks("docs/results.md", "python") if "load_dataset" in block)
    names = {"load_dataset": load_dataset, "run_id": names["record"].run_id}
    exec(reading.replace("<run_id>", names["run_id"]), names)
    assert names["coreset"].column_names[:2] == ["question", "answer"]
