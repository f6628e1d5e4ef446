"""Let vLLM measure models in turn with one engine, and each with an engine of its own, in a process for that.

    python -m tests.real.vllm_switches FAMILIES.json

A family is {"models": [[path, adapter or null], ...], "out": FOLDER, "dtype": DTYPE}: models that one engine is
switched between. What it gives of the n-th is written to FOLDER/switched-n.npz, and of the first once more to
FOLDER/back.npz. What an engine of its own gives of the n-th is written to FOLDER/alone-n.npz.
"""

import json
import sys
from pathlib import Path

import numpy as np

from davir_ray.config import EngineConfig
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.logprobs.vllm.engine import VllmEngine
from davir_ray.models.resolve import ResolvedModel
from tests.unit.logprobs.hf.random_models import mixed_call

MAX_LENGTH = 200


def main(path: str) -> None:
    for family in json.loads(Path(path).read_text()):
        models = [ResolvedModel(folder, adapter, "", "") for folder, adapter in family["models"]]
        measure_family(models, Path(family["out"]), family["dtype"])


def measure_family(models: list[ResolvedModel], out: Path, dtype: str) -> None:
    choice, call = Choice("vllm", dtype, "cpu", ""), mixed_call()
    engine = build_engine(choice, EngineConfig(), models[0], MAX_LENGTH, models[1:])
    assert isinstance(engine, VllmEngine)
    for number, model in enumerate(models):
        engine.switch(model)
        np.savez(out / f"switched-{number}", *engine.logprobs(call))
    engine.switch(models[0])
    np.savez(out / "back", *engine.logprobs(call))
    engine.close()
    for number, model in enumerate(models):
        alone = build_engine(choice, EngineConfig(), model, MAX_LENGTH)
        np.savez(out / f"alone-{number}", *alone.logprobs(call))
        alone.close()


if __name__ == "__main__":
    main(sys.argv[1])
