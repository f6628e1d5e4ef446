"""TRL's trainers, with the two seams where DPO is ours: tokens and frozen log-probabilities that are already there,
and the DavIR-DPO loss. Written against TRL 1.16; tests/real/test_trl_seams.py notices when they move.

Shapes: B pairs, T tokens of the longest sequence; TRL's batch is [2B, T], the chosen sides first.
"""

from typing import Any

import torch
from datasets import Dataset
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from davir_ray.schema import IGNORED
from davir_ray.train.losses import davir_dpo_loss, davir_ratio
from davir_ray.train.sampling import ResumableOrder


class RowTrainer(ResumableOrder, SFTTrainer):
    """TRL's SFT."""


class PairTrainer(ResumableOrder, DPOTrainer):
    """TRL's DPO on rows that are tokenised, and that may carry the log-probabilities of the frozen policy."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Take the frozen log-probabilities from the rows; compute them only where rows have none."""
        if "ref_chosen_logps" in dataset.column_names:
            return dataset
        computed = super()._precompute_ref_logps(dataset, name, batch_size)
        if self._precompute_engine is not None:
            # Under ZeRO 3 its hooks would stay on the model, and trip over those of the engine that trains.
            self._precompute_engine.destroy()
            self._precompute_engine = None
        return computed


class DavirDPOTrainer(PairTrainer):
    """DPO with the DavIR-DPO loss."""

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool) -> Any:
        if return_outputs:
            raise NotImplementedError("DavIR-DPO does not hand out logits")
        logps = _summed_logps(model, inputs)
        chosen, rejected = logps.chunk(2)
        frozen_chosen, frozen_rejected = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        loss = davir_dpo_loss(chosen, rejected, frozen_chosen, frozen_rejected, self.beta)
        rewards = self.beta * davir_ratio(logps, torch.cat([frozen_chosen, frozen_rejected]))
        chosen_rewards, rejected_rewards = rewards.detach().chunk(2)
        self._add("logps/chosen", chosen.detach())
        self._add("logps/rejected", rejected.detach())
        self._add("rewards/chosen", chosen_rewards)
        self._add("rewards/rejected", rejected_rewards)
        self._add("rewards/margins", chosen_rewards - rejected_rewards)
        self._add("rewards/accuracies", (chosen_rewards > rejected_rewards).float())
        return loss.mean()

    def _add(self, name: str, values: torch.Tensor) -> None:
        """Add the mean over all workers to TRL's metrics."""
        mode = "train" if torch.is_grad_enabled() else "eval"
        self._metrics[mode][name].append(self.accelerator.gather_for_metrics(values).mean().item())


def _summed_logps(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the log-probability of each response [2B], from TRL's fused head, which is 0 where nothing counts."""
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)
    outputs = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        labels=labels,
        use_cache=False,
        fused_lm_head=True,
    )
    summed: torch.Tensor = outputs.log_probs.sum(dim=1)
    return summed
