"""A process of its own for what measures with vLLM, which changes the process that it runs in."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT


def in_child(
    module: str, jobs: Sequence[dict], folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Let `python -m tests.real.MODULE JOBS.json` do jobs to its end."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    command = [sys.executable, "-m", f"tests.real.{module}", str(folder / "jobs.json")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
