"""Finished runs made by hand, without Ray or a model: what `davir report` and `davir compare` read."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from davir_ray.coreset.export import (
    RANK_COLUMN,
    SCORE_COLUMN,
    Fetched,
    folder_name,
    user_table,
    with_side,
)
from davir_ray.coreset.rules.choose import rule_names
from davir_ray.coreset.summary import summarise
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.reading import examples, read_source_rows
from davir_ray.job import scan_folder
from davir_ray.recipe import parse_recipe
from davir_ray.runs.record import EngineUsed, RunRecord
from davir_ray.runs.run import Run
from davir_ray.schema import SCORED
from davir_ray.storage.layout import RunLayout, coreset_file
from tests.records import FACTS, RUN

FORMAT = "question_answer"
Rows = Mapping[str, Sequence[Mapping[str, str]]]
"""Source -> rows with `question`, `answer` and `topic`, which is their group; a row without an answer is not ranked."""


def write_corpus(folder: Path, sources: Rows) -> None:
    """Write each source as a file of JSON Lines of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in sources.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def made_run(
    root: Path, name: str, *, fraction: float = 0.1, seed: int = 0, no_score_every: int = 10**9, **more: Any
) -> Path:
    """Make a finished run of the corpus in root/corpus, in root/runs; return its folder.

    Losses follow from the seed and the place of a row; one row of so many has no score. The score is davir, or if
    `score` names it base_loss, and then no reference was measured.
    """
    tree = {
        "corpus": {
            "paths": {one.stem: str(one) for one in sorted((root / "corpus").glob("*.jsonl"))},
            "format": FORMAT,
            "group_by": "topic",
        },
        "models": {"base": "nowhere", "reference": "nowhere/else"},
        "select": [{"type": "fraction", "fraction": fraction}],
        "store": str(root / "store"),
        "output": str(root / "runs"),
        **more,
    }
    recipe = parse_recipe(tree, name)
    folder = root / "runs" / name
    (folder / "scored").mkdir(parents=True)
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    table = scored_table(recipe, fraction, seed, no_score_every)
    cut = len(table) // 2
    for index, part in enumerate((table.slice(0, cut), table.slice(cut))):
        pq.write_table(part, folder / "scored" / f"{index:05d}.parquet")
    if "parquet" in recipe.export.formats:
        write_coreset(recipe.corpus, folder, table)
    record = run_record_of(folder, recipe, name)
    run = Run.from_folder(str(folder))
    run.event("select", ranked=len(table))
    run.finish(record)
    return folder


def scored_table(recipe: Any, fraction: float, seed: int, no_score_every: int) -> pa.Table:
    """Score the rows of a corpus by made-up losses, and choose a fraction of them."""
    rows = list(_scored(recipe.corpus, seed, no_score_every))
    if recipe.score.name == "base_loss":
        rows = [row | {"reference_loss": None, "score": row["base_loss"]} for row in rows]
    ranked = sorted(
        (row for row in rows if row["score"] is not None), key=lambda row: (-row["score"], row["example_id"])
    )
    count = round(fraction * len(ranked))
    for rank, row in enumerate(ranked, start=1):
        chosen = rank <= count or any(row["source"] in rule.kept_sources for rule in recipe.select)
        row |= {"rank": rank, "percentile": 100.0 * (1 - (rank - 1) / len(ranked)), "selected": chosen}
        row["dropped_by"] = None if chosen else rule_names(recipe.select)[0]
    return pa.Table.from_pylist([*ranked, *(row for row in rows if row["score"] is None)], schema=SCORED)


def _scored(corpus: Any, seed: int, no_score_every: int) -> Any:
    draw = np.random.default_rng(seed)
    seen = set()
    for split in list_corpus(corpus).splits:
        for one in examples(split, corpus, FORMAT):
            tokens = len(one.example.messages[-1]["content"].split()) if one.example is not None else None
            base = tokens and float(draw.gamma(4.0, 0.6)) * tokens
            learnt = base and base * float(draw.beta(8, 2))
            status = "duplicate" if one.example_id in seen else one.status
            if status == "ok" and one.row % no_score_every == no_score_every - 1:
                status = "no_score"
            seen.add(one.example_id)
            is_ranked = status == "ok"
            yield dict.fromkeys(SCORED.names) | {
                "example_id": one.example_id,
                "file": split.path,
                "row": one.row,
                "id": one.id,
                "source": split.source,
                "group": one.group,
                "status": status,
                "reason": one.reason,
                "selected": False,
                "base_loss": base if is_ranked else None,
                "reference_loss": learnt if is_ranked else None,
                "num_tokens": tokens,
                "score": (base - learnt) / base if is_ranked else None,
            }


def write_coreset(corpus: Any, folder: Path, table: pa.Table) -> None:
    """Write the chosen rows as the export `parquet` does; each source is one file."""
    splits = list_corpus(corpus).splits
    for split in splits:
        ours = pc.and_(table["selected"], pc.equal(table["source"], split.source))
        chosen = table.filter(ours).rename_columns({"score": SCORE_COLUMN, "rank": RANK_COLUMN})
        rows = Fetched(with_side(chosen, split.path), read_source_rows(split, chosen["row"].to_pylist()))
        below = folder_name(split.source) if len(splits) > 1 else ""
        (folder / "coreset" / below).mkdir(parents=True)
        pq.write_table(user_table(rows), coreset_file(str(folder / "coreset" / below), 0, "parquet"))


def engine_of(recipe: Any) -> str:
    """Name the engine that a recipe asks for; transformers where it leaves the choice open."""
    return "transformers" if recipe.engine.type == "auto" else recipe.engine.type


def run_record_of(folder: Path, recipe: Any, name: str) -> RunRecord:
    """Sum up the scored table of a made run."""
    summary = summarise(partial(scan_folder, str(folder / "scored")), recipe.select)
    formats = {split.source: FORMAT for split in list_corpus(recipe.corpus).splits}
    known = {
        "run_id": name,
        "run_dir": str(folder),
        "scored": str(folder / "scored"),
        "score": recipe.score.name,
        "coreset": {name: RunLayout(str(folder)).export(name) for name in recipe.export.formats},
        "formats": formats,
        "engine": EngineUsed(type=engine_of(recipe), dtype="float32", reason="no GPU"),
    }
    return RunRecord(**FACTS | RUN | dict(summary) | known)
