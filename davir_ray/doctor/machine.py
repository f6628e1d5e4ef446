"""Python, and the NVIDIA driver beside the build of torch."""

import platform
import shutil
import subprocess
import sys
from typing import Any

from packaging.specifiers import SpecifierSet

from davir_ray.doctor.finding import Finding
from davir_ray.doctor.packages import python_required

QUERY = ("--query-gpu=name,driver_version", "--format=csv,noheader")
SECONDS = 60.0
NO_GPU = 6
"""The exit code of nvidia-smi where the driver finds no GPU."""


def look_at_python() -> Finding:
    """Tell whether this Python is one that davir_ray runs on."""
    version, needed = platform.python_version(), python_required()
    if SpecifierSet(needed).contains(version, prereleases=True):
        return Finding("Python", "ok", f"{version} ({sys.executable})")
    mend = "python3.12 -m venv .venv && .venv/bin/pip install ."
    return Finding("Python", "wrong", version, f"needs {needed}", mend)


def look_at_gpus(torch: dict[str, Any] | None) -> Finding:
    """Tell whether torch can use the GPUs of this machine. Without any it is well: models run on its CPU.

    torch: what it said of itself when it was imported; None if it cannot be.
    """
    program = shutil.which("nvidia-smi")
    listed, why = _query(program) if program else ([], "")
    if why:
        return Finding(
            "GPU", "wrong", "", f"nvidia-smi fails: {why}", "sudo reboot  # or install the driver anew"
        )
    if not listed:
        return Finding("GPU", "ok", "none that nvidia-smi knows; models run on the CPU")
    found = "; ".join(dict.fromkeys(listed))
    if torch is None or torch["gpus"]:
        return Finding("GPU", "ok", f"{len(listed)} x {found}")
    if torch["cuda"] is None:
        problem = "torch is a build for CPUs and uses none of them"
        return Finding(
            "GPU", "wrong", found, problem, "pip install --force-reinstall torch  # a CUDA build of it"
        )
    problem = f"torch is built for CUDA {torch['cuda']} and cannot use them: {torch.get('why', 'it does not say why')}"
    return Finding("GPU", "wrong", found, problem, f"install a driver that knows CUDA {torch['cuda']}")


def _query(program: str) -> tuple[list[str], str]:
    """Return a line a GPU, with its name and the version of the driver; and what went wrong, or nothing."""
    try:
        done = subprocess.run(
            [program, *QUERY], capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode == NO_GPU:
        return [], ""
    if done.returncode:
        return [], next(iter(said), f"exit code {done.returncode}")
    return [line.replace(",", ", driver", 1) for line in said], ""
