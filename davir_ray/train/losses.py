"""The DavIR-DPO objective. Pure torch.

DavIR (arXiv 2310.13008), the DPO section; in the project's words (docs and design) the policy that DPO starts from is
`frozen`. Shapes: [B], one entry a pair; log-probabilities are summed over the response, in nats.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

LEAST_NATS = 0.1
"""A response that the frozen policy is surer of than this is divided by this, or one pair would own a whole step."""


def davir_ratio(logps: Tensor, frozen_logps: Tensor) -> Tensor:
    """Return log(pi / pi_frozen) / |log pi_frozen| [B]: the share of its nats that a response has gained.

    It is the DavIR score with the frozen policy as the base and the policy as the reference.
    """
    return (logps - frozen_logps) / frozen_logps.abs().clamp_min(LEAST_NATS)


def davir_dpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    frozen_chosen_logps: Tensor,
    frozen_rejected_logps: Tensor,
    beta: float,
) -> Tensor:
    """Return -log sigmoid(beta * (davir_ratio(chosen) - davir_ratio(rejected))) [B].

    The frozen log-probabilities carry no gradient. With all of them equal to -c this is DPO with beta / c.
    """
    chosen = davir_ratio(chosen_logps, frozen_chosen_logps.detach())
    rejected = davir_ratio(rejected_logps, frozen_rejected_logps.detach())
    return -logsigmoid(beta * (chosen - rejected))
