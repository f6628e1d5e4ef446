'''Measurements -> one number an example.

    score.py     what a score is: a formula over measurements, and the measurements that it needs
    guards.py    which losses a formula cannot use, and what happens then; the shared means and ratios
    assemble.py  measurements put beside the examples of a split, and scored
    davir.py ... one file a method: formula, paper, code; SCORES below lists them
    SCORES       name -> Score, in the order in which `davir scores` prints them

A score says nothing about which end of it is good: `score.order` does, when the rows are ranked.

A score of your own is a `Score` in any module that the workers can import. In `my_scores.py`:

    from davir_ray.schema import Need, View
    from davir_ray.scores.guards import mean_loss
    from davir_ray.scores.score import Score

    BASE, REFERENCE = Need("loss", "base", View.RESPONSE), Need("loss", "reference", View.RESPONSE)

    def surprise_left(measured, config):
        """Return what both models find hard, in nats a token [N]."""
        return mean_loss(measured, BASE) * mean_loss(measured, REFERENCE)

    SURPRISE = Score("surprise", "L_base * L_ref", (BASE, REFERENCE), "none", surprise_left)

and in the recipe `score: {name: my_scores:SURPRISE}`. What it needs is measured; NaN leaves a row
without a score.
'''

from hashlib import blake2b

from davir_ray.config.by_path import import_by_path, source_of
from davir_ray.config.nearest import did_you_mean
from davir_ray.errors import RecipeError
from davir_ray.scores.base_loss import BASE_LOSS
from davir_ray.scores.davir import DAVIR
from davir_ray.scores.ifd import IFD
from davir_ray.scores.ifd_ppl import IFD_PPL
from davir_ray.scores.influence import GRADIENT_COSINE, LESS, LESS_PROJECTED, ROSE, ROSE_PROJECTED
from davir_ray.scores.length import LENGTH
from davir_ray.scores.lobass import LOBASS
from davir_ray.scores.margin import MARGIN
from davir_ray.scores.perplexity import PERPLEXITY
from davir_ray.scores.random_draw import RANDOM
from davir_ray.scores.rds import RDS
from davir_ray.scores.reference_loss import REFERENCE_LOSS
from davir_ray.scores.rho import RHO_MEAN, RHO_SUM
from davir_ray.scores.rsr import RSR
from davir_ray.scores.s_ifd import S_IFD
from davir_ray.scores.score import Score
from davir_ray.scores.tov import COLOR_FILTER, TOV

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        DAVIR,
        RHO_MEAN,
        RHO_SUM,
        LOBASS,
        IFD,
        IFD_PPL,
        S_IFD,
        RSR,
        ROSE,
        LESS,
        GRADIENT_COSINE,
        ROSE_PROJECTED,
        LESS_PROJECTED,
        RDS,
        TOV,
        COLOR_FILTER,
        BASE_LOSS,
        REFERENCE_LOSS,
        PERPLEXITY,
        MARGIN,
        LENGTH,
        RANDOM,
    )
}


def resolve_score(name: str) -> Score:
    """Return a built-in score by its name, or a user's by `module:attribute`. Raises `RecipeError`."""
    if ":" in name:
        return _import_score(name)
    if name not in SCORES:
        raise RecipeError(
            f"score.name: {name}: expected module:attribute or one of {', '.join(SCORES)}{did_you_mean(name, SCORES)}"
        )
    return SCORES[name]


def score_code(name: str) -> str:
    """Return the source of a user's score, so that a run of an edited score is another run; empty for built-ins."""
    return source_of(name) if ":" in name else ""


def score_digest(name: str) -> str:
    """Name the source of a user's score; empty for built-ins."""
    return blake2b(score_code(name).encode(), digest_size=16).hexdigest() if ":" in name else ""


def _import_score(path: str) -> Score:
    found = import_by_path(f"score.name: {path}", path)
    if not isinstance(found, Score):
        raise RecipeError(f"score.name: {path}: expected a Score, found {type(found).__name__}")
    return found
