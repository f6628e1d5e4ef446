"""Choose the training data that a language model can still learn from: DavIR on Ray.

    import davir_ray

    run = davir_ray.score("recipe.yaml")
    run.record.selected, run.scored().to_pandas(), run.coreset()

`score`, `run`, `select` and `Run` are the public interface (davir_ray/api); they are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from davir_ray.api import JobRun, Run, run, score, select

__version__ = "0.1.0"
__all__ = ["JobRun", "Run", "__version__", "run", "score", "select"]


def __getattr__(name: str) -> Any:
    """Load the public interface when something of it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from davir_ray import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
