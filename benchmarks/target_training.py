"""Does a model trained on the rows that a score chose for a target prefer as the target does? Alpaca, and pairs of HH.

    python -m benchmarks.target_training --model quickstart/models/smollm2-135m-instruct --data ../shared/data

The pool is rows of Alpaca, the target a few pairs of HH (helpful). For each score `davir run` goes from nothing to a
model: warm-up or reference, scores, the best rows of as many response tokens, SFT on them. Another seed draws another
pool, other pairs and another order of training. The same held-out pairs judge every model:

prefers    pairs whose chosen side has the larger summed log-probability
a token    pairs whose chosen side has the larger mean log-probability
learned    pairs whose chosen side has gained more log-probability over the base than the rejected one
margin     how much more it has gained, nats: the mean over pairs

A line a score: means over the seeds, and of the differences from random rows an interval of 95% (bootstrap over pairs
of their means over the seeds). Figures are written to benchmarks/target_training.json as they come; a stopped
benchmark goes on where it was.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.target_planted import LORA, ON_TARGET, rows_of
from benchmarks.target_step import interval
from davir_ray import pipeline
from davir_ray.config import ModelConfig
from davir_ray.inputs import check_inputs
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.models.resolve import resolve, resolve_reference
from davir_ray.recipe import Recipe, parse_recipe

TRAIN = {"learning_rate": 5e-4, "num_train_epochs": 1, "lora": LORA, "zero_stage": None}
WARMUP = {"fraction": 0.2, "train": {**TRAIN, "num_train_epochs": 2}}
TOV = {**ON_TARGET, "train": {"learning_rate": 5e-5, "num_train_epochs": 1, "zero_stage": None}}
SCORES: dict[str, dict[str, Any]] = {
    "random": {},
    "tov": {"warmup": WARMUP, "references": {"target": TOV}},
    "davir": {"reference": {"fit": "sample", "fraction": 0.2, "train": TRAIN}},
    "rose": {"warmup": WARMUP},
}
"""Score -> what its recipe has beside it."""
Margins = NDArray[np.float64]
"""Of each held-out pair, how much larger the log-probability of the chosen side is: summed, and a token [pairs, 2]."""


def main() -> None:
    """Run what is not in the file yet; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("target_training"))
    parser.add_argument("--figures", type=Path, default=Path("benchmarks/target_training.json"))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=1500, help="response tokens that are trained on")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=100, help="that are held out")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    found: dict[str, list[list[float]]] = (
        json.loads(asked.figures.read_text()) if asked.figures.exists() else {}
    )
    base = str(Path(asked.model).absolute())
    for seed in range(asked.seeds):
        folder = (asked.out / str(seed)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        write_data(folder, asked, seed)
        for title in (*(["base"] if seed == 0 else []), *(f"{name} {seed}" for name in SCORES)):
            if title not in found:
                name = title.split()[0]
                adapter = (
                    None if name == "base" else trained(recipe_of(name, folder, base, asked.tokens, seed))
                )
                margins = judged(recipe_of("rose", folder, base, asked.tokens, seed, "held_out"), adapter)
                found[title] = margins.round(4).tolist()
                asked.figures.write_text(json.dumps(found) + "\n")
    print_table({name: np.array(margins) for name, margins in found.items()}, asked.seeds)


def write_data(folder: Path, asked: argparse.Namespace, seed: int) -> None:
    """Write pool, target, and the pairs that are held out: the same for every seed."""
    alpaca = [row for row in rows_of(asked.data, "alpaca-5k") if 20 < len(row["answer"]) < 400]
    pairs = [
        row
        for file in sorted((asked.data / "hh-helpful").glob("*"))
        for row in pq.read_table(file).to_pylist()
    ]
    pairs = [row for row in pairs if len(str(row)) < 1000]
    order = np.random.default_rng(1000).permutation(len(pairs))
    held_out, rest = order[: asked.pairs], order[asked.pairs :]
    random = np.random.default_rng(seed)
    some = {
        "corpus": [alpaca[i] for i in random.permutation(len(alpaca))[: asked.rows]],
        "target": [pairs[i] for i in random.permutation(rest)[: asked.shots]],
        "held_out": [pairs[i] for i in held_out],
    }
    for name, rows in some.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


def recipe_of(name: str, folder: Path, base: str, tokens: int, seed: int, target: str = "target") -> Recipe:
    """Return the recipe of a score; its target may be the pairs that are held out."""
    more = json.loads(json.dumps(SCORES[name]))
    for one in (more.get("warmup"), more.get("reference"), more.get("references", {}).get("target")):
        if one is not None:
            one["train"]["seed"] = seed
    aimed = name in ("rose", "tov")
    tree = {
        "corpus": {"paths": str(folder / "corpus.parquet")},
        "tokens": {"max_length": 320},
        "models": {"base": base},
        **({"target": {"paths": str(folder / f"{target}.parquet")}} if aimed else {}),
        "score": {"name": name, **({"seed": seed} if name == "random" else {})},
        "select": [{"type": "token_budget", "tokens": tokens}],
        "train": {"objective": "sft", **TRAIN, "num_train_epochs": 2, "seed": seed},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
        **more,
    }
    return parse_recipe(tree, "training")


def trained(recipe: Recipe) -> str:
    """Run the whole job; return the folder of the model that it trained."""
    record = pipeline.run_all(recipe, "training")
    assert record.train is not None
    return record.train.model


def judged(recipe: Recipe, adapter: str | None) -> Margins:
    """Return the margins of the pairs that are the recipe's target, under its base with an adapter."""
    few = check_inputs(recipe, needs=()).few_shot
    assert few is not None
    pairs = [row for subtask in few.target.subtasks for row in subtask.rows]
    base = resolve(recipe.models.base)
    path = adapter and resolve_reference(base, ModelConfig(model_name_or_path=adapter)).adapter_path
    engine = TransformersEngine(base.model_path, adapter_path=path, dtype="float32", device="cpu")
    chosen = engine.logprobs([pair.chosen for pair in pairs])
    rejected = engine.logprobs([pair.rejected for pair in pairs if pair.rejected is not None])
    engine.close()
    return np.array(
        [
            [won.sum() - lost.sum(), won.mean() - lost.mean()]
            for won, lost in zip(chosen, rejected, strict=True)
        ]
    )


def print_table(found: Mapping[str, Margins], seeds: int) -> None:
    """Print a line a score."""
    print("| rows by | prefers | a token | learned | margin | prefers, less random | margin, less random |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    of_random = [figures_of(found, "random", seed) for seed in range(seeds)]
    for name in ("base", *SCORES):
        own = [figures_of(found, name, seed) for seed in range(seeds)]
        means = np.mean([one.mean(axis=0) for one in own], axis=0)
        less = np.mean([one - other for one, other in zip(own, of_random, strict=True)], axis=0)
        told = [f"{value:.3f}" for value in means] + [interval(less[:, column], 3) for column in (0, 3)]
        print(f"| {name} | {' | '.join(told)} |")


def figures_of(found: Mapping[str, Margins], name: str, seed: int) -> Margins:
    """Return of each pair: preferred, preferred a token, learned, and the margin gained over the base [pairs, 4]."""
    own, base = found["base" if name == "base" else f"{name} {seed}"], found["base"]
    gained = own[:, 0] - base[:, 0]
    return np.stack([own[:, 0] > 0, own[:, 1] > 0, gained > 0, gained], axis=1).astype(float)


if __name__ == "__main__":
    main()
