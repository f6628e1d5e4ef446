"""What cannot be trained is refused before workers start, with what to do; nothing of Ray Train is left behind."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import LlamaConfig, LlamaForCausalLM

from davir_ray import pipeline
from davir_ray.cli import main
from davir_ray.errors import CorpusError, DavirError, ModelError, RecipeError, TrainingError
from davir_ray.train import steps as training
from tests import trainings
from tests.conftest import save_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    return trainings.write_rows(folder / "rows.parquet", 12), trainings.write_pairs(folder / "p.parquet", 3)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder for runs over the rows: the first of them measures."""
    return tmp_path_factory.mktemp("measured")


def refused(kind: type[DavirError], recipe) -> str:
    """Return the message with which a training is refused; no run holds anything of Ray Train, or a record."""
    with pytest.raises(kind) as error:
        training.train(recipe, "test")
    trained = [path for path in Path(recipe.output).glob("test-*dpo-*")]
    trained += list(Path(recipe.output).glob("test-sft-*"))
    for run in trained:
        left = {path.name for path in run.iterdir()}
        assert not left & {"checkpoints", "model", "metrics.jsonl", "record.json"}
    return str(error.value)


def on(corpus: str, **train) -> dict:
    return {"corpus": {"paths": corpus}, "max_steps": 1, **train}


def test_a_run_that_is_not_finished_has_no_core_set(tmp_path, tiny_models, corpora):
    recipe = trainings.recipe(tmp_path, tiny_models[0], corpora[0], {})
    message = refused(TrainingError, recipe)
    assert "has no core-set yet" in message
    assert "davir run" in message
    assert not (tmp_path / "runs").exists()


def test_an_empty_core_set_is_refused(measured, tiny_models, corpora):
    nothing = {"select": [{"type": "threshold", "min_score": 1e9}]}
    recipe = trainings.recipe(measured, tiny_models[0], corpora[0], {}, **nothing)
    assert pipeline.score(recipe, "test").selected == 0
    assert "there is no row to train on" in refused(TrainingError, recipe)


def test_a_batch_larger_than_the_core_set_is_refused(measured, tiny_models, corpora):
    train = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "num_workers": 2}
    recipe = trainings.recipe(
        measured, tiny_models[0], corpora[0], train, select=[{"type": "count", "count": 11}]
    )
    assert pipeline.score(recipe, "test").selected == 11
    message = refused(TrainingError, recipe)
    assert "a step takes 12 rows" in message
    assert "per_device_train_batch_size 2 x gradient_accumulation_steps 3 x num_workers 2" in message
    assert "there are 11" in message


@pytest.mark.parametrize("objective", ["dpo", "davir_dpo"])
def test_preferences_on_a_corpus_without_pairs_are_refused(objective, tmp_path, tiny_models, corpora):
    train = on(corpora[0], objective=objective, per_device_train_batch_size=1)
    message = refused(TrainingError, trainings.recipe(tmp_path, tiny_models[0], corpora[0], train))
    assert message.startswith(f"train.corpus: holds no preference pairs, and objective {objective}")
    assert not (tmp_path / "store").exists(), "nothing is tokenised or measured first"


def test_a_job_that_would_end_without_pairs_to_train_on_does_not_begin(tmp_path, tiny_models, corpora):
    train = {"objective": "dpo", "per_device_train_batch_size": 1}
    recipe = trainings.recipe(tmp_path, tiny_models[0], corpora[0], train)
    with pytest.raises(TrainingError, match=r"^the corpus: holds no preference pairs"):
        pipeline.run_all(recipe, "test")
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(exclude_none=True))
    told = CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")])
    assert told.exit_code == TrainingError.exit_code
    assert "the corpus: holds no preference pairs" in told.output
    assert not (tmp_path / "store").exists()


def test_held_out_rows_without_pairs_are_refused(tmp_path, tiny_models, corpora):
    rows, pairs = corpora
    train = on(pairs, objective="dpo", per_device_train_batch_size=1, eval_corpus={"paths": rows})
    message = refused(TrainingError, trainings.recipe(tmp_path, tiny_models[0], pairs, train))
    assert message.startswith("train.eval_corpus: holds no preference pairs")


def test_a_model_without_embeddings_for_the_corpus_is_refused(tmp_path, corpora):
    base = Path(save_tiny_model(tmp_path / "base"))
    config = LlamaConfig.from_pretrained(base)
    config.vocab_size = 60
    LlamaForCausalLM(config).save_pretrained(base)
    train = on(corpora[0], per_device_train_batch_size=1)
    message = refused(ModelError, trainings.recipe(tmp_path, str(base), corpora[0], train))
    assert "has embeddings for 60 tokens" in message
    assert "tokenised for another model" in message


def test_held_out_rows_that_are_not_there_are_refused(tmp_path, tiny_models, corpora):
    train = on(
        corpora[0], per_device_train_batch_size=1, eval_corpus={"paths": str(tmp_path / "none.parquet")}
    )
    message = refused(CorpusError, trainings.recipe(tmp_path, tiny_models[0], corpora[0], train))
    assert "none.parquet" in message


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, tiny_models, corpora):
    missing = next((name for name in ("wandb", "mlflow", "tensorboard") if find_spec(name) is None), None)
    if missing is None:
        pytest.skip("all trackers are installed")
    train = on(corpora[0], report_to=[missing])
    message = refused(RecipeError, trainings.recipe(tmp_path, tiny_models[0], corpora[0], train))
    assert f"train.report_to: {missing} is not installed" in message


@pytest.mark.parametrize(
    ("train", "what"),
    [
        ({"packing": True}, "train.packing"),
        ({"offload_optimizer": True}, "train.offload_"),
        ({"deepspeed": "no-such.json"}, "train.deepspeed"),
    ],
)
def test_settings_that_this_machine_cannot_follow_are_refused(train, what, tmp_path, tiny_models, corpora):
    recipe = trainings.recipe(tmp_path, tiny_models[0], corpora[0], on(corpora[0], **train))
    assert what in refused(RecipeError, recipe)
    assert not list(Path(recipe.output).glob("*/rows"))
