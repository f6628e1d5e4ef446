"""A night around a run that is finished: what it writes, and how often."""

import pytest

from davir_ray import pipeline
from davir_ray.nightly import night
from davir_ray.runs.record import load_record
from davir_ray.runs.run import load_run_or_recipe
from tests.made_runs import made_run, write_corpus


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a recipe whose run is made by hand, and the list of pages that are written."""
    rows = [{"question": f"{index}?", "answer": "word " * (index + 1), "topic": ""} for index in range(20)]
    write_corpus(tmp_path / "corpus", {"chat": rows})
    folder = made_run(tmp_path, "made-000000000001")
    pages = []

    def score(recipe, name, *, writes_page=True):
        if writes_page:
            pages.append("score")
        return load_record(str(folder))

    def write(run):
        pages.append("night")
        (folder / "report.html").write_text("a page")

    monkeypatch.setattr(pipeline, "score", score)
    monkeypatch.setattr(night, "try_to_write_report", write)
    return load_run_or_recipe(str(folder), ())[0], pages, folder


def test_a_night_writes_its_page_once(written):
    recipe, pages, folder = written
    assert night.run_night(recipe, "made").is_new
    assert not night.run_night(recipe, "made").is_new
    assert pages == ["night"]
    (folder / "report.html").unlink()  # a start that was killed before it wrote the page
    night.run_night(recipe, "made")
    assert pages == ["night", "night"]
