"""The whole job on many rows, and what the night after costs: new rows, another reference, other files.

    .venv/bin/python -m benchmarks.million_rows --rows 1000000 --out benchmarks/million_rows.json

Rows are token ids in Parquet, the engine sleeps as long as a small model on a GPU would compute (paced_engine.py).
Engine seconds are those that engines were busy, summed over actors, as the events of a run tell them. The ratios are
those of a night to the first one. Wanted: of 1% new rows at most 0.02 of its engine seconds, and well under 0.1 of its
seconds; of another reference 0.5 of its engine seconds; of other files no sequence at all. How many sequences each
night measures is known beforehand, and checked.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale import ROLES, apart, memory, timed
from davir_ray import pipeline
from davir_ray.cluster import ray_session
from davir_ray.measure.chunks import CHUNK_TOKENS
from davir_ray.recipe import parse_recipe
from davir_ray.runs.history import past_run
from tests.conftest import save_tiny_model

TOKENS = 64
"""A row has so many: short ones are the hard case, since all that is not measuring is paid by the row."""
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
    CHUNK_TOKENS["cpu"] = CHUNK_TOKENS["cuda"]  # it is as fast as on a GPU
    ray_session.connect()  # here, so that no night pays for the start
    with tempfile.TemporaryDirectory() as folder:
        figures = nights(arguments.rows, Path(folder))
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def nights(rows: int, folder: Path) -> dict[str, Any]:
    """Run the nights; return the figures of each by name, and their ratios to the first."""
    apart(make, rows, folder)
    new = rows // 100
    figures = {"all rows": night(folder, "corpus", "one", (rows, rows))}
    (folder / "new").rename(folder / "corpus" / "new")
    figures["1% new rows"] = night(folder, "corpus", "one", (new, new))
    figures["another reference"] = night(folder, "corpus", "other", (0, rows + new))
    figures["other files, another order"] = night(folder, "again", "other", (0, 0))
    sizes = {"rows": rows, "tokens_a_row": TOKENS, "tokens_a_chunk": CHUNK_TOKENS["cpu"]}
    return {**sizes, "nights": figures, "ratios": ratios(figures)}


def ratios(figures: dict[str, Any]) -> dict[str, Any]:
    """Divide what each later night took by what the first one did: sequences measured, engine seconds, seconds."""
    first, *later = ({**one, "sequences": sum(one["measured"].values())} for one in figures.values())
    names = ("sequences", "engine_seconds", "seconds")
    values = [{name: round(one[name] / first[name], 4) for name in names} for one in later]
    return dict(zip(list(figures)[1:], values, strict=True))


def make(rows: int, folder: Path) -> None:
    """Save three models, and write the corpus, 1% new rows, and all of them again in other files and another order."""
    for seed, name in enumerate(("base", "one", "other")):
        save_tiny_model(folder / name, seed)
    ids = np.random.default_rng(0).integers(0, 90, (rows + rows // 100, TOKENS), dtype=np.int32)
    order = np.random.default_rng(1).permutation(len(ids))
    write(folder / "corpus", ids[:rows], FILES)
    write(folder / "new", ids[rows:], 1)
    write(folder / "again", ids[order], 7)


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


def night(folder: Path, corpus: str, reference: str, expected: tuple[int, int]) -> dict[str, Any]:
    """Run the whole job once; return what it took. expected: the sequences that the base and the reference measure."""
    tree = {
        "corpus": {"paths": f"{folder}/{corpus}/**/*.parquet"},
        "models": {"base": f"{folder}/base", "reference": f"{folder}/{reference}"},
        "engine": {"type": "benchmarks.paced_engine:PacedEngine", "num_cpus": 0.5, "replicas": 2},
        "select": [{"type": "fraction", "fraction": 0.06}],
        "store": f"{folder}/store",
        "output": f"{folder}/runs",
    }
    seconds: dict[str, float] = {}
    with memory() as peaks, timed(seconds, "seconds"):
        record = pipeline.score(parse_recipe(tree, "million"), "million")
    assert record.measured == dict(zip(ROLES, expected, strict=True)), record.measured
    counts = {name: getattr(record, name) for name in ("rows", "status", "selected", "measured", "reused")}
    return {
        "seconds": round(seconds["seconds"], 1),
        "engine_seconds": round(engine_seconds(record.run_dir), 1),
        **counts,
        **peaks,
    }


def engine_seconds(run_dir: str) -> float:
    """Sum up how long the engines of a run were busy."""
    run = past_run(run_dir)
    assert run is not None
    return float(sum(event["engine_seconds"] for event in run.events if event["event"] == "measured"))


if __name__ == "__main__":
    main()
