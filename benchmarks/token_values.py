"""What ranks and entropies cost on a CPU, beside log-probabilities alone.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.token_values --model quickstart/models/smollm2-135m-instruct

The transformers engine measures the same rows in turn, with nothing, ranks, entropies and both wanted, several times
over. With OMP_NUM_THREADS=1 it counts CPU seconds, which other programs disturb less than the time on the clock.
Prints a table, and writes benchmarks/token_values.json.
"""

import argparse
import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_speed import ROOT, now, read_rows
from davir_ray.logprobs.engine import TokenSequence, Wanted
from davir_ray.logprobs.hf.engine import TransformersEngine

WANTED: dict[str, Wanted] = {
    "log-probabilities": frozenset(),
    "and ranks": frozenset({"rank"}),
    "and entropies": frozenset({"entropy"}),
    "and both": frozenset({"rank", "entropy"}),
}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "data" / "alpaca-5k")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "token_values.json")
    options = parser.parse_args()
    sequences = read_rows(options.corpus, options.model, options.rows)
    seconds = time_all(TransformersEngine(options.model), sequences, options.repeats)
    figures = facts(sequences) | {"results": table(seconds)}
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    for line in figures["results"]:
        print(f"{line['wanted']:<20}{line['median']:>8.2f} s{line['ratio']:>8.3f}   {line['ratios']}")


def time_all(
    engine: TransformersEngine, sequences: Sequence[TokenSequence], repeats: int
) -> dict[str, list[float]]:
    """Time each wish in turn, `repeats` times over, so that noise hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in WANTED}
    for wanted in WANTED.values():
        engine.token_values(sequences[:8], wanted)
    for _ in range(repeats):
        for name, wanted in WANTED.items():
            start = now()
            engine.token_values(sequences, wanted)
            seconds[name].append(now() - start)
    return seconds


def table(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Set each wish against log-probabilities alone: the median of the rounds' ratios."""
    plain = seconds["log-probabilities"]
    lines = []
    for name, values in seconds.items():
        ratios = [one / other for one, other in zip(values, plain, strict=True)]
        lines.append(
            {
                "wanted": name,
                "median": round(statistics.median(values), 2),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            }
        )
    return lines


def facts(sequences: Sequence[TokenSequence]) -> dict[str, Any]:
    """Say what was measured, and by which commit."""
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "threads": torch.get_num_threads(),
        "rows": len(sequences),
        "tokens": sum(len(one.ids) for one in sequences),
        "scored": sum(int(one.scored.sum()) for one in sequences),
    }


if __name__ == "__main__":
    main()
