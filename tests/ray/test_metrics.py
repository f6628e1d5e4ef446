"""What a run says of itself while it works: scraped as Prometheus does it, and in its events, by the same names."""

import json
import shutil
import time
from pathlib import Path
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from davir_ray import pipeline
from davir_ray.cli import main
from davir_ray.cluster.ray_metrics import METRICS
from davir_ray.measure import ray_meter
from davir_ray.recipe import parse_recipe
from davir_ray.runs.events import ANY_EVENT
from davir_ray.runs.record import RunRecord

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ROWS = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(12)] + [
    {"question": "", "answer": ""}
]
Scraped = dict[tuple[str, str], float]
"""Name as it is scraped, and role or status -> value."""


def scrape(run_id: str) -> Scraped:
    """Read the metrics of a run from the port that Prometheus is told of."""
    (node,) = ray.nodes()
    with urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    samples = [one for family in families for one in family.samples if one.labels.get("run") == run_id]
    return {(one.name, one.labels.get("role") or one.labels["status"]): one.value for one in samples}


def scraped_at_the_end(run_id: str) -> Scraped:
    """Scrape until the last metric of a run is there: Ray reports every second here, else every ten."""
    deadline = time.monotonic() + 60
    while ("ray_davir_rows", "ok") not in (found := scrape(run_id)):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    return found


def events(record: RunRecord) -> list[dict]:
    return [json.loads(line) for line in (Path(record.run_dir) / "events.jsonl").read_text().splitlines()]


def recipe(folder: Path, **changes):
    tree = {
        "corpus": {"paths": f"{folder}/rows.parquet"},
        "models": {"base": f"{folder}/base", "reference": f"{folder}/reference"},
        "engine": {"type": "tests.engines:MortalEngine", "num_cpus": 1},
        "store": f"{folder}/store",
        "output": f"{folder}/runs",
    }
    return tree | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_models) -> Path:
    """A corpus, and models of our own: the engine falls once for each."""
    place = tmp_path_factory.mktemp("metrics")
    pq.write_table(pa.Table.from_pylist(ROWS), place / "rows.parquet")
    for model in tiny_models:
        shutil.copytree(model, place / Path(model).name, ignore=shutil.ignore_patterns("*-fell"))
    return place


@pytest.fixture(scope="module")
def first(folder, ray_cluster):
    """A run, with a note at every chunk, and what was scraped at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_meter, "SECONDS_BETWEEN_NOTES", 0.0)
        record = pipeline.score(parse_recipe(recipe(folder), "r"), "first")
    return record, scraped_at_the_end(record.run_id)


def test_a_scrape_has_every_metric_with_what_the_run_did(first):
    record, scraped = first
    assert {name for name, _ in scraped} == {
        one.scraped_as for one in METRICS
    }  # those of the first pass, too
    for role in ("base", "reference"):
        of_role = {
            one.name: scraped[one.scraped_as, role] for one in METRICS if (one.scraped_as, role) in scraped
        }
        assert of_role["sequences"] == record.measured[role] == 12
        assert of_role["counted_tokens"] == record.ranked_tokens
        assert of_role["tokens"] > of_role["counted_tokens"]
        assert of_role["engine_restarts"] == 1
        assert of_role["retried_sequences"] == record.measured_again[role] == 12
        assert (of_role["missing_sequences"], of_role["reuse_share"]) == (0, 0)
        assert of_role["engine_seconds"] > 0
        assert of_role["tokens_per_second"] > 0
    assert {status: scraped["ray_davir_rows", status] for status in record.status} == record.status


def test_the_events_of_a_run_fit_their_schema_and_say_the_same_by_the_same_names(first):
    record, scraped = first
    for event in events(record):
        ANY_EVENT.validate_python(event)
    for role in ("base", "reference"):
        *_, last = (one for one in events(record) if one["event"] == "progress" and one["role"] == role)
        counted = {one.name: one.scraped_as for one in METRICS if one.by == "role"}
        told = {name: last[name] for name in counted}
        assert told == pytest.approx({name: scraped[at, role] for name, at in counted.items()}, abs=0.06)
    assert [one["rows"] for one in events(record) if one["event"] == "chosen"] == [record.status]


def test_a_choice_among_what_is_measured_reuses_all_of_it_and_quietly(first, folder):
    again = recipe(folder, select=[{"type": "count", "count": 3}])
    (folder / "again.json").write_text(json.dumps(again))
    told = CliRunner().invoke(main, ["select", str(folder / "again.json"), "--quiet", "--json"])
    assert (told.exit_code, told.stderr) == (0, "")
    record = json.loads(told.stdout.splitlines()[-1])
    scraped = scraped_at_the_end(record["run_id"])
    assert scraped["ray_davir_reuse_share", "base"] == scraped["ray_davir_reuse_share", "reference"] == 1
    assert ("ray_davir_sequences_total", "base") not in scraped
