"""Choose what nobody asks for any more: the measurements of models, and prepared corpora."""

from collections.abc import Sequence

from davir_ray.errors import StoreError
from davir_ray.store.holdings import Holding, model_holdings, prepared_holdings, torn_files, unused_parts


def prunable(store: str, keep: Sequence[str], older_than: float | None) -> list[Holding]:
    """List the models that are not in `keep`, and the prepared corpora, that no run has used for so many seconds.

    Of corpora in use, the parts that no run has used for so long, and what killed writers left. Without an age, the
    models that are not in `keep`, and nothing else. Raises `StoreError` for a name to keep that the store does not
    have: it may be a slip, which would cost what it meant to save.
    """
    models = model_holdings(store)
    if unknown := set(keep) - {one.name for one in models}:
        raise StoreError(
            f"{store}: has no measurements of {', '.join(sorted(unknown))}; see `davir store info`"
        )
    others = [one for one in models if one.name not in keep]
    if older_than is None:
        return others
    corpora = prepared_holdings(store)
    in_use = [unused_parts(one, older_than) for one in corpora if one.unused() <= older_than]
    return [
        *(one for one in [*others, *corpora] if one.unused() > older_than),
        *(one for one in [*in_use, torn_files(store, older_than)] if one.files),
    ]
