"""Does a step along the rows that ROSE ranks first lower the preference loss more than one along the last?

    python -m benchmarks.target_step --model quickstart/models/smollm2-135m-instruct --data ../shared/data

The corpus is rows of Alpaca, the target a few pairs of HH (helpful). After the whole job with score `rose`, the
adapter of its last checkpoint is moved a little along the mean of Adam's normalised steps on the best rows, and along
that on the worst, by the same length. DPO's loss (beta 0.1, the frozen policy is the base) is taken before and after,
on the target's own pairs and on others that nothing has seen. The table tells the mean change a pair, with a
bootstrap interval of 95%.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from benchmarks.target_planted import LORA, rows_of
from davir_ray import pipeline
from davir_ray.config import ModelConfig
from davir_ray.influence.adapted import AdaptedModel, load_adapted
from davir_ray.influence.directions import Aligner
from davir_ray.influence.gradients import mean_loss_weights, visit_gradients
from davir_ray.influence.moments import read_moments
from davir_ray.influence.target import TargetRow
from davir_ray.inputs import check_inputs
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.model import set_attention
from davir_ray.models.resolve import resolve, resolve_reference
from davir_ray.recipe import Recipe, parse_recipe
from davir_ray.tokens.views import sequences

BETA = 0.1
LENGTHS = (0.03, 0.1)
"""How far the adapter is moved, as a share of the length of its parameters."""


def write_data(folder: Path, data: Path, rows: int, shots: int, unseen: int, seed: int) -> None:
    """Write the corpus, the target, and pairs that nothing sees before the end."""
    random = np.random.default_rng(seed)
    alpaca = [row for row in rows_of(data, "alpaca-5k") if 20 < len(row["answer"]) < 400]
    pairs = [
        row for file in sorted((data / "hh-helpful").glob("*")) for row in pq.read_table(file).to_pylist()
    ]
    pairs = [row for row in pairs if max(len(row["chosen"]), len(row["rejected"])) < 600]
    few = [pairs[i] for i in random.permutation(len(pairs))[: shots + unseen]]
    picked = [alpaca[i] for i in random.permutation(len(alpaca))[:rows]]
    for name, some in (("corpus", picked), ("target", few[:shots]), ("unseen", few[shots:])):
        pq.write_table(pa.Table.from_pylist(some), folder / f"{name}.parquet")


def recipe_of(folder: Path, model: str, target: str = "target") -> Recipe:
    """Return the recipe; its target may be the pairs that are kept for the end."""
    train = {"learning_rate": 5e-4, "num_train_epochs": 1, "lora": LORA, "zero_stage": None}
    tree: dict[str, Any] = {
        "corpus": {"paths": str(folder / "corpus.parquet")},
        "tokens": {"max_length": 320},
        "models": {"base": model},
        "target": {"paths": str(folder / f"{target}.parquet")},
        "warmup": {"fraction": 0.3, "train": train},
        "score": {"name": "rose"},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    return parse_recipe(tree, "step")


def mean_step(model: AdaptedModel, aligner: Aligner, rows: Sequence[TokenSequence]) -> dict[str, Tensor]:
    """Return the mean of the rows' normalised steps by parameter, of length 1."""
    total: dict[str, Tensor] = {}
    for row in rows:
        steps: dict[str, Tensor] = {}
        keep = partial(_keep, steps, aligner)
        visit_gradients(model, [row], mean_loss_weights([row]), keep)
        length = sum(one.square().sum() for one in steps.values()).sqrt()  # type: ignore[union-attr]
        for name, one in steps.items():
            total[name] = total.get(name, 0) + one / length
    length = sum(one.square().sum() for one in total.values()).sqrt()  # type: ignore[union-attr]
    return {name: one / length for name, one in total.items()}


def _keep(steps: dict[str, Tensor], aligner: Aligner, name: str, gradients: Tensor) -> None:
    steps[name] = aligner.steps(name, gradients)[0]


