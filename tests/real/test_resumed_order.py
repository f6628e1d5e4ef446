"""A training that is resumed sees the rows that an undisturbed one sees, in the same order, from any checkpoint."""

import pytest
import torch

from davir_ray.train.trainers import PairTrainer
from tests.trl_trainers import model_of, rows_of, trainer_of

pytestmark = pytest.mark.real

ROWS = 9
STEPS = 12
"""Five steps make an epoch."""


def rows() -> dict[str, list]:
    """Make pairs whose first token tells them apart, of lengths that differ."""
    sides = [([10 + i] * (3 + i * 4 % 7), [False] + [True] * (2 + i * 4 % 7)) for i in range(ROWS)]
    frozen = {"ref_chosen_logps": [-9.0] * ROWS, "ref_rejected_logps": [-8.0] * ROWS}
    return rows_of(sides, sides[::-1]) | frozen


def train(
    base: str, out, strategy: str, checkpoint: str | None = None
) -> tuple[list[list[int]], torch.Tensor]:
    """Return the first token of each row of each batch, and the weights at the end."""
    trainer = trainer_of(
        PairTrainer,
        base,
        model_of(base),
        rows(),
        out,
        max_steps=STEPS,
        save_steps=1,
        per_device_train_batch_size=2,
        train_sampling_strategy=strategy,
        learning_rate=1e-3,
    )
    trainer.args.save_total_limit = None
    seen = []
    step = trainer.training_step

    def watched(model, inputs, *rest):
        seen.append(inputs["input_ids"][: len(inputs["input_ids"]) // 2, 0].tolist())
        return step(model, inputs, *rest)

    trainer.training_step = watched
    trainer.train(resume_from_checkpoint=checkpoint)
    return seen, torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])


@pytest.mark.parametrize("strategy", ["random", "group_by_length", "sequential"])
def test_every_checkpoint_leads_to_the_same_end(strategy, tiny_models, tmp_path):
    batches, weights = train(tiny_models[0], tmp_path, strategy)
    epochs = [[row for batch in batches[first : first + 5] for row in batch] for first in (0, 5)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10, 10 + ROWS))] * 2
    assert (epochs[0] == epochs[1]) == (strategy == "sequential")
    for step in (2, 5, 11):  # within an epoch, at its end, within a later one
        resumed, ends = train(
            tiny_models[0], tmp_path / "resumed", strategy, str(tmp_path / f"checkpoint-{step}")
        )
        assert resumed == batches[step:]
        assert torch.equal(ends, weights)
