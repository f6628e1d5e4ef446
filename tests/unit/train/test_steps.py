"""What is told before the first training of a recipe starts."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from davir_ray.cli import main
from davir_ray.cluster import ray_session
from davir_ray.errors import EngineError, ModelError, RecipeError
from davir_ray.measure import ray_room
from davir_ray.recipe import parse_recipe
from davir_ray.train.steps import check_adapter_at_start, check_trainings, with_rate_of_target
from tests.unit.models.test_resolve import save_adapter


def asked(folder: Path, base: str, **changes):
    """A recipe that trains, in a file too."""
    (folder / "rows.jsonl").write_text('{"question": "Say A.", "answer": "A"}\n')
    tree = {
        "corpus": {"paths": str(folder / "rows.jsonl")},
        "models": {"base": base},
        "score": {"name": "perplexity"},
        "train": {"device": "cpu"},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    (folder / "recipe.json").write_text(json.dumps(tree | changes))
    return parse_recipe(tree | changes, "r")


def over_adapter(folder: Path, base: str):
    models = {
        "base": {
            "model_name_or_path": base,
            "adapter_name_or_path": save_adapter(folder / "adapter", width=32),
        }
    }
    return asked(folder, base, models=models)


@pytest.fixture
def laptop(monkeypatch):
    """A cluster of one node without GPUs."""
    monkeypatch.setattr(ray_session, "connect", lambda: None)
    monkeypatch.setattr(ray_session, "cluster_gpus", lambda: 0)
    monkeypatch.setattr(ray_room, "_nodes", lambda: [{"CPU": 2.0}])


def test_an_engine_without_its_gpu_is_told_before_anything_is_trained(tmp_path, tiny_models, laptop):
    recipe = asked(tmp_path, tiny_models[0], engine={"type": "transformers", "device": "cuda"})
    with pytest.raises(EngineError, match=r"^engine\.device: cuda: asks for 1 x 1 CPU and 1 GPU"):
        check_trainings(recipe)


def test_a_base_that_cannot_be_trained_is_told_before_anything_is_measured(tmp_path, tiny_models, laptop):
    recipe = over_adapter(tmp_path, tiny_models[0])
    with pytest.raises(ModelError, match="merge the adapter first"):
        check_trainings(recipe)


def test_validate_tells_what_a_training_cannot_have(tmp_path, tiny_models):
    over_adapter(tmp_path, tiny_models[0])
    told = CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")])
    assert (told.exit_code, "merge the adapter first" in told.output) == (ModelError.exit_code, True)
    asked(tmp_path, tiny_models[0], train={"device": "cpu", "offload_optimizer": True})
    told = CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")])
    assert (told.exit_code, "train.offload_*: without a GPU" in told.output) == (RecipeError.exit_code, True)
    asked(tmp_path, tiny_models[0])
    assert CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")]).exit_code == 0


def of_the_target(folder: Path, base: str, **changes):
    """A recipe whose model of the target begins from the reference, and has settings of an adapter."""
    target = {"fit": "target", "start": "reference", "train": {"lora": {}}}
    return asked(
        folder,
        base,
        target={"paths": str(folder / "rows.jsonl")},
        score={"name": "tov"},
        references={"target": target, **changes.pop("references", {})},
        **changes,
    )


def test_settings_of_an_adapter_over_an_adapter_are_refused_before_that_is_made(tmp_path, tiny_models):
    base = tiny_models[0]
    made = of_the_target(tmp_path, base, references={"reference": {"train": {"lora": {}}}})
    with pytest.raises(
        RecipeError, match=r"target\.train\.lora: the reference that it begins from is an adapter"
    ):
        check_adapter_at_start(made)
    folder = save_adapter(tmp_path / "adapter", width=32)
    named = of_the_target(tmp_path, base, models={"base": base, "reference": folder})
    with pytest.raises(
        RecipeError, match=r"target\.train\.lora: .*adapter is an adapter, which is trained on"
    ):
        check_adapter_at_start(named)
    merged = {"reference": {"train": {"lora": {"merge": True}}}}
    check_adapter_at_start(of_the_target(tmp_path, base, references=merged))
    check_adapter_at_start(of_the_target(tmp_path, base, models={"base": base, "reference": tiny_models[1]}))


@pytest.mark.parametrize(
    ("more", "start", "rate"),
    [
        ({"references": {"reference": {"train": {"learning_rate": 1e-3}}}}, "reference", 1e-4),
        ({"warmup": {"train": {"learning_rate": 3e-4}}}, "warmup", 3e-5),
        ({}, "base", None),
        ({"references": {"reference": {}}, "models": {"base": "b", "warmup": "w"}}, "warmup", None),
    ],
)
def test_a_training_on_the_target_takes_a_tenth_of_the_rate_of_what_it_begins_from(more, start, rate):
    target = {"fit": "target", "start": start}
    tree = {
        "corpus": {"paths": "rows.jsonl"},
        "models": {"base": "b"},
        "target": {"paths": "few.jsonl"},
        "score": {"name": "tov"},
        **more,
        "references": {"target": target, **more.get("references", {})},
    }
    recipe = parse_recipe(tree, "rates", as_written=False)
    assert with_rate_of_target(recipe).references["target"].train.learning_rate == (
        rate and pytest.approx(rate)
    )
    target["train"] = {"learning_rate": 7e-6}
    assert with_rate_of_target(parse_recipe(tree, "rates", as_written=False)).references[
        "target"
    ].train.learning_rate == pytest.approx(7e-6)
