"""Imports that fail, crash and hang, in processes of their own; and the driver beside the build of torch."""

import pytest
from packaging.requirements import Requirement

from davir_ray.doctor import probes
from davir_ray.doctor.examine import _with_probe
from davir_ray.doctor.machine import look_at_gpus, look_at_python
from davir_ray.doctor.packages import Required, look_at, python_required
from davir_ray.doctor.probes import Probe, probe


def test_an_import_that_works_tells_facts_whatever_it_prints():
    came = probe("print('noise, without end', end=''); facts = {'cuda': None}")
    assert (came.error, came.facts) == ("", {"cuda": None})


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import ctypes; ctypes.string_at(0)", "the import ends the process with SIGSEGV"),
        ("import os; os._exit(3)", "the import ends the process with exit code 3"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise OSError", "OSError: it says nothing"),
    ],
)
def test_an_import_that_fails_or_crashes_is_told_in_a_line(code, error):
    assert probe(code).error == error


def test_the_first_cause_is_told_with_the_files_on_its_way(tmp_path, monkeypatch):
    (tmp_path / "outer_one.py").write_text(
        "try:\n    import inner_one\nexcept OSError as error:\n    raise RuntimeError('could not') from error\n"
    )
    (tmp_path / "inner_one.py").write_text(
        "raise OSError('libcudart.so.13: cannot open\\nshared object file')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    came = probe("import outer_one")
    assert came.error == "OSError: libcudart.so.13: cannot open"
    files = [file for file in came.files if file.startswith(str(tmp_path))]
    assert [file.rsplit("/", 1)[-1] for file in files] == ["inner_one.py", "outer_one.py", "outer_one.py"]


def test_an_import_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(probes, "SECONDS", 0.5)
    came = probe("import time; time.sleep(60)")
    assert (came.error, came.is_late) == ("not done after 0 seconds", True)


SITE = "/v/lib/python3.11/site-packages"


@pytest.mark.parametrize(
    ("files", "raised", "mend"),
    [
        ((f"{SITE}/transformers/a.py",), "", "pip install --force-reinstall --no-deps transformers=="),
        (("/old/scipy/__init__.py", f"{SITE}/transformers/a.py"), " (raised in scipy)", "unset PYTHONPATH"),
        (
            (f"{SITE}/yaml/a.py",),
            " (raised in yaml)",
            "pip install --force-reinstall --no-deps PyYAML==",
        ),
        (("<string>",), "", "pip install --force-reinstall --no-deps transformers=="),
    ],
)
def test_a_failed_import_is_laid_to_the_module_that_it_was_raised_in(files, raised, mend):
    one = Required(Requirement("transformers>=5"))
    came = _with_probe(one, look_at(one, True), Probe("OSError: no", files), {"scipy": "unset PYTHONPATH"})
    assert (came.state, came.problem) == ("wrong", f"cannot be imported: OSError: no{raised}")
    assert came.mend.lower().startswith(mend.lower())


ON_CPU, ON_GPU = {"cuda": None, "gpus": 0}, {"cuda": "13.0", "gpus": 2}
TOO_OLD = {"cuda": "13.0", "gpus": 0, "why": "The NVIDIA driver on your system is too old"}
LISTS = "echo 'NVIDIA H100 80GB HBM3, 550.54.15'; echo 'NVIDIA H100 80GB HBM3, 550.54.15'"
FAILS = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"


@pytest.mark.parametrize(
    ("program", "torch", "state", "told"),
    [
        (None, ON_CPU, "ok", "none that nvidia-smi knows; models run on the CPU"),
        (LISTS, ON_GPU, "ok", "2 x NVIDIA H100 80GB HBM3, driver 550.54.15"),
        (LISTS, None, "ok", "2 x NVIDIA H100 80GB HBM3, driver 550.54.15"),
        (LISTS, ON_CPU, "wrong", "torch is a build for CPUs and uses none of them"),
        (LISTS, TOO_OLD, "wrong", f"torch is built for CUDA 13.0 and cannot use them: {TOO_OLD['why']}"),
        (
            FAILS,
            ON_GPU,
            "wrong",
            "nvidia-smi fails: Failed to initialize NVML: Driver/library version mismatch",
        ),
        ("exit 9", ON_GPU, "wrong", "nvidia-smi fails: exit code 9"),
        ("echo No devices were found; exit 6", ON_GPU, "ok", "none that nvidia-smi knows"),
    ],
)
def test_the_driver_is_looked_at_beside_the_build_of_torch(
    tmp_path, monkeypatch, program, torch, state, told
):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if program is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    found = look_at_gpus(torch)
    assert found.state == state
    assert told in (found.problem or found.found)
    assert bool(found.mend) == (state == "wrong")


def test_this_python_is_well_and_one_that_is_too_old_is_not(monkeypatch):
    assert look_at_python().state == "ok"
    monkeypatch.setattr("platform.python_version", lambda: "3.10.14")
    assert (look_at_python().state, look_at_python().problem) == ("wrong", f"needs {python_required()}")
