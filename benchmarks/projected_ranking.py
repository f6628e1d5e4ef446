"""How far is the ranking of projected gradients, and that of a bfloat16 base, from the exact one in float32?

    python -m benchmarks.projected_ranking --model quickstart/models/smollm2-135m-instruct --data ../shared/data

The corpus is rows of Alpaca with word problems planted 1 to 20, the target a few other word problems as pairs (see
target_planted.py). After a warm-up of one epoch each row is scored under its checkpoint in both ways: exactly, as
`less` and `rose` do, and by projections as they are stored (float16), as `less_projected` and `rose_projected` do. The
first D of 8192 numbers are a projection to D, so that one pass serves all of them. The exact way is gone once more with
the base in bfloat16, as on a GPU by default; the adapter stays in float32. The table tells the rank correlation with
the exact score (Spearman), how many of the best 5% are the same rows, and the largest and the root-mean-square
difference of the scores beside their own spread.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks.target_planted import LORA, write_data
from davir_ray.influence.adapted import AdaptedModel, load_adapted
from davir_ray.influence.directions import Aligner, target_directions
from davir_ray.influence.moments import Moments, read_moments
from davir_ray.influence.projected import Alignment, ProjectedMeasurer
from davir_ray.influence.projector import Projector, project_target
from davir_ray.influence.target import Target
from davir_ray.inputs import Inputs, check_inputs
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.models.resolve import ResolvedModel
from davir_ray.recipe import parse_recipe
from davir_ray.schema import View
from davir_ray.tokens.views import sequences
from davir_ray.train import steps

DIMENSIONS = (512, 2048, 8192)
Floats = NDArray[np.float64]


def warmed_up(folder: Path, model: str) -> tuple[ResolvedModel, list[TokenSequence], Target]:
    """Make the warm-up, and read the rows and the target's pairs."""
    train = {"learning_rate": 5e-4, "num_train_epochs": 1, "lora": LORA, "zero_stage": None}
    tree: dict[str, Any] = {
        "corpus": {"paths": str(folder / "corpus.parquet")},
        "tokens": {"max_length": 512},
        "models": {"base": model},
        "target": {"paths": str(folder / "target.parquet")},
        "warmup": {"fraction": 0.2, "train": train},
        "score": {"name": "rose"},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    _, recipe = steps.make_models(parse_recipe(tree, "projected"), "projected")
    inputs = check_inputs(recipe)
    assert inputs.few_shot is not None
    (checkpoint,) = inputs.models["warmup"]
    return checkpoint, responses(inputs), inputs.few_shot.target


def responses(inputs: Inputs) -> list[TokenSequence]:
    """Tokenise the rows of a corpus."""
    return [
        TokenSequence(one.ids, one.scored)
        for _, parsed in inputs.parsed()
        if parsed.example is not None
        for one in sequences(parsed.example, inputs.tokenizer, inputs.recipe.tokens, [View.RESPONSE])
    ]


def chosen_sides(target: Target) -> Target:
    """Return the target without its rejected sides."""
    return Target(
        tuple(
            replace(one, rows=tuple(replace(row, rejected=None) for row in one.rows))
            for one in target.subtasks
        )
    )


def exact_scores(
    model: AdaptedModel, moments: Moments, rows: Sequence[TokenSequence], targets: Mapping[str, Target]
) -> dict[str, Floats]:
    """Return the scores of each target's kind, all from one pass [N]."""
    directions = [target_directions(model, one, pairs=one.of_pairs) for one in targets.values()]
    together = {name: torch.cat([one[name] for one in directions]) for name in directions[0]}
    cosines = Aligner(model, together, moments).align(rows)[0].numpy()
    return dict(zip(targets, cosines.T, strict=True))


def projected_scores(
    model: AdaptedModel, stored: pa.Table, targets: Mapping[str, Target]
) -> dict[tuple[str, int], Floats]:
    """Return the scores by what is stored of the rows, for each kind of target and number of dimensions [N]."""
    every = np.array(stored["vector"].to_pylist(), np.float16)
    found = {}
    for name, target in targets.items():
        vectors = {one: some.numpy() for one, some in project_target(model, target).items()}
        for size in DIMENSIONS:
            kept = pa.array(list(every[:, :size]), pa.list_(pa.float16()))
            alignment = Alignment.with_target({one: some[:, :size] for one, some in vectors.items()})
            cosines = alignment(pa.table({"norm": stored["norm"], "vector": kept}))["cosines"]
            found[name, size] = np.array(cosines.to_pylist())[:, 0]
    return found


def agreement(exact: Floats, other: Floats, best: int) -> tuple[float, int]:
    """Return the rank correlation of two scores (Spearman), and how many of their best rows are the same."""
    ranks = [np.argsort(np.argsort(one)) for one in (exact, other)]
    same = set(np.argsort(-exact)[:best]) & set(np.argsort(-other)[:best])
    return float(np.corrcoef(ranks)[0, 1]), len(same)


def compared(exact: Floats, estimated: Floats) -> str:
    """Return the cells of a row of the table."""
    best = max(1, len(exact) // 20)
    correlation, same = agreement(exact, estimated, best)
    off = estimated - exact
    cells = [
        f"{correlation:.3f}",
        f"{same} of {best}",
        f"{np.abs(off).max():.4f}",
        f"{np.sqrt(np.mean(off**2)):.4f}",
        f"{exact.std():.4f}",
    ]
    return " | ".join(cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("projected"))
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = asked.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder, asked.data, asked.rows, asked.shots, asked.seed)
    checkpoint, rows, pairs = warmed_up(folder, str(Path(asked.model).absolute()))
    model, moments = load_adapted(checkpoint, "float32", "cpu"), read_moments(str(checkpoint.adapter_path))
    targets = {"less": chosen_sides(pairs), "rose": pairs}
    started = monotonic()
    exact = exact_scores(model, moments, rows, targets)
    between = monotonic()
    stored = ProjectedMeasurer(Projector(model, moments)).measure(rows)
    ended = monotonic()
    estimated = projected_scores(model, stored, targets)
    parameters = sum(one.linear.weight.numel() for one in model.watched)
    seconds = f"{(between - started) / len(rows):.2f} s a row exactly, {(ended - between) / len(rows):.2f} s projected"
    print(f"{len(rows)} rows, {asked.shots} rows of the target, {parameters:,} parameters; {seconds}")
    titles = ("computed", "Spearman", "of the best 5%", "largest difference", "RMS difference", "spread")
    print(" | ".join(["| score", *titles]) + " |\n| --- |" + " --: |" * len(titles), flush=True)
    for (name, size), scores in estimated.items():
        print(f"| `{name}` | {size:,} dimensions | {compared(exact[name], scores)} |", flush=True)
    narrow = exact_scores(load_adapted(checkpoint, "bfloat16", "cpu"), moments, rows, targets)
    for name, scores in narrow.items():
        print(f"| `{name}` | in bfloat16 | {compared(exact[name], scores)} |", flush=True)


if __name__ == "__main__":
    main()
