"""The notebook of the documents, executed by a kernel of its own in an empty folder, on the cluster of the tests."""

import os

import nbformat
import pytest
import ray
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def results(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what the last line of each cell came to, as text."""
    outputs = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    return [one.data["text/plain"] for one in outputs if one.output_type == "execute_result"]


def test_the_notebook_runs_and_comes_to_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    rows, scored, table, groups, correlation, first, chosen, both, same = results(notebook)
    assert (rows, scored) == ("65", "(65, {'duplicate': 5, 'ok': 60}, 12)")
    assert "reference_loss" in table
    assert "big sum" in groups
    assert -1 <= float(correlation) <= 1
    assert "'davir_rank': 1" in first
    assert chosen == "[('davir', 6, 0), ('rho_mean', 6, 0)]"
    assert both.endswith("of 6 rows are in both core-sets'")
    assert same == "True"


def test_the_notebook_is_committed_without_what_a_run_of_it_printed():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count] == []
