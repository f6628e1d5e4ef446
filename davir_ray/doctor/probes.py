"""Importing what may crash, each in a process of its own: a library that is broken must not take the doctor along."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

SECONDS = 300.0
"""How long an import may take: the first of a cold disk takes minutes."""
TORCH = """\
import torch
facts = {"cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}
if torch.version.cuda and not torch.cuda.is_available():
    try: torch.cuda.init()
    except Exception as error: facts["why"] = str(error).splitlines()[0]
"""
IMPORTS = {
    "ray": "import ray, ray.data, ray.train",
    "torch": TORCH,
    "transformers": "import transformers.models.llama.modeling_llama",
    "peft": "from peft import LoraConfig, PeftModel",
    "datasets": "from datasets import load_dataset",
    "trl": "from trl import DPOTrainer, SFTTrainer",
    "deepspeed": "import deepspeed",
    "vllm": "from vllm import LLM, SamplingParams",
    "numpy": "import numpy",
    "pyarrow": "import pyarrow.parquet",
}
"""Module -> what davir_ray imports of it, of modules with machine code of their own or of others'."""
BESIDE_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""Modules that transformers imports where they are there, and that davir_ray has no use for."""
PROGRAM = """\
import json, sys, traceback
facts = {}
try:
    exec(sys.argv[1])
except BaseException as error:
    chain = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    first = chain[-1]
    files = [frame.filename for one in reversed(chain) for frame in reversed(traceback.extract_tb(one.__traceback__))]
    text = next((line.strip() for line in str(first).splitlines() if line.strip()), "it says nothing")
    facts = {"error": f"{type(first).__name__}: {text}", "files": files}
sys.stdout.flush()
print()
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Probe:
    """What came of an import.

    error: what it failed with; empty if it did not. files: those on the way to where that was raised, innermost first.
    facts: what the import told of itself. is_late: whether it did not end in time, which a busy machine may be why of.
    """

    error: str = ""
    files: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    is_late: bool = False


def probe(code: str) -> Probe:
    """Run an import in a process of its own; tell what came of it."""
    command = [sys.executable, "-c", PROGRAM, code]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Probe(f"not done after {SECONDS:.0f} seconds", is_late=True)
    if done.returncode:
        return Probe(_ending(done.returncode))
    told = json.loads(done.stdout.rstrip().rsplit("\n", 1)[-1])
    return Probe(told.pop("error", ""), tuple(told.pop("files", ())), told)


def _ending(code: int) -> str:
    if code >= 0:
        return f"the import ends the process with exit code {code}"
    try:
        return f"the import ends the process with {signal.Signals(-code).name}"
    except ValueError:
        return f"the import ends the process with signal {-code}"
