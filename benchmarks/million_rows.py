"""The whole job on many rows, and what the night after costs: new rows, another reference, other files.

    .venv/bin/python -m benchmarks.million_rows --rows 1000000 --out benchmarks/million_rows.json

Rows are token ids in Parquet, the engine sleeps as long as a small model on a GPU would compute (paced_engine.py).
Engine seconds are those that engines were busy, summed over actors, as the events of a run tell them.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale import memory
from davir_ray import pipeline
from davir_ray.config import parse_recipe
from davir_ray.history import past_run
from tests.conftest import save_tiny_model

TOKENS = 16
FILES = 10


def main() -> None:
    """Run a first night and three others; print and write what each cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.getcwd()  # Ray's workers import the engine
    with tempfile.TemporaryDirectory() as folder:
        figures = nights(arguments.rows, Path(folder))
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def nights(rows: int, folder: Path) -> dict[str, Any]:
    """Run the nights; return the figures of each by name."""
    models = [save_tiny_model(folder / name, seed) for seed, name in enumerate(("base", "one", "other"))]
    ids = np.random.default_rng(0).integers(0, 90, (rows + rows // 100, TOKENS), dtype=np.int32)
    write(folder / "corpus", ids[:rows], FILES)
    figures = {"all rows": night(folder, "corpus", models[0], models[1])}
    write(folder / "corpus" / "new", ids[rows:], 1)
    figures["1% new rows"] = night(folder, "corpus", models[0], models[1])
    figures["another reference"] = night(folder, "corpus", models[0], models[2])
    order = np.random.default_rng(1).permutation(len(ids))
    write(folder / "again", ids[order], 7)
    figures["other files, another order"] = night(folder, "again", models[0], models[2])
    return {"rows": rows, "tokens_a_row": TOKENS, "nights": figures}


def write(folder: Path, ids: Any, files: int) -> None:
    """Write rows of token ids, of which the second half counts, to so many files."""
    folder.mkdir(parents=True)
    for index, some in enumerate(np.array_split(ids, files)):
        labels = some.copy()
        labels[:, : TOKENS // 2] = -100
        columns = {"input_ids": some, "labels": labels}
        table = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), TOKENS).cast(
                pa.list_(pa.int32())
            )
            for name, values in columns.items()
        }
        pq.write_table(pa.table(table), folder / f"{index:03d}.parquet", row_group_size=25_000)


def night(folder: Path, corpus: str, base: str, reference: str) -> dict[str, Any]:
    """Run the whole job once; return what it took."""
    tree = {
        "corpus": {"paths": f"{folder}/{corpus}/**/*.parquet"},
        "models": {"base": base, "reference": reference},
        "engine": {"type": "benchmarks.paced_engine:PacedEngine", "num_cpus": 0.5, "replicas": 2},
        "select": [{"type": "fraction", "fraction": 0.06}],
        "store": f"{folder}/store",
        "output": f"{folder}/runs",
    }
    started = time.monotonic()
    with memory() as peaks:
        record = pipeline.score(parse_recipe(tree, "million"), "million")
    run = past_run(record["run_dir"])
    busy = sum(event["busy"] for event in run.events if event["event"] == "measured") if run else 0
    counts = {name: record[name] for name in ("rows", "status", "selected", "measured", "reused")}
    return {
        "seconds": round(time.monotonic() - started, 1),
        "engine_seconds": round(busy, 1),
        **counts,
        **peaks,
    }


if __name__ == "__main__":
    main()