@torch.no_grad()
def summed_logprob(model: AdaptedModel, row: TokenSequence) -> float:
    """Return the log-probability of a sequence's counted tokens."""
    ids = torch.from_numpy(row.ids.astype(np.int64))
    logprobs = model.inner(input_ids=ids[None]).logits[0].log_softmax(-1)
    counted = np.flatnonzero(row.scored)
    return float(logprobs[counted - 1, ids[counted]].double().sum())


def dpo_losses(model: AdaptedModel, pairs: Sequence[TargetRow], frozen: Sequence[float]) -> np.ndarray:
    """Return DPO's loss of each pair. frozen: the log-ratio of its sides under the base."""
    margins = [_margin(model, pair) - base for pair, base in zip(pairs, frozen, strict=True)]
    return np.logaddexp(0, -BETA * np.array(margins))


def _margin(model: AdaptedModel, pair: TargetRow) -> float:
    assert pair.rejected is not None
    return summed_logprob(model, pair.chosen) - summed_logprob(model, pair.rejected)


def moved(model: AdaptedModel, step: dict[str, Tensor], length: float) -> None:
    """Move the adapter against a step, as training does."""
    with torch.no_grad():
        for one in model.watched:
            one.linear.weight.sub_(step[one.name] * length)


def interval(changes: np.ndarray, digits: int = 5) -> str:
    """Return the mean and a bootstrap interval of it."""
    random = np.random.default_rng(0)
    means = [changes[random.integers(0, len(changes), len(changes))].mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{changes.mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("step"))
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--best", type=int, default=12)
    parser.add_argument("--shots", type=int, default=12)
    parser.add_argument("--unseen", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder, base = asked.out.absolute(), str(Path(asked.model).absolute())
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder, asked.data, asked.rows, asked.shots, asked.unseen, asked.seed)
    recipe = recipe_of(folder, base)
    record = pipeline.run_all(recipe, "step")
    assert record.reference is not None
    checkpoint = record.reference.models["warmup"][-1]
    found = check_inputs(recipe, needs=())
    unseen = check_inputs(recipe_of(folder, base, "unseen"), needs=()).few_shot
    assert found.few_shot is not None
    assert unseen is not None
    by_id = {one.example_id: one.example for _, one in found.parsed() if one.example is not None}
    ranked = pq.read_table(record.scored).sort_by("rank")["example_id"].to_pylist()
    resolved = resolve_reference(
        resolve(ModelConfig(model_name_or_path=base)), ModelConfig(model_name_or_path=checkpoint)
    )

    def tokens(example_id: bytes) -> TokenSequence:
        (one,) = sequences(by_id[example_id], found.tokenizer, found.recipe.tokens, found.views)
        return TokenSequence(one.ids, one.scored)

    model = load_adapted(resolved, "float32", "cpu")
    zeros = {one.name: torch.zeros(1, *one.linear.weight.shape) for one in model.watched}
    aligner = Aligner(model, zeros, read_moments(checkpoint))
    groups = {"best": ranked[: asked.best], "worst": ranked[-asked.best :]}
    steps = {name: mean_step(model, aligner, [tokens(one) for one in some]) for name, some in groups.items()}
    set_attention(
        model.inner, model.own_attention
    )  # gradients were taken of packed rows; losses are of one at a time
    size = float(sum(one.linear.weight.detach().square().sum() for one in model.watched) ** 0.5)
    print(
        "| pairs | moved by | best rows | worst rows | best less worst |\n| --- | --: | --: | --: | --: |",
        flush=True,
    )
    for title, few in (("the target's", found.few_shot), ("unseen", unseen)):
        pairs = [row for subtask in few.target.subtasks for row in subtask.rows]
        with model.model.disable_adapter():
            frozen = [_margin(model, pair) for pair in pairs]
        before = dpo_losses(model, pairs, frozen)
        for share in LENGTHS:
            changes = {}
            for name, step in steps.items():
                moved(model, step, share * size)
                changes[name] = dpo_losses(model, pairs, frozen) - before
                moved(model, step, -share * size)
            told = [interval(one) for one in (*changes.values(), changes["best"] - changes["worst"])]
            print(f"| {title} ({len(pairs)}) | {share} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
