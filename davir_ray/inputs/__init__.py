"""Everything that a run is about, checked before an accelerator is claimed: corpus, models, tokenizers, score.

inputs.py    what it comes to
checks.py    a recipe -> inputs, or what is wrong with it
anchored.py  its paths, made absolute
"""

from davir_ray.inputs.anchored import anchored, in_submitted_job
from davir_ray.inputs.checks import PAIRS, check_inputs, check_score, load_inputs
from davir_ray.inputs.inputs import Inputs

__all__ = ["PAIRS", "Inputs", "anchored", "check_inputs", "check_score", "in_submitted_job", "load_inputs"]
