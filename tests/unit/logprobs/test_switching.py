"""Which models an engine may be switched to: no more than those whose numbers then are the right ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from davir_ray.config import EngineConfig
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hash_engine import HashEngine
from davir_ray.logprobs.kinds import LOSS
from davir_ray.logprobs.switching import can_switch
from davir_ray.models.resolve import ResolvedModel
from tests.unit.logprobs.hf.random_models import save

ON_GPU = Choice("vllm", "bfloat16", "cuda", "")
ON_CPU = Choice("vllm", "float32", "cpu", "")


class Unswitched:
    """An engine of a user's own that knows no other model."""

    def __init__(self, model_path, *, adapter_path, dtype, device, max_length):
        pass


class Switched(Unswitched):
    def switch(self, model):
        """Go over to another model."""


class MadeOtherwise(Switched):
    """Inherits `switch`, which knows nothing of what it is made of."""

    def __init__(self, model_path, **settings):
        self.lamp = model_path


class Called(Switched):
    """Inherits both."""


def model(folder, adapter=None) -> ResolvedModel:
    return ResolvedModel(str(folder), adapter, "m", str(folder))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders: two that differ in their weights alone, tied or not, one of other sizes, a quantised one."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "one": save(folder / "one", "llama", tie_word_embeddings=True),
        "two": save(folder / "two", "llama", seed=1, tie_word_embeddings=True),
        "untied": save(folder / "untied", "llama", tie_word_embeddings=False),
        "untied too": save(folder / "untied-2", "llama", seed=1, tie_word_embeddings=False),
        "wider": save(folder / "wider", "llama", tie_word_embeddings=True, intermediate_size=96),
        "more words": save(folder / "more", "llama", tie_word_embeddings=True, vocab_size=231),
        "experts": save(folder / "experts", "qwen3_moe"),
        "experts too": save(folder / "experts-2", "qwen3_moe", seed=1),
    }
    return made


def changed(folder, copy, **settings) -> str:
    """Copy a model folder, with other settings in its config; None takes one out."""
    copy.mkdir()
    for file in Path(folder).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "config.json").read_text()) | settings
    config = {key: value for key, value in config.items() if value is not None}
    (copy / "config.json").write_text(json.dumps(config))
    return str(copy)


def vllm(one, other, choice=ON_GPU, **config) -> bool:
    both = [can_switch(choice, EngineConfig(**config), a, b) for a, b in ((one, other), (other, one))]
    assert both[0] == both[1]
    return both[0]


@pytest.mark.parametrize("choice", [ON_GPU, ON_CPU])
def test_vllm_puts_adapters_on_and_off(folders, choice):
    base, adapted = model(folders["one"]), model(folders["one"], "adapter")
    assert vllm(base, adapted, choice)
    assert vllm(model(folders["one"], "another"), adapted, choice)
    assert not vllm(model(folders["two"]), adapted, choice)


def test_vllm_reads_weights_in_place_where_nothing_else_differs(folders):
    assert vllm(model(folders["one"]), model(folders["two"]))
    for other in ("untied", "wider", "more words"):
        assert not vllm(model(folders["one"]), model(folders[other])), other
    assert not vllm(model(folders["experts"]), model(folders["experts too"])), "no test has seen it"


def test_vllm_on_a_cpu_keeps_an_engine_whose_head_is_tied(folders):
    assert not vllm(model(folders["one"]), model(folders["two"]), ON_CPU)
    assert vllm(model(folders["untied"]), model(folders["untied too"]), ON_CPU)


def test_a_config_that_another_version_or_a_training_wrote_is_the_same(folders, tmp_path):
    config = json.loads(Path(folders["two"], "config.json").read_text())
    theta = config["rope_parameters"]["rope_theta"]
    older = {"rope_parameters": None, "rope_theta": theta, "dtype": None, "torch_dtype": "bfloat16"}
    trained = {"use_cache": False, "pad_token_id": 2, "transformers_version": "4.40.0"}
    copy = changed(folders["two"], tmp_path / "older", **older, **trained)
    assert vllm(model(folders["one"]), model(copy))
    another = changed(folders["two"], tmp_path / "theta", **older | {"rope_theta": theta * 2})
    assert not vllm(model(folders["one"]), model(another))


def test_quantised_weights_and_arguments_that_change_weights_are_loaded_anew(folders, tmp_path):
    one, two = (
        changed(folders[name], tmp_path / name, quantization_config={"quant_method": "fp8"})
        for name in ("one", "two")
    )
    assert not vllm(model(one), model(two))
    pair = (model(folders["one"]), model(folders["two"]))
    assert vllm(*pair, engine_args={"max_num_seqs": 8, "enforce_eager": True})
    assert not vllm(*pair, engine_args={"quantization": "fp8"})
    assert not vllm(*pair, engine_args={"load_format": "dummy"})
    assert not vllm(*pair, tensor_parallel_size=2)


@pytest.mark.parametrize(
    ("engine", "can"),
    [
        ("transformers", True),
        ("hash", True),
        (f"{__name__}:Switched", True),
        (f"{__name__}:Unswitched", False),
        (f"{__name__}:Called", True),
        (f"{__name__}:MadeOtherwise", False),
        ("tests.engines:PathHash", True),
        ("tests.engines:FailsToLoad", False),
    ],
)
def test_other_engines_go_over_to_any_model_if_they_can_at_all(engine, can):
    choice = Choice(engine, "float32", "cpu", "")
    assert can_switch(choice, EngineConfig(), model("a"), model("b", "adapter")) == can


@pytest.mark.parametrize("engine", ["vllm", "transformers", "hash"])
def test_a_model_that_is_known_by_its_identity_alone_is_switched_to_by_none(folders, engine):
    choice = Choice(engine, "float32", "cuda", "")
    gone = ResolvedModel("", None, "m", "")
    assert not can_switch(choice, EngineConfig(), model(folders["one"]), gone)
    assert not can_switch(choice, EngineConfig(), gone, model(folders["one"]))


def test_the_hash_engine_takes_the_name_of_the_other_model():
    ids = np.arange(1, 12, dtype=np.int32)
    row = TokenSequence(ids, ids > 4)
    choice = Choice("hash", "float32", "cpu", "")
    one, other = (ResolvedModel("", None, name, "") for name in ("one", "other"))
    measurer = LOSS.open_for(choice, EngineConfig(), [one, other], 64)
    before = measurer.measure([row])
    measurer.switch(other)
    assert measurer.measure([row])["loss"][0].as_py() == -HashEngine("other").logprobs([row])[0].sum(
        dtype=np.float64
    )
    measurer.switch(one)
    assert measurer.measure([row]).equals(before)
