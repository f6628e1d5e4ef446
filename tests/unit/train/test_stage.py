import pytest

from davir_ray import storage
from davir_ray.config import TrainConfig
from davir_ray.errors import RecipeError
from davir_ray.logprobs.choice import Choice
from davir_ray.runs.record import HeldOut, TrainingSettings
from davir_ray.runs.run import Run
from davir_ray.train.metrics import read_metrics, write_metrics
from davir_ray.train.stage import forget_old_log, frozen_from, held_out_metrics, settings_of


def choice(engine="transformers", dtype="float32"):
    return Choice(engine, dtype, "cpu", "a test")


def test_held_out_rows_are_told_as_they_were_first_and_last():
    metrics = [
        {"step": 0, "max_steps": 4, "eval_loss": 2.0, "eval_rewards/margins": 0.0, "epoch": 0},
        {"step": 2, "max_steps": 4, "loss": 1.7},
        {"step": 2, "max_steps": 4, "eval_loss": 1.5, "eval_rewards/margins": 0.1},
        {"step": 4, "max_steps": 4, "eval_loss": 1.2, "eval_rewards/margins": 0.3},
        {"step": 4, "max_steps": 4, "train_loss": 1.6},
    ]
    assert held_out_metrics(metrics).tree() == {
        "before": {"loss": 2.0, "rewards/margins": 0.0},
        "after": {"loss": 1.2, "rewards/margins": 0.3},
    }


@pytest.mark.parametrize("metrics", [[], [{"step": 1, "loss": 1.0}, {"step": 2, "train_loss": 1.0}]])
def test_without_held_out_rows_there_is_nothing_to_tell(metrics):
    assert held_out_metrics(metrics) == HeldOut()


@pytest.mark.parametrize(
    ("settings", "device", "measured", "source"),
    [
        ({}, "cpu", choice(), "store"),
        ({}, "cpu", choice("vllm"), "store"),
        ({}, "cuda", choice("vllm", "bfloat16"), "trainer"),
        ({}, "cuda", choice(dtype="float32"), "trainer"),
        ({}, "cpu", choice(dtype="bfloat16"), "trainer"),
        ({"dtype": "float32"}, "cuda", choice(dtype="float32"), "store"),
        ({}, "cpu", choice("hash"), "trainer"),
        ({"frozen_logps": "store"}, "cuda", choice("vllm", "bfloat16"), "store"),
        ({"frozen_logps": "trainer"}, "cpu", choice(), "trainer"),
    ],
)
@pytest.mark.parametrize("objective", ["dpo", "davir_dpo"])
def test_frozen_log_probabilities_come_from_the_store_unless_it_computes_otherwise(
    objective, settings, device, measured, source
):
    assert frozen_from(TrainConfig(objective=objective, **settings), measured, device) == source


@pytest.mark.parametrize("checkpoints", [0, 1])
def test_a_training_keeps_the_log_that_its_checkpoint_goes_on_with_and_no_other(tmp_path, checkpoints):
    run = Run.from_folder(str(tmp_path / "name-train-1"))
    write_metrics(run.folder, [{"step": 1, "max_steps": 4}])
    storage.write_atomic(storage.join(run.folder, "checkpoints", "snapshot.json"), b"{}")
    for number in range(checkpoints):
        storage.write_atomic(storage.join(run.folder, "checkpoints", f"checkpoint-{number}", "weights"), b"1")
    forget_old_log(run)
    assert len(read_metrics(run.folder)) == checkpoints


def test_without_pairs_nothing_is_frozen():
    assert frozen_from(TrainConfig(), choice(), "cpu") is None


def test_made_up_numbers_are_never_a_frozen_policy():
    with pytest.raises(RecipeError, match="made up"):
        frozen_from(TrainConfig(objective="dpo", frozen_logps="store"), choice("hash"), "cpu")


def test_the_record_says_what_defaults_came_to():
    assert settings_of(TrainConfig(seed=3), "cpu").tree() == {
        "learning_rate": 2e-5,
        "dtype": "float32",
        "device": "cpu",
        "seed": 3,
        "beta": None,
    }
    pairs = settings_of(TrainConfig(objective="davir_dpo", learning_rate=1e-6), "cuda")
    assert pairs == TrainingSettings(learning_rate=1e-6, dtype="bfloat16", device="cuda", seed=0, beta=10.0)
