import pytest
import torch
from peft import get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from davir_ray.config import CorpusConfig, LoraConfig, TrainConfig
from davir_ray.errors import ModelError
from davir_ray.train.arguments import arguments_of, load_dtype, peft_config, told_what_fits
from davir_ray.train.settings import beta_of, dtype_of, learning_rate_of

LORA = {"r": 4}


def config(evaluates=False, **settings):
    """Return settings, without DeepSpeed unless they say so."""
    held_out = {"eval_corpus": CorpusConfig(paths="x")} if evaluates else {}
    without = {} if "deepspeed" in settings else {"zero_stage": None}
    return TrainConfig(**without | held_out | settings)


def arguments(tmp_path, *, evaluates=False, resumes=False, **settings):
    return arguments_of(
        config(evaluates, **settings),
        str(tmp_path),
        "cpu",
        max_length=192,
        evaluates=evaluates,
        resumes=resumes,
    )


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({"objective": "sft"}, 2e-5),
        ({"objective": "sft", "lora": LORA}, 2e-4),
        ({"objective": "dpo"}, 5e-7),
        ({"objective": "dpo", "lora": LORA}, 5e-6),
        ({"objective": "davir_dpo"}, 5e-7),
        ({"objective": "davir_dpo", "lora": LORA}, 5e-6),
        ({"objective": "dpo", "lora": LORA, "learning_rate": 3e-4}, 3e-4),
    ],
)
def test_the_learning_rate_follows_the_objective_and_lora_unless_it_is_given(tmp_path, settings, rate):
    assert learning_rate_of(config(**settings)) == pytest.approx(rate)
    assert arguments(tmp_path, **settings).learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("settings", "beta"),
    [
        ({"objective": "dpo"}, 0.1),
        ({"objective": "davir_dpo"}, 10.0),
        ({"objective": "dpo", "beta": 0.02}, 0.02),
        ({"objective": "davir_dpo", "beta": 3.0}, 3.0),
    ],
)
def test_beta_follows_the_objective_unless_it_is_given(tmp_path, settings, beta):
    assert beta_of(config(**settings)) == beta
    assert arguments(tmp_path, **settings).beta == beta


def test_settings_reach_trl_under_its_names(tmp_path):
    names = {
        "per_device_train_batch_size": 3,
        "per_device_eval_batch_size": 5,
        "gradient_accumulation_steps": 7,
        "gradient_checkpointing": True,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.25,
        "weight_decay": 0.5,
        "max_grad_norm": 2.0,
        "num_train_epochs": 4.0,
        "seed": 11,
        "logging_steps": 13,
    }
    for objective in ("sft", "dpo", "davir_dpo"):
        made = arguments(tmp_path, evaluates=True, objective=objective, **names)
        assert {name: getattr(made, name) for name in names} == names
        assert (made.use_cpu, made.remove_unused_columns, made.report_to) == (True, False, [])
        assert made.max_length is None


def test_without_max_steps_epochs_decide(tmp_path):
    assert arguments(tmp_path).max_steps == -1
    assert arguments(tmp_path, max_steps=9).max_steps == 9


def test_dpo_takes_frozen_log_probabilities_beforehand_and_the_loss_of_the_recipe(tmp_path):
    made = arguments(tmp_path, objective="dpo", loss_type="sigmoid_norm")
    assert (made.loss_type, made.precompute_ref_log_probs) == (["sigmoid_norm"], True)


def test_sft_rows_come_prepared(tmp_path):
    made = arguments(tmp_path)
    assert (made.packing, made.dataset_kwargs) == (False, {"skip_prepare_dataset": True})


def schedule(made):
    return made.eval_strategy.value, made.save_strategy.value


def test_an_epoch_ends_with_a_checkpoint_and_an_evaluation(tmp_path):
    assert schedule(arguments(tmp_path, evaluates=True)) == ("epoch", "epoch")


def test_steps_of_the_recipe_take_the_place_of_epochs(tmp_path):
    made = arguments(tmp_path, evaluates=True, eval_steps=3, save_steps=6)
    assert schedule(made) == ("steps", "steps")
    assert (made.eval_steps, made.save_steps) == (3, 6)
    assert schedule(arguments(tmp_path, evaluates=True, eval_steps=3)) == ("steps", "epoch")
    assert schedule(arguments(tmp_path, evaluates=True, save_steps=3)) == ("epoch", "steps")


def test_without_held_out_rows_nothing_is_evaluated(tmp_path):
    made = arguments(tmp_path)
    assert (made.eval_strategy.value, made.eval_on_start) == ("no", False)


def test_a_run_is_evaluated_when_it_begins_and_not_when_it_goes_on(tmp_path):
    assert arguments(tmp_path, evaluates=True).eval_on_start is True
    assert arguments(tmp_path, evaluates=True, resumes=True).eval_on_start is False


@pytest.mark.parametrize(
    ("asked", "device", "dtype"),
    [
        ("auto", "cuda", "bfloat16"),
        ("auto", "cpu", "float32"),
        ("float32", "cuda", "float32"),
        ("bfloat16", "cpu", "bfloat16"),
    ],
)
def test_auto_computes_in_bfloat16_on_a_gpu_alone(asked, device, dtype):
    assert dtype_of(config(dtype=asked), device) == dtype


def test_the_dtype_of_the_recipe_reaches_trl(tmp_path):
    assert arguments(tmp_path, dtype="bfloat16").bf16 is True
    assert arguments(tmp_path).bf16 is False


@pytest.mark.parametrize(
    ("settings", "device", "dtype"),
    [
        ({"zero_stage": 2}, "cuda", torch.bfloat16),
        ({"zero_stage": 0}, "cuda", torch.bfloat16),
        ({"deepspeed": {"bf16": {"enabled": "auto"}}}, "cuda", torch.bfloat16),
        ({"zero_stage": None}, "cuda", torch.float32),
        ({"zero_stage": 2, "dtype": "float32"}, "cuda", torch.float32),
        ({"zero_stage": 2}, "cpu", torch.float32),
    ],
)
def test_weights_are_loaded_in_float32_unless_deepspeed_keeps_such_a_copy(settings, device, dtype):
    assert load_dtype(config(**settings), device) == dtype


def test_an_adapter_is_described_to_peft():
    assert peft_config(None) is None
    made = peft_config(
        LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.1, target_modules=("q_proj", "v_proj"), layers_to_transform=(1,)
        )
    )
    assert (made.r, made.lora_alpha, made.lora_dropout, made.task_type) == (4, 8, 0.1, "CAUSAL_LM")
    assert (made.target_modules, made.layers_to_transform) == ({"q_proj", "v_proj"}, [1])
    default = peft_config(LoraConfig())
    assert (default.target_modules, default.layers_to_transform) == ("all-linear", None)


def test_a_loss_a_token_has_a_beta_of_its_scale():
    assert beta_of(config(objective="dpo", loss_type="sigmoid_norm")) == 10.0
    assert beta_of(config(objective="dpo", loss_type="sigmoid_norm", beta=0.5)) == 0.5


def test_an_adapter_that_fits_no_module_is_told_with_the_names_that_there_are():
    base = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    lora = LoraConfig(target_modules=("q_proj", "o_proj"))
    named = r"^warmup\.train\.lora\.target_modules: .* are called c_attn, c_fc, c_proj, lm_head$"
    with pytest.raises(ModelError, match=named), told_what_fits(base, "warmup.train.lora"):
        get_peft_model(base, peft_config(lora))
    with pytest.raises(ValueError, match="another"), told_what_fits(base, "warmup.train.lora"):
        raise ValueError("another")
