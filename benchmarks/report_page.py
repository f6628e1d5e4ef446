"""How long the page of a run takes to write, what memory that needs, and how large it is.

    .venv/bin/python -m benchmarks.report_page --rows 1000000

The scored table, the core-set and the corpus are made up, in parts and files as a run writes them; 6% of the rows are
chosen. Wanted: of 5,000 rows under 3 seconds and 5 MB; of a million under a minute, in memory that does not grow with
the rows. Times and memory are those of `davir report` as a process of its own, imports included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from davir_ray.coreset.export import RANK_COLUMN, SCORE_COLUMN, Fetched, user_table, with_side
from davir_ray.coreset.rules import FractionRule
from davir_ray.coreset.summary import summarise
from davir_ray.recipe import parse_recipe
from davir_ray.report.figures import scan
from davir_ray.runs.record import EngineUsed, RunRecord
from davir_ray.runs.run import Run
from davir_ray.schema import SCORED
from davir_ray.storage.layout import coreset_file
from tests.records import FACTS, RUN

PART_ROWS = 50_000
FRACTION = 0.06
SOURCES, GROUPS = ("chat", "code", "maths"), 200
NAME = "made-0123456789ab"
TEXT = "an answer of some words that a model may learn " * 6


def main() -> None:
    """Make runs of two sizes, write their pages, and print what that took as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = [measured(rows, Path(folder) / str(rows)) for rows in sorted({5_000, arguments.rows})]
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def measured(rows: int, root: Path) -> dict[str, Any]:
    """Write the page of a run of so many rows; return its seconds, memory and size."""
    run = make_run(rows, root)
    started = time.monotonic()
    command = [sys.executable, "-m", "davir_ray.cli", "report", str(run)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.getcwd()})
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"davir report failed with status {status}")
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "cpu seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak MiB": used.ru_maxrss // 1024,
        "page MB": round((run / "report.html").stat().st_size / 1e6, 2),
    }


def make_run(rows: int, root: Path) -> Path:
    """Make a finished run of so many rows."""
    folder = root / "runs" / NAME
    (folder / "scored").mkdir(parents=True)
    draw = np.random.default_rng(0)
    files = [write_corpus(root / "corpus" / f"{source}.jsonl", rows) for source in SOURCES]
    base = draw.gamma(4.0, 0.6, rows)
    scores = np.sort(draw.beta(2, 8, rows))[::-1]
    for index, start in enumerate(range(0, rows, PART_ROWS)):
        part = scored_part(draw, files, base, scores, start)
        pq.write_table(part, folder / "scored" / f"{index:05d}.parquet", compression="zstd")
    write_coreset(folder)
    finish(folder, root)
    return folder


def write_corpus(path: Path, rows: int) -> str:
    """Write a source of so many rows; all sources are this long, so that every place that is named is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for row in range(rows):
            file.write(json.dumps({"question": f"question {row}?", "answer": f"{TEXT}{row}"}) + "\n")
    return str(path)


def scored_part(
    draw: np.random.Generator, files: list[str], base: np.ndarray, scores: np.ndarray, start: int
) -> pa.Table:
    """Return a part of the scored table, from a rank on."""
    at = np.arange(start, min(start + PART_ROWS, len(scores)))
    tokens, source = draw.integers(5, 800, len(at)), draw.integers(0, len(SOURCES), len(at))
    chosen = at < round(FRACTION * len(scores))
    columns: dict[str, Any] = {
        "example_id": pa.array([draw.bytes(16) for _ in at], pa.binary(16)),
        "id": pa.nulls(len(at), pa.string()),
        "file": pa.array(np.array(files)[source]).dictionary_encode(),
        "row": at,
        "source": np.array(SOURCES)[source],
        "group": np.char.add("group ", draw.integers(0, GROUPS, len(at)).astype(str)),
        "status": pa.array(["ok"] * len(at)),
        "reason": pa.nulls(len(at), pa.string()),
        "base_loss": base[at] * tokens,
        "reference_loss": base[at] * tokens * (1 - scores[at]),
        "num_tokens": tokens.astype(np.int32),
        "score": scores[at],
        "rank": at + 1,
        "percentile": 100 * (1 - at / len(scores)),
        "selected": chosen,
        "dropped_by": pc.if_else(chosen, pa.scalar(None, pa.string()), "0:fraction"),
    }
    return pa.table(columns).cast(SCORED)


def write_coreset(folder: Path) -> None:
    """Write the chosen rows as the export `parquet` does, a folder a source."""
    parts = (pq.read_table(part) for part in sorted((folder / "scored").glob("*.parquet")))
    table = pa.concat_tables(part.filter(part["selected"]) for part in parts).unify_dictionaries()
    for source in SOURCES:
        chosen = table.filter(pc.equal(table["source"], source))
        chosen = chosen.rename_columns({"score": SCORE_COLUMN, "rank": RANK_COLUMN})
        own = pa.table(
            {
                "question": [f"question {row}?" for row in chosen["row"].to_pylist()],
                "answer": [f"{TEXT}{row}" for row in chosen["row"].to_pylist()],
            }
        )
        file = str(folder.parents[1] / "corpus" / f"{source}.jsonl")
        (folder / "coreset" / source).mkdir(parents=True)
        out = coreset_file(str(folder / "coreset" / source), 0, "parquet")
        pq.write_table(user_table(Fetched(with_side(chosen, file), own)), out, compression="zstd")


def finish(folder: Path, root: Path) -> None:
    """Write the recipe and the record."""
    tree = {
        "corpus": {"paths": {source: str(root / "corpus" / f"{source}.jsonl") for source in SOURCES}},
        "models": {"base": "nowhere", "reference": "nowhere/else"},
        "select": [{"type": "fraction", "fraction": FRACTION}],
        "store": str(root / "store"),
        "output": str(root / "runs"),
    }
    recipe = parse_recipe(tree, "made")
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    parts = sorted(map(str, (folder / "scored").glob("*.parquet")))
    summary = summarise(lambda columns: scan(parts, columns), [FractionRule(fraction=FRACTION)])
    known = {
        "run_id": NAME,
        "run_dir": str(folder),
        "scored": str(folder / "scored"),
        "coreset": {"parquet": str(folder / "coreset")},
        "formats": dict.fromkeys(SOURCES, "question_answer"),
        "engine": EngineUsed(type="made up", dtype="float32", reason="a benchmark"),
    }
    Run.from_folder(str(folder)).finish(RunRecord(**FACTS | RUN | dict(summary) | known))


if __name__ == "__main__":
    main()
