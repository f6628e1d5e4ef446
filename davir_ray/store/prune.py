"""Choose what nobody asks for any more: the measurements of models, and prepared corpora."""

from collections.abc import Sequence

from davir_ray.errors import StoreError
from davir_ray.store.holdings import Holding, model_holdings, prepared_holdings


def prunable(store: str, keep: Sequence[str], older_than: float | None) -> list[Holding]:
    """List the models that are not in `keep`, and the prepared corpora, that no run has used for so many seconds.

    Without an age, the models that are not in `keep`, and no corpus. Raises `StoreError` for a name to keep that
    the store does not have: it may be a slip, which would cost what it meant to save.
    """
    models = model_holdings(store)
    if unknown := set(keep) - {one.name for one in models}:
        raise StoreError(
            f"{store}: has no measurements of {', '.join(sorted(unknown))}; see `davir store info`"
        )
    others = [one for one in models if one.name not in keep]
    if older_than is None:
        return others
    return [one for one in [*others, *prepared_holdings(store)] if one.unused() > older_than]
