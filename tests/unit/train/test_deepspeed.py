import pytest

from davir_ray.config import TrainConfig
from davir_ray.train.deepspeed import deepspeed_config


def zero(**settings):
    return deepspeed_config(TrainConfig(**settings))["zero_optimization"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_stage_of_the_recipe_is_deepspeed_s(stage):
    train = TrainConfig(zero_stage=stage)
    assert zero(zero_stage=stage)["stage"] == stage
    assert "optimizer" not in deepspeed_config(train)


def test_every_number_that_trl_knows_is_left_to_it():
    config = deepspeed_config(TrainConfig(gradient_accumulation_steps=3, max_grad_norm=2.0))
    left = (
        "gradient_clipping",
        "gradient_accumulation_steps",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
    )
    assert {name: config[name] for name in left} == dict.fromkeys(left, "auto")
    assert config["bf16"] == {"enabled": "auto"}


def test_without_a_stage_there_is_no_deepspeed():
    assert deepspeed_config(TrainConfig(zero_stage=None)) is None


def test_only_stage_3_gathers_the_weights_when_it_saves():
    gathers = "stage3_gather_16bit_weights_on_model_save"
    assert [zero(zero_stage=stage).get(gathers) for stage in range(4)] == [None, None, None, True]


def test_the_optimiser_goes_to_the_host_and_becomes_deepspeed_s_own():
    train = TrainConfig(zero_stage=1, offload_optimizer=True)
    assert zero(zero_stage=1, offload_optimizer=True) == {
        "stage": 1,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
    }
    assert deepspeed_config(train)["optimizer"]["type"] == "AdamW"
    assert set(deepspeed_config(train)["optimizer"]["params"].values()) == {"auto"}


def test_weights_go_to_the_host():
    offloaded = zero(zero_stage=3, offload_param=True)
    assert offloaded["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert "offload_optimizer" not in offloaded


def test_a_configuration_of_the_user_s_own_is_taken_as_it_is():
    own = {"zero_optimization": {"stage": 3}, "train_batch_size": 16}
    train = TrainConfig(deepspeed=own)
    assert deepspeed_config(train) == own
