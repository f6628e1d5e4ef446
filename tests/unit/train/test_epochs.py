"""What each epoch of a warm-up leaves."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from davir_ray.errors import TrainingError
from davir_ray.influence.moments import read_moments
from davir_ray.train.epochs import KeepEpochs, TellIdleTraining, mean_learning_rates, moments_of
from tests.tiny_adapted import tiny_adapted

LESS = [1.6877e-05, 1.2859e-05, 7.7030e-06, 2.5616e-06]
"""As its repository gives them, at steps 105, 211, 317 and 420."""


def arguments(folder: Path, **settings) -> TrainingArguments:
    settings = {"learning_rate": 2e-5, "lr_scheduler_type": "linear", "num_train_epochs": 4.0} | settings
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", **settings)


def stepped(model, steps: int) -> torch.optim.AdamW:
    """Take steps of AdamW on what is trained."""
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    for _ in range(steps):
        model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_mean_learning_rates_are_those_of_the_schedule(tmp_path):
    found = mean_learning_rates(arguments(tmp_path, warmup_steps=2), steps=8, epochs=4)
    # 0, 1/2, then from 1 down to 1/6 in six steps: the rate that a step was taken with, not the one after it
    assert found == pytest.approx([2e-5 * one for one in (0.25, 5.5 / 6, 3.5 / 6, 1.5 / 6)])


def test_mean_learning_rates_are_near_those_that_less_publishes(tmp_path):
    """Its epochs have 105.7 steps, of which the last is cut short; and its means are of rates as they were logged."""
    found = mean_learning_rates(arguments(tmp_path, warmup_steps=0.03), steps=420, epochs=4)
    assert found == pytest.approx(LESS, rel=0.02)
    weights, published = (torch.tensor(one) / sum(one) for one in (found, LESS))
    assert (weights - published).abs().max() < 0.007


def test_a_checkpoint_is_left_after_the_last_step_of_each_epoch_and_no_other(tmp_path):
    model = tiny_adapted(torch.float32)
    optimizer = stepped(model, 3)
    keep = KeepEpochs(str(tmp_path / "run"), tmp_path, "the/base")
    told = arguments(tmp_path, num_train_epochs=2.0, warmup_steps=0)
    for step in (1, 2, 3, 4, 5, 6):
        state = SimpleNamespace(global_step=step, max_steps=6, is_world_process_zero=True)
        keep.on_step_end(told, state, None, model=model, optimizer=optimizer)
        left = sorted(one.name for one in (tmp_path / "run" / "epochs").glob("*"))
        assert left == ["1", "2"][: step // 3]
    second = tmp_path / "run" / "epochs" / "2"
    moments = read_moments(second)  # which checks that names and shapes are those of the adapter
    assert (moments.epoch, moments.step) == (2, 6)
    assert moments.learning_rate == pytest.approx(2e-5 * 2 / 6)
    assert moments.first.keys() == load_file(second / "adapter_model.safetensors").keys()
    assert '"the/base"' in (second / "adapter_config.json").read_text()


@pytest.mark.parametrize(
    ("steps", "epochs", "warmup", "says"),
    [
        (1, 1.0, 0.03, "in every step of it: there are 1, and 1 warm up from 0"),
        (2, 2.0, 0.03, "in every step of an epoch: there are 1, and 1 warm up from 0"),
    ],
)
def test_a_training_that_changes_nothing_is_told_of(tmp_path, capsys, steps, epochs, warmup, says):
    def told_of(steps, warmup, first=True):
        state = SimpleNamespace(max_steps=steps, is_world_process_zero=first)
        asked = arguments(tmp_path, num_train_epochs=epochs, warmup_steps=warmup)
        TellIdleTraining(keeps_epochs=epochs > 1).on_train_begin(asked, state, None)
        return capsys.readouterr().err

    assert told_of(steps, warmup).startswith(f"warning: warmup_steps: the learning rate is 0 {says}")
    assert told_of(steps, 0) == told_of(2 * steps, warmup) == told_of(steps, warmup, first=False) == ""


def test_another_worker_gathers_and_writes_nothing(tmp_path):
    model = tiny_adapted(torch.float32)
    state = SimpleNamespace(global_step=3, max_steps=6, is_world_process_zero=False)
    keep = KeepEpochs(str(tmp_path / "run"), tmp_path, "the/base")
    told = arguments(tmp_path, num_train_epochs=2.0)
    keep.on_step_end(told, state, None, model=model, optimizer=stepped(model, 1))
    assert not (tmp_path / "run").exists()


def test_an_optimiser_without_moments_is_named(tmp_path):
    model = tiny_adapted(torch.float32)
    plain = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    with pytest.raises(TrainingError, match=r"the optimiser has no exp_avg of .*lora_A"):
        moments_of(model, plain)
