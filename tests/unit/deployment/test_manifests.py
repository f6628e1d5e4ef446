"""The manifests fit the schemas that are published for them, each other, and this repository. Nothing was applied."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.conftest import ROOT

HERE = Path(__file__).parent
SCHEMAS = {name: json.loads((HERE / f"{name}.json").read_text()) for name in ("kubernetes", "kuberay")}
REGISTRY = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
MANIFESTS = {
    "jobs/raycluster.yaml": "kuberay#/$defs/RayCluster",
    "jobs/rayjob.yaml": "kuberay#/$defs/RayJob",
    "jobs/nightly-cronjob.yaml": "kubernetes#/$defs/CronJob",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def manifest(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


def complaints(name: str, tree: dict) -> list[str]:
    """Return where a manifest does not fit its schema."""
    check = Draft202012Validator({"$ref": MANIFESTS[name]}, registry=REGISTRY)
    return [error.json_path for error in check.iter_errors(tree)]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_fits_its_schema(name):
    assert complaints(name, manifest(name)) == []


HEAD = ("headGroupSpec", "template", "spec", "containers", 0)
JOB = ("jobTemplate", "spec", "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("jobs/raycluster.yaml", ("spec", "authOptions", "mode"), "tokens"),
        ("jobs/raycluster.yaml", ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("jobs/raycluster.yaml", ("spec", "workerGroups"), []),
        ("jobs/raycluster.yaml", ("spec", *HEAD, "imagePullPolicy"), 1),
        ("jobs/raycluster.yaml", ("spec", *HEAD, "resource"), {}),
        ("jobs/rayjob.yaml", ("spec", "rayClusterSpec", *HEAD, "ports", 0, "containerPort"), "6379"),
        ("jobs/rayjob.yaml", ("spec", "rayClusterSpec", "headGroupSpec", "template"), None),
        ("jobs/rayjob.yaml", ("spec", "ttlSecondsAfterFinished"), "10m"),
        ("jobs/nightly-cronjob.yaml", ("spec", "schedule"), 230),
        ("jobs/nightly-cronjob.yaml", ("spec", *JOB, "env", 0, "value"), True),
        ("jobs/nightly-cronjob.yaml", ("spec", *JOB, "environment"), []),
    ],
)
def test_a_mistake_in_a_manifest_is_noticed(name, path, value):
    tree = manifest(name)
    *way, last = path
    place = tree
    for step in way:
        place = place[step]
    place[last] = value
    assert complaints(name, tree)


def test_the_job_brings_the_cluster_of_the_other_manifest():
    cluster = manifest("jobs/raycluster.yaml")["spec"]
    assert manifest("jobs/rayjob.yaml")["spec"]["rayClusterSpec"] == cluster
    (ray,) = (one for one in PROJECT["dependencies"] if one.startswith("ray["))
    assert ray.endswith(f"=={cluster['rayVersion']}")


def test_the_night_is_submitted_to_that_cluster_with_its_token():
    name = manifest("jobs/raycluster.yaml")["metadata"]["name"]
    (container,) = manifest("jobs/nightly-cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"][
        "containers"
    ]
    env = {one["name"]: one for one in container["env"]}
    assert env["RAY_AUTH_MODE"]["value"] == "token"
    assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token"}
    assert f"--address=http://{name}-head-svc:8265" in container["command"]


def test_a_job_starts_files_that_are_there():
    words = manifest("jobs/rayjob.yaml")["spec"]["entrypoint"].split()
    assert words[0] == "python"
    for word in words[1:]:
        assert (ROOT / word.removeprefix("/opt/davir_ray/")).is_file()


IMAGES = [f"jobs/{path.name}" for path in (ROOT / "jobs").glob("*.Dockerfile")]
EXAMPLES = [*MANIFESTS, "cluster.yaml", "docs/cluster.md", "docs/nightly.md", *sorted(IMAGES)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_asks_for_a_token_and_opens_no_dashboard(name):
    text = (ROOT / name).read_text()
    assert re.search(r"RAY_AUTH_MODE(=|, value: )token|authOptions: \{mode: token\}", text)
    assert not re.search(r"dashboard-host(=|: *)(?!127\.0\.0\.1)", text)
    assert not re.search(r"0\.0\.0\.0|LoadBalancer|NodePort", text)
