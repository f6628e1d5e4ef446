"""An engine that was switched gives the numbers of one that was made for the model, to the bit."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from davir_ray.errors import ModelError
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.models.resolve import ResolvedModel
from tests.unit.logprobs.hf.random_models import mixed_call, save, save_adapter


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Model paths and adapters: a base, an adapter over it, another of its kind, and another architecture."""
    folder = tmp_path_factory.mktemp("models")
    base = save(folder / "base", "llama", tie_word_embeddings=True)
    adapter, _ = save_adapter(folder / "adapter", base)
    return {
        "base": (base, None),
        "adapted": (base, adapter),
        "tuned": (save(folder / "tuned", "llama", seed=1, tie_word_embeddings=True), None),
        "other": (save(folder / "other", "gemma2"), None),
    }


def resolved(path, adapter) -> ResolvedModel:
    return ResolvedModel(path, adapter, "m", path)


def same(found, expected) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_model_in_turn_has_the_numbers_of_an_engine_of_its_own(models, dtype):
    call = mixed_call()
    alone = {
        name: TransformersEngine(path, adapter_path=adapter, dtype=dtype, batch_tokens=150).logprobs(call)
        for name, (path, adapter) in models.items()
    }
    engine = TransformersEngine(models["base"][0], dtype=dtype, batch_tokens=150)
    assert same(engine.logprobs(call), alone["base"])
    for name in ("adapted", "base", "tuned", "other", "adapted", "tuned"):
        engine.switch(resolved(*models[name]))
        assert same(engine.logprobs(call), alone[name]), name
    assert not any(same(alone["base"], alone[name]) for name in ("adapted", "tuned", "other"))


def test_an_adapter_goes_over_the_base_that_is_loaded(models, monkeypatch):
    engine = TransformersEngine(models["base"][0])
    monkeypatch.setattr(engine, "_load", None)
    engine.logprobs(mixed_call())
    engine.switch(resolved(*models["adapted"]))
    monkeypatch.undo()
    adapted = TransformersEngine(*models["adapted"][:1], adapter_path=models["adapted"][1])
    assert same(engine.logprobs(mixed_call()), adapted.logprobs(mixed_call()))


def test_a_model_that_cannot_be_loaded_is_named(models, tmp_path):
    engine = TransformersEngine(models["base"][0])
    with pytest.raises(ModelError, match="nothing-there"):
        engine.switch(resolved(str(tmp_path / "nothing-there"), None))


def test_an_adapter_of_which_nothing_belongs_to_the_model_is_refused(models, tmp_path):
    base, adapter = models["adapted"]
    shutil.copytree(adapter, tmp_path / "renamed")
    file = tmp_path / "renamed" / "adapter_model.safetensors"
    save_file({name.replace(".layers.", ".blocks."): one for name, one in load_file(file).items()}, file)
    with pytest.raises(ModelError, match=r"renamed: none of its tensors belongs to a module of the model"):
        TransformersEngine(base, adapter_path=str(tmp_path / "renamed"))


def test_an_adapter_whose_base_is_named_as_on_the_hub_is_put_on_without_the_hub(
    models, tmp_path, monkeypatch
):
    base, adapter = models["adapted"]
    shutil.copytree(adapter, tmp_path / "published")
    config = tmp_path / "published" / "adapter_config.json"
    named = json.loads(config.read_text()) | {"base_model_name_or_path": "org/name"}
    config.write_text(json.dumps(named))

    def offline(*_, **__):
        raise OSError("the hub was asked")

    monkeypatch.setattr("socket.socket.connect", offline)
    engine = TransformersEngine(base, adapter_path=str(tmp_path / "published"))
    expected = TransformersEngine(base, adapter_path=adapter)
    assert same(engine.logprobs(mixed_call()), expected.logprobs(mixed_call()))
