"""The dashboard asks for metrics that a run has, and for all of them; tests/ray/test_metrics.py scrapes these."""

import json
import re
from itertools import combinations

from davir_ray.cluster.ray_metrics import METRICS
from tests.conftest import ROOT

DASHBOARD = json.loads((ROOT / "jobs" / "grafana.json").read_text())
PANELS = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
BY_NAME = {one.scraped_as: one for one in METRICS}


def test_every_metric_of_the_dashboard_exists_and_every_metric_is_on_it():
    assert {name for query in QUERIES for name in re.findall(r"ray_davir_\w+", query)} == set(BY_NAME)
    (run,) = (one for one in DASHBOARD["templating"]["list"] if one["name"] == "run")
    (asked,) = re.findall(r"label_values\((\w+), run\)", run["query"]["query"])
    assert asked in BY_NAME


def test_a_query_groups_by_labels_that_its_metric_has_and_takes_rates_of_counters_alone():
    for query in QUERIES:
        (name,) = re.findall(r"ray_davir_\w+", query)
        (labels,) = re.findall(r"by \(([^)]+)\)", query)
        assert set(labels.split(", ")) == {"run", BY_NAME[name].by}
        assert bool(re.search(r"rate\(|increase\(", query)) == (BY_NAME[name].kind == "counter")
        assert query.count("(") == query.count(")")


def test_a_legend_names_labels_of_its_query():
    for panel in PANELS:
        for target in panel["targets"]:
            (labels,) = re.findall(r"by \(([^)]+)\)", target["expr"])
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == set(labels.split(", "))


def test_panels_have_a_place_of_their_own_and_say_what_they_show():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["title"] and panel["description"] for panel in PANELS)
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
