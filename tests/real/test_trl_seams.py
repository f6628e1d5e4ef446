"""The seams in TRL that davir_ray/train/trainers.py goes through: that they are there, and what comes of them."""

import inspect

import pytest
import torch
from torch.nn.functional import logsigmoid
from trl.trainer.dpo_trainer import DPOTrainer

from davir_ray.train.losses import davir_dpo_loss
from davir_ray.train.trainers import DavirDPOTrainer, PairTrainer
from tests.trl_trainers import model_of, rows_of, trainer_of

pytestmark = pytest.mark.real

CHOSEN = [([5, 9, 17, 33, 2], [False, False, True, True, True]), ([7, 8, 9], [False, True, True])]
REJECTED = [([5, 9, 40], [False, False, True]), ([7, 61, 62, 63], [False, True, False, True])]
ROWS = rows_of(CHOSEN, REJECTED)
FROZEN = {"ref_chosen_logps": [-11.5, -7.25], "ref_rejected_logps": [-4.75, -13.0]}


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_prepare_dataset", ["self", "dataset", "processing_class", "args", "dataset_name"]),
        ("_precompute_ref_logps", ["self", "dataset", "name", "batch_size"]),
        ("_compute_loss", ["self", "model", "inputs", "return_outputs"]),
        ("compute_ref_log_probs", ["self", "model", "inputs"]),
    ],
)
def test_trl_has_the_methods_that_are_overridden(method, parameters):
    found = getattr(DPOTrainer, method, None)
    assert found is not None, f"TRL has no DPOTrainer.{method} any more"
    assert list(inspect.signature(found).parameters) == parameters


def plain_logps(model, rows: list) -> torch.Tensor:
    """Log-probabilities by transformers alone, in float64 after the logits."""
    sums = []
    for ids, scored in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
        tokens = torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]]
        sums.append(tokens[torch.tensor(scored[1:])].sum())
    return torch.stack(sums)


def counted(model) -> list[int]:
    """Count the forward passes of a model from now on."""
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("kind", [PairTrainer, DavirDPOTrainer])
def test_frozen_log_probabilities_that_rows_carry_are_not_computed(kind, tiny_models, tmp_path):
    model = model_of(tiny_models[0])
    calls = counted(model)
    trainer = trainer_of(kind, tiny_models[0], model, ROWS | FROZEN, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    assert calls == []
    assert sorted(batch["ref_chosen_logps"].tolist()) == sorted(FROZEN["ref_chosen_logps"])
    assert sorted(batch["ref_rejected_logps"].tolist()) == sorted(FROZEN["ref_rejected_logps"])
    trainer.train()
    assert len(calls) == 1, "one pass for the policy, none for the frozen one"


@pytest.mark.parametrize("kind", [PairTrainer, DavirDPOTrainer])
def test_frozen_log_probabilities_that_rows_lack_are_computed(kind, tiny_models, tmp_path):
    model = model_of(tiny_models[0])
    calls = counted(model)
    trainer = trainer_of(kind, tiny_models[0], model, ROWS, tmp_path)
    assert len(calls) == 1
    plain = model_of(tiny_models[0])
    for name, rows in (("ref_chosen_logps", CHOSEN), ("ref_rejected_logps", REJECTED)):
        assert list(trainer.train_dataset[name]) == pytest.approx(plain_logps(plain, rows).tolist(), abs=1e-4)


def test_tokens_go_through_untouched(tiny_models, tmp_path):
    trainer = trainer_of(PairTrainer, tiny_models[0], model_of(tiny_models[0]), ROWS | FROZEN, tmp_path)
    dataset = trainer.train_dataset
    assert {name: list(dataset[name]) for name in dataset.column_names} == ROWS | FROZEN
    batch = trainer.data_collator([dataset[0], dataset[1]])
    assert batch["completion_mask"].tolist() == [
        [0, 0, 1, 1, 1],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 0, 1, 0],
    ]


@pytest.mark.parametrize("beta", [0.7, 25.0])
def test_the_logged_loss_is_davir_dpo_of_plain_log_probabilities(beta, tiny_models, tmp_path):
    base, frozen_base = tiny_models
    policy, frozen = model_of(base), model_of(frozen_base)
    chosen, rejected = (plain_logps(policy, rows) for rows in (CHOSEN, REJECTED))
    was_chosen, was_rejected = (plain_logps(frozen, rows) for rows in (CHOSEN, REJECTED))
    carried = {"ref_chosen_logps": was_chosen.tolist(), "ref_rejected_logps": was_rejected.tolist()}
    changes = {"objective": "davir_dpo", "beta": beta}
    trainer = trainer_of(DavirDPOTrainer, base, policy, ROWS | carried, tmp_path, **changes)
    trainer.train()
    logged = trainer.state.log_history[0]
    by_losses = davir_dpo_loss(chosen, rejected, was_chosen, was_rejected, beta).mean()
    margin = (chosen - was_chosen) / -was_chosen - (rejected - was_rejected) / -was_rejected
    by_hand = -logsigmoid(beta * margin).mean()
    assert abs(float(by_hand) - 0.6931) > 1e-3, "a policy that is its frozen self could not tell"
    assert logged["loss"] == pytest.approx(float(by_losses), rel=1e-5)
    assert logged["loss"] == pytest.approx(float(by_hand), rel=1e-5)
    assert logged["rewards/margins"] == pytest.approx(float(beta * margin.mean()), rel=1e-3)
    assert logged["rewards/accuracies"] == pytest.approx(float((margin > 0).double().mean()))
    assert logged["logps/chosen"] == pytest.approx(float(chosen.mean()), rel=1e-5)
