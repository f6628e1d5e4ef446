import json

import pytest

from davir_ray.config import TrainConfig
from davir_ray.errors import ModelError, RecipeError, TrainingError
from davir_ray.models.resolve import ResolvedModel
from davir_ray.runs import trackers
from davir_ray.train import checks
from davir_ray.train.checks import (
    check_base,
    check_held_out,
    check_rows,
    check_settings,
    check_trainable,
    check_vocabulary,
    read_deepspeed,
    with_deepspeed,
)


@pytest.fixture
def base(tmp_path):
    return model(tmp_path, {"vocab_size": 100})


def model(folder, config, adapter=None):
    (folder / "config.json").write_text(json.dumps(config))
    return ResolvedModel(str(folder), adapter, "identity", str(folder))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"packing": True}, r"^train\.packing: .* on a GPU only"),
        ({"offload_optimizer": True}, r"^train\.offload_\*: "),
        ({"offload_param": True, "zero_stage": 3}, r"^train\.offload_\*: "),
    ],
)
def test_what_needs_a_gpu_is_refused_on_a_cpu_by_name(settings, says):
    with pytest.raises(RecipeError, match=says):
        check_settings(TrainConfig(**settings), "cpu")
    if "packing" not in settings:  # which asks for more
        check_settings(TrainConfig(**settings), "cuda")


def test_nothing_is_trained_from_a_model_that_is_known_by_its_identity_alone(base):
    check_trainable(base, TrainConfig())
    with pytest.raises(ModelError, match="the model 00ff is known by its identity alone, and is needed here"):
        check_trainable(ResolvedModel("", None, "00ff", base.tokenizer_path), TrainConfig())


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("wandb", r"^train\.report_to: wandb is not installed"),
        ("trl", r"^train: trl is not installed; pip install 'davir-ray\[train\]'"),
        ("deepspeed", "^train: deepspeed is not installed"),
        ("datasets", "^train: datasets is not installed"),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, missing, says):
    for module in (checks, trackers):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(RecipeError, match=says):
        check_settings(TrainConfig(report_to=("tensorboard", "wandb")), "cpu")


def test_zero_3_of_ones_own_that_could_not_be_written_is_refused():
    zero = {"stage": 3}
    with pytest.raises(RecipeError, match="stage3_gather_16bit_weights_on_model_save"):
        check_settings(TrainConfig(deepspeed={"zero_optimization": zero}), "cpu")
    zero = zero | {"stage3_gather_16bit_weights_on_model_save": True}
    check_settings(TrainConfig(deepspeed={"zero_optimization": zero}), "cpu")


def test_held_out_rows_have_to_be_there(base):
    with pytest.raises(TrainingError, match=r"^train\.eval_corpus: there is no row to evaluate on"):
        check_held_out(0, -1, base, "train.eval_corpus")


def test_a_deepspeed_file_is_read_and_all_else_stays(tmp_path):
    file = tmp_path / "zero.json"
    file.write_text('{"zero_optimization": {"stage": 1}}')
    checked = with_deepspeed(TrainConfig(deepspeed=str(file), seed=7))
    assert checked == TrainConfig(deepspeed={"zero_optimization": {"stage": 1}}, seed=7)


@pytest.mark.parametrize(
    ("text", "says"), [("{", "cannot be read as JSON: Expecting"), ("[1]", "expected a JSON object")]
)
def test_a_deepspeed_file_that_is_none_is_named(tmp_path, text, says):
    file = tmp_path / "zero.json"
    file.write_text(text)
    with pytest.raises(RecipeError, match=says) as caught:
        read_deepspeed(str(file))
    assert str(caught.value).startswith(f"train.deepspeed: {file}: ")


def test_a_deepspeed_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"^train\.deepspeed: .*/none\.json: there is no such file$"):
        read_deepspeed(str(tmp_path / "none.json"))


def test_training_begins_from_a_whole_model(tmp_path, base):
    check_base(base)
    with pytest.raises(ModelError, match=r"^/adapter: .*merge the adapter first"):
        check_base(model(tmp_path, {}, adapter="/adapter"))


def test_training_on_no_rows_says_what_has_none(base):
    with pytest.raises(TrainingError, match=r"^the core-set: there is no row to train on"):
        check_rows(0, -1, TrainConfig(), base, "the core-set")


def test_a_step_of_more_rows_than_there_are_is_refused_with_the_numbers(base):
    train = TrainConfig(per_device_train_batch_size=4, gradient_accumulation_steps=3, num_workers=2)
    check_rows(24, 99, train, base, "the core-set")
    with pytest.raises(TrainingError) as caught:
        check_rows(23, 99, train, base, "the core-set")
    assert str(caught.value) == (
        "the core-set: a step takes 24 rows (per_device_train_batch_size 4 x gradient_accumulation_steps 3 x "
        "num_workers 2), and there are 23"
    )


def test_a_token_that_the_model_has_no_embedding_for_is_refused(base):
    check_vocabulary(99, base, "the corpus")
    with pytest.raises(ModelError, match=r"^the corpus: has token id 100, .* embeddings for 100 tokens"):
        check_vocabulary(100, base, "the corpus")
    with pytest.raises(ModelError, match="token id 100"):
        check_rows(8, 100, TrainConfig(), base, "the corpus")


def test_the_vocabulary_may_stand_in_the_text_part_of_a_config_or_nowhere(tmp_path):
    nested = model(tmp_path, {"text_config": {"vocab_size": 10}})
    with pytest.raises(ModelError, match="embeddings for 10 tokens"):
        check_vocabulary(10, nested, "x")
    check_vocabulary(10**6, model(tmp_path, {}), "x")
