"""How far off are bfloat16 and float16, a token and a row, and what does that do to DavIR?

    python -m benchmarks.number_noise --model quickstart/models/smollm2-135m-instruct --data ../shared/data

Rows of Alpaca are measured under the base and a reference (LoRA, one epoch on the same rows) by the transformers engine
in float32 and in each narrow dtype; `--device cuda` does so on a GPU, and `--engine vllm` with vLLM. The first table
tells the error of a token's log-probability (root mean square, and the largest), and that of a row's summed loss over
the square root of its tokens: were the errors of tokens independent, the two would be the same number. The second tells
what becomes of DavIR: the rank correlation with float32 (Spearman), and how many of the best 6% are the same rows.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.projected_ranking import agreement, responses
from benchmarks.target_planted import LORA, rows_of
from davir_ray.config import EngineConfig
from davir_ray.inputs import check_inputs
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.models.resolve import ResolvedModel
from davir_ray.recipe import parse_recipe
from davir_ray.train import steps

NARROW = ("bfloat16", "float16")
SHARE = 0.06
Floats = NDArray[np.float64]


def prepared(folder: Path, model: str, device: str) -> tuple[dict[str, ResolvedModel], list[TokenSequence]]:
    """Make the reference, and return both models and the rows."""
    train = {"learning_rate": 2e-4, "num_train_epochs": 1, "lora": LORA, "zero_stage": None}
    tree: dict[str, Any] = {
        "corpus": {"paths": str(folder / "corpus.parquet")},
        "tokens": {"max_length": 512},
        "models": {"base": model},
        "reference": {"fit": "whole", "train": train},
        "engine": {"type": "transformers", "device": device},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    _, recipe = steps.make_models(parse_recipe(tree, "noise"), "noise")
    inputs = check_inputs(recipe)
    return {role: inputs.models[role][0] for role in ("base", "reference")}, responses(inputs)


def logprobs(
    model: ResolvedModel, engine: str, dtype: str, device: str, rows: list[TokenSequence]
) -> list[Floats]:
    """Measure all rows with an engine of its own."""
    made = build_engine(Choice(engine, dtype, device, ""), EngineConfig(), model, 512)
    try:
        return [one.astype(np.float64) for one in made.logprobs(rows)]
    finally:
        made.close()


def token_noise(exact: list[Floats], narrow: list[Floats]) -> str:
    """Return the cells of the first table."""
    off = np.concatenate(narrow) - np.concatenate(exact)
    sums = np.array([(a - b).sum() / len(a) ** 0.5 for a, b in zip(narrow, exact, strict=True)])
    return f"{np.sqrt(np.mean(off**2)):.4f} | {np.abs(off).max():.3f} | {np.sqrt(np.mean(sums**2)):.4f}"


def davir(base: list[Floats], reference: list[Floats]) -> Floats:
    """Return the score of each row, from its log-probabilities."""
    losses = [np.array([-one.sum() for one in some]) for some in (base, reference)]
    scores: Floats = (losses[0] - losses[1]) / losses[0]
    return scores


def ranking_noise(exact: Floats, narrow: Floats) -> str:
    """Return the cells of the second table."""
    best = max(1, round(SHARE * len(exact)))
    correlation, same = agreement(exact, narrow, best)
    off = narrow - exact
    return f"{correlation:.4f} | {same} of {best} | {np.sqrt(np.mean(off**2)):.5f} | {exact.std():.4f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("noise"))
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=NARROW)
    asked = parser.parse_args()
    folder = asked.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in rows_of(asked.data, "alpaca-5k") if len(row["answer"]) < 1500]
    picked = np.random.default_rng(0).permutation(len(rows))[: asked.rows]
    pq.write_table(pa.Table.from_pylist([rows[i] for i in picked]), folder / "corpus.parquet")
    models, found = prepared(folder, str(Path(asked.model).absolute()), asked.device)
    measured = {
        (role, dtype): logprobs(model, asked.engine, dtype, asked.device, found)
        for role, model in models.items()
        for dtype in ("float32", *asked.dtypes)
    }
    tokens = sum(int(one.scored.sum()) for one in found)
    print(f"{len(found)} rows, {tokens:,} counted tokens, {asked.engine}, {asked.device}\n")
    print(
        "| model | dtype | RMS error a token | largest | row's error / sqrt(tokens) |\n| --- | --- | --: | --: | --: |"
    )
    for (role, dtype), values in measured.items():
        if dtype != "float32":
            print(f"| {role} | {dtype} | {token_noise(measured[role, 'float32'], values)} |")
    exact = davir(measured["base", "float32"], measured["reference", "float32"])
    print(f"\n| dtype | Spearman | of the best {SHARE:.0%} | RMS error of the score | its spread |")
    print("| --- | --: | --: | --: | --: |")
    for dtype in asked.dtypes:
        narrow = davir(measured["base", dtype], measured["reference", dtype])
        print(f"| {dtype} | {ranking_noise(exact, narrow)} |")


if __name__ == "__main__":
    main()
