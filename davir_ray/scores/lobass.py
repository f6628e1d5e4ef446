"""LoBaSS: learnability, the loss that fine-tuning removes against the loss at the start.

    lobass(x, y) = (L_ini(y|x) - L_ref(y|x)) / L_ini(y|x)

L_ini is the base's loss, L_ref that of the base fine-tuned on the whole pool. The highest values are taken.

Zhou et al., "LoBaSS: Gauging Learnability in Supervised Fine-tuning Data", arXiv 2310.13008v1, 2023: the
first version of the paper that became DavIR.

- Verified, from the abstract and the public reviews: the reference is fine-tuned on the full set; the
  score is a "normalized difference", a "relative loss reduction"; the un-normalised L_ini - L_ref is an
  ablation (`rho_mean`).
- Not verified: that the denominator is L_ini (taken from memory; with L_ref the ranking would be the
  same), and whether losses are means or sums (the ratio is the same).
- Not implemented: the thresholds of its constraints on very easy and very hard rows, which no public
  text gives. The `difficulty` selection rule drops such rows.

As far as it could be verified it is the same number as `davir`, under the name of its own paper.
"""

from davir_ray.scores.davir import davir
from davir_ray.scores.score import BASE, REFERENCE, Score

LOBASS = Score(
    name="lobass",
    formula="(L_base - L_ref) / L_base",
    needs=(BASE, REFERENCE),
    paper="arXiv 2310.13008v1 (LoBaSS; denominator not verified)",
    compute=davir,
    settings=("min_loss",),
)
