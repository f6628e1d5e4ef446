"""An engine on a GPU that was switched gives the numbers of one that was made for the model."""

import importlib.util

import numpy as np
import pytest

from davir_ray.config import EngineConfig
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.switching import can_switch
from davir_ray.models.resolve import ResolvedModel
from tests.gpu.real_model import MODEL, gaps

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

ENGINES = ["transformers"] + ["vllm"] * (importlib.util.find_spec("vllm") is not None)
CONFIG = EngineConfig(gpu_memory_utilization=0.5)
ROUNDING = 1e-4
"""Nats a token: what compiled and captured kernels of two float32 engines may differ by."""


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, ResolvedModel]:
    """A base whose head is tied, one with other weights, and an adapter over the base."""
    from benchmarks.second_model import save_adapter, save_tuned

    folder = tmp_path_factory.mktemp("models")
    return {
        "base": ResolvedModel(MODEL, None, "", MODEL),
        "tuned": ResolvedModel(save_tuned(MODEL, folder / "tuned"), None, "", MODEL),
        "adapted": ResolvedModel(MODEL, save_adapter(MODEL, folder / "adapter"), "", MODEL),
    }


@pytest.mark.parametrize("other", ["tuned", "adapted"])
@pytest.mark.parametrize("type", ENGINES)
def test_a_switched_engine_is_one_made_for_the_model(sequences, models, type, other):
    choice, pair = Choice(type, "float32", "cuda", ""), [models["base"], models[other]]
    assert can_switch(choice, CONFIG, *pair)
    first, then, back = in_turn(choice, sequences, pair)
    (alone,) = in_turn(choice, sequences, pair[1:])
    print(f"{type}, {other}: {gaps(then, alone).max():.2e} nats a token from an engine of its own")
    assert gaps(then, alone).max() < ROUNDING
    assert gaps(first, back).max() < ROUNDING
    assert gaps(first, alone).mean() > 100 * ROUNDING, "the models are no test"


def in_turn(
    choice: Choice, sequences: list[TokenSequence], models: list[ResolvedModel]
) -> list[list[np.ndarray]]:
    """Measure with one engine under each of some models, and under the first again if there are more."""
    engine = build_engine(choice, CONFIG, models[0], 1024, models[1:])
    try:
        found = [engine.logprobs(sequences)]
        for model in [*models[1:], *models[: len(models) - 1]]:
            engine.switch(model)
            found.append(engine.logprobs(sequences))
        return found
    finally:
        engine.close()
