"""Do scores find rows that serve a target among rows that do not? Word problems planted 1 to 20 into Alpaca.

    python -m benchmarks.target_planted --model quickstart/models/smollm2-135m-instruct --data ../shared/data

The corpus is rows of Alpaca and, 1 to 20, of GSM8K. The target is a few other rows of GSM8K, as pairs: the right
answer, and an answer of Alpaca that is not in the corpus. For each score the whole job runs (warm-up and references
too, by the same recipe name, so that what is made once is used again), and the table tells how many of the planted rows
are among the best 5%, with which probability a planted row ranks above another (AUC), and how score and length go
together (rank correlation). Random draws and the longest rows stand beside them. Nothing of the target is in the
corpus.
"""

import argparse
import json
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from davir_ray import pipeline
from davir_ray.recipe import parse_recipe

LORA = {
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "layers_to_transform": list(range(20, 30)),
}
ON_TARGET = {"fit": "target", "start": "warmup"}
SCORES: dict[str, dict[str, Any]] = {
    "rose": {},
    "rds": {},
    "tov": {"references": {"target": ON_TARGET}},
    "color_filter": {"references": {"target": {"fit": "target"}}},
    "davir": {"reference": {"fit": "whole"}},
    "davir, reference of the target": {"reference": {"fit": "target"}},
    "length": {},
    "random": {},
    "less": {},
    "gradient_cosine": {},
}
"""Title -> what the recipe has beside the score; the score is the first word of the title."""


def rows_of(data: Path, name: str) -> list[dict[str, str]]:
    """Read a data set's rows as question and answer."""
    found = [
        row for file in sorted((data / name).glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]
    if "question" in found[0]:
        return [{"question": row["question"], "answer": row["answer"]} for row in found]
    asked = ["\n".join(filter(None, (row["instruction"], row["input"]))) for row in found]
    pairs = zip(asked, found, strict=True)
    return [{"question": text, "answer": row["output"]} for text, row in pairs if row["output"]]


def write_data(folder: Path, data: Path, rows: int, shots: int, seed: int) -> int:
    """Write corpus and target; return how many rows are planted."""
    random = np.random.default_rng(seed)
    word_problems = [row for row in rows_of(data, "gsm8k") if len(row["answer"]) < 400]
    alpaca = [row for row in rows_of(data, "alpaca-5k") if 20 < len(row["answer"]) < 400]
    planted = rows // 21
    picked = [word_problems[i] for i in random.permutation(len(word_problems))[: planted + shots]]
    drawn = [alpaca[i] for i in random.permutation(len(alpaca))[: rows - planted + shots]]
    corpus = [{**row, "planted": "yes"} for row in picked[:planted]] + [
        {**row, "planted": "no"} for row in drawn[: rows - planted]
    ]
    pairs = [
        {"prompt": row["question"], "chosen": row["answer"], "rejected": other["answer"]}
        for row, other in zip(picked[planted:], drawn[rows - planted :], strict=True)
    ]
    pq.write_table(
        pa.Table.from_pylist([corpus[i] for i in random.permutation(rows)]), folder / "corpus.parquet"
    )
    pq.write_table(pa.Table.from_pylist(pairs), folder / "target.parquet")
    return planted


def recipe_of(title: str, folder: Path, model: str) -> dict[str, Any]:
    """Return the recipe of a score."""
    train = {"learning_rate": 5e-4, "num_train_epochs": 1, "lora": LORA, "zero_stage": None}
    name, more = title.split(",")[0], json.loads(json.dumps(SCORES[title]))
    for one in (*more.get("references", {}).values(), *([more["reference"]] if "reference" in more else [])):
        of_warmup = one.get("start") == "warmup"
        rest = {key: value for key, value in train.items() if not (of_warmup and key == "lora")}
        one["train"] = {**rest, "learning_rate": 5e-5 if one["fit"] == "target" else 5e-4}
    needs_target = name in ("rose", "less", "gradient_cosine", "rds") or '"fit": "target"' in json.dumps(more)
    if name in ("rose", "less", "gradient_cosine", "tov"):
        more["warmup"] = {"fraction": 0.2, "train": {**train, "num_train_epochs": 2}}
    return {
        "corpus": {"paths": str(folder / "corpus.parquet"), "group_by": "planted"},
        "tokens": {"max_length": 320},
        "models": {"base": model},
        **({"target": {"paths": str(folder / "target.parquet")}} if needs_target else {}),
        "score": {"name": name},
        "select": [{"type": "fraction", "fraction": 0.05}],
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
        **more,
    }


def judged(scored: pa.Table, planted: int) -> tuple[int, float]:
    """Return how many planted rows are among as many best, and the AUC."""
    ranked = scored.filter(scored["rank"].is_valid()).sort_by("rank")
    yes = np.array(ranked["group"].to_pylist()) == "yes"
    below = np.cumsum(~yes[::-1])[::-1]
    return int(yes[:planted].sum()), float(below[yes].sum() / (yes.sum() * (~yes).sum()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("planted"))
    parser.add_argument("--rows", type=int, default=315)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = asked.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    planted = write_data(folder, asked.data, asked.rows, asked.shots, asked.seed)
    print(f"{asked.rows} rows, {planted} planted, {asked.shots} rows of the target")
    print(
        "| score | planted among the best | of | AUC | score and length | seconds |\n"
        "| --- | --: | --: | --: | --: | --: |",
        flush=True,
    )
    for title in SCORES:
        started = monotonic()
        recipe = parse_recipe(recipe_of(title, folder, str(Path(asked.model).absolute())), "planted")
        record = pipeline.run_all(recipe, "planted")
        hits, auc = judged(pq.read_table(record.scored), planted)
        told = f"{hits} | {planted} | {auc:.3f} | {record.length_correlation or 0:+.2f}"
        print(f"| {title} | {told} | {monotonic() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
