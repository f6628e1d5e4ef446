"""Measure with vLLM in a process of its own, for vLLM changes the process that it runs in.

    python -m tests.real.vllm_child JOBS.json

A job is an engine: {"model", "adapter", "max_length", "calls": {OUT: [[ids, scored], ...]}, "refused"}. The
log-probabilities of a call are written to OUT.npz, and its ranks to OUT.ranks.npz; what the engine says of a sequence
that is too long, and of a model that it has no room for, to the file that `refused` names, a line each,
if it names one.
"""

import json
import sys
from pathlib import Path

import numpy as np

from davir_ray.errors import EngineError
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.vllm.engine import VllmEngine


def main(path: str) -> None:
    for job in json.loads(Path(path).read_text()):
        engine = VllmEngine(
            job["model"], adapter_path=job["adapter"], dtype="float32", max_length=job["max_length"]
        )
        said = job["refused"] and refusal(engine, job["max_length"])
        for out, rows in job["calls"].items():
            sequences = [TokenSequence(np.array(i, np.int32), np.array(s, bool)) for i, s in rows]
            np.savez(out, *engine.logprobs(sequences))
            ranked = engine.token_values(sequences, frozenset({"rank"}))
            np.savez(f"{out}.ranks", *[one.rank for one in ranked])
        engine.close()
        if job["refused"]:
            Path(job["refused"]).write_text(f"{said}\n{no_room(job['model'])}")


def no_room(model: str) -> str:
    """Ask for an engine whose cache holds no sequence."""
    try:
        VllmEngine(model, dtype="float32", max_length=64, engine_args={"kv_cache_memory_bytes": 1})
    except EngineError as error:
        return str(error)
    return ""


def refusal(engine: VllmEngine, max_length: int) -> str:
    """Ask for one token more than the engine takes."""
    ids = np.zeros(max_length + 1, np.int32)
    try:
        engine.logprobs([TokenSequence(ids, np.arange(len(ids)) > 0)])
    except EngineError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(sys.argv[1])
