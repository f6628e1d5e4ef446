"""How much of the engine's own speed the whole Ray pipeline keeps, with one actor, on one machine.

    .venv/bin/python benchmarks/pipeline_speed.py --model quickstart/models/smollm2-135m-instruct \
        --corpus ../shared/data/alpaca-5k --rows 900

The pipeline measures the base over the corpus; then the engine alone measures the same chunks in this process. Both
are timed without loading the model, and the pipeline also from the start of the stage to its end.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=900)
    parser.add_argument("--engine", default="transformers", choices=["transformers", "vllm"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = compare(arguments.model, arguments.corpus, arguments.rows, arguments.engine)
    for name, value in figures.items():
        print(f"{name:<28}{value}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def compare(model: str, corpus: str, rows: int, engine: str) -> dict[str, Any]:
    """Time the measuring stage of the pipeline, then the engine alone on the same chunks."""
    from davir_ray.inputs import check_inputs
    from davir_ray.job import open_job, prepare_corpus
    from davir_ray.measure.measurement import Work
    from davir_ray.measure.ray_measure import measure
    from davir_ray.measure.ray_meter import Meter
    from davir_ray.measure.ray_pass_plan import chunks_left, plan
    from davir_ray.recipe import parse_recipe

    with tempfile.TemporaryDirectory() as folder:
        tree = {
            "corpus": {"paths": f"{corpus}/*.parquet", "limit": rows},
            "models": {"base": model},
            "engine": {"type": engine},
            "score": {"name": "base_loss"},
            "store": f"{folder}/store",
            "output": f"{folder}/runs",
        }
        job = open_job(check_inputs(parse_recipe(tree, "benchmark")), "benchmark")
        prepare_corpus(job)
        (measurement,) = job.measurements_of("base")
        planned = plan(measurement)
        threads = os.cpu_count() or 1
        started = time.monotonic()
        work = Work(measurement, planned, chunks_left(measurement, planned))
        meter = Meter(job.run.run_id, work, lambda **_: None)
        measure([work], lambda _: nullcontext(meter))
        engine_seconds = meter.counted["engine_seconds"]
        stage_seconds = time.monotonic() - started
        chunks = [
            ray.get(ray.remote(read_sequences).remote(measurement, row)) for row in planned.chunks.to_pylist()
        ]
        ray.shutdown()
        alone_seconds = time_alone(job.choice, model, measurement.max_length, chunks, threads)
    return {
        "rows": rows,
        "tokens": planned.tokens,
        "chunks": len(chunks),
        "engine alone, s": round(alone_seconds, 1),
        "engine in the pipeline, s": round(engine_seconds, 1),
        "whole stage, s": round(stage_seconds, 1),
        "engine speed kept": round(alone_seconds / engine_seconds, 3),
        "stage speed kept": round(alone_seconds / stage_seconds, 3),
    }


def read_sequences(measurement: Any, row: dict[str, Any]) -> list[Any]:
    """Read the sequences of a chunk."""
    import numpy as np

    from davir_ray.measure.chunk_rows import sequences_of
    from davir_ray.measure.ray_chunks import read_chunk

    batch = {name: np.array([row.get(name, 0)]) for name in ("pass", "split", "chunk")}
    return [sequence for _, sequence in sequences_of(read_chunk([measurement], batch))]


def time_alone(choice: Any, model: str, max_length: int, chunks: list[list[Any]], threads: int) -> float:
    """Time the engine in this process, without loading it."""
    import torch

    from davir_ray.config import EngineConfig
    from davir_ray.logprobs.choice import build_engine
    from davir_ray.models.resolve import ResolvedModel

    torch.set_num_threads(threads)
    engine = build_engine(choice, EngineConfig(), ResolvedModel(model, None, "", model), max_length)
    engine.logprobs(chunks[-1][:4])
    started = time.monotonic()
    for chunk in chunks:
        engine.logprobs(chunk)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
