"""An engine on a GPU that was switched gives the numbers of one that was made for the model."""

import importlib.util

import numpy as np
import pytest

from davir_ray.config import EngineConfig
from davir_ray.coreset.cut_noise import ROUNDING
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.switching import can_switch
from davir_ray.models.resolve import ResolvedModel
from tests.gpu.real_model import MODEL, gaps

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

ENGINES = ["transformers"] + ["vllm"] * (importlib.util.find_spec("vllm") is not None)
FAR = {"float32": 1e-4, "bfloat16": ROUNDING["bfloat16"]}
"""Nats a token, in the mean: what two engines that hold the same weights may be apart, in other batches and graphs."""


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


@pytest.mark.parametrize(
    ("type", "other", "dtype", "eager"),
    [
        *((type, "tuned", "bfloat16", False) for type in reversed(ENGINES)),
        *((type, other, "float32", True) for type in ENGINES for other in ("tuned", "adapted")),
    ],
)
def test_a_switched_engine_is_one_made_for_the_model(sequences, models, type, other, dtype, eager):
    config = EngineConfig(gpu_memory_utilization=0.5, engine_args={"enforce_eager": True} if eager else {})
    choice, pair = Choice(type, dtype, "cuda", ""), [models["base"], models[other]]
    assert can_switch(choice, config, *pair)
    first, then, back = in_turn(choice, config, sequences, pair)
    (alone,) = in_turn(choice, config, sequences, pair[1:])
    print(f"{type}, {other}, {dtype}: {gaps(then, alone).mean():.2e} nats a token from an engine of its own")
    assert gaps(then, alone).mean() < FAR[dtype]
    assert gaps(first, back).mean() < FAR[dtype]
    assert gaps(first, alone).mean() > 2 * FAR["bfloat16"], "the models are no test"


def test_a_base_beside_an_adapter_is_as_near_to_the_base_alone_as_its_noise(sequences, models):
    if "vllm" not in ENGINES:
        pytest.skip("vllm is not installed")
    choice, config = Choice("vllm", "bfloat16", "cuda", ""), EngineConfig(gpu_memory_utilization=0.5)
    beside, *_ = in_turn(choice, config, sequences, [models["base"], models["adapted"]])
    (alone,) = in_turn(choice, config, sequences, [models["base"]])
    print(f"base beside an adapter: {gaps(beside, alone).mean():.2e} nats a token from the base alone")
    assert gaps(beside, alone).mean() < FAR["bfloat16"]


def in_turn(
    choice: Choice, config: EngineConfig, sequences: list[TokenSequence], models: list[ResolvedModel]
) -> list[list[np.ndarray]]:
    """Measure with one engine under each of some models, and under the first again if there are more."""
    engine = build_engine(choice, config, models[0], 1024, models[1:])
    try:
        found = [engine.logprobs(sequences)]
        for model in [*models[1:], *models[: len(models) - 1]]:
            engine.switch(model)
            found.append(engine.logprobs(sequences))
        return found
    finally:
        engine.close()
