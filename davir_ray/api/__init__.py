"""The public interface in Python, which the command line stands on: `davir_ray.score` and its like.

runs.py   score, run, select, and the finished run that they return
given.py  what may be given as a recipe, and as overrides of it
"""

from davir_ray.api.runs import JobRun, Run, run, score, select

__all__ = ["JobRun", "Run", "run", "score", "select"]
