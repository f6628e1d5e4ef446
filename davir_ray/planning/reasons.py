"""Why the sequences that a run would measure are not in the store.

A model that has no measurements at all explains all of them. Else each row is compared with what stood in its place in
the last run of this name: a row cannot be known to be an edited one, but a place that held other content has changed.
"""

from collections import Counter
from collections.abc import Collection
from enum import StrEnum

import numpy as np

from davir_ray.ids import Keys
from davir_ray.measure.kind import Aimed, resolve_kind
from davir_ray.runs.changes import Change
from davir_ray.runs.locations import ABSENT
from davir_ray.runs.record import Facts
from davir_ray.schema import kind_of, role_of


class Reason(StrEnum):
    """Why something has to be measured."""

    FIRST_RUN = "first_run"
    """No earlier run of this name is finished, and the store has nothing of this model."""
    NEW_BASE = "new_base"
    NEW_REFERENCE = "new_reference"
    NEW_WARMUP = "new_warmup"
    NEW_TARGET_MODEL = "new_target_model"
    """Of the model called target, or of what it began from."""
    NEW_TARGET = "new_target"
    """The target has other rows."""
    NEW_ENGINE = "new_engine"
    """The same model under another engine, dtype or version of it."""
    EMPTY_STORE = "empty_store"
    """The last run measured this model, and the store has nothing of it."""
    NEW_ROW = "new_row"
    """The place held no row in the last run."""
    CHANGED_ROW = "changed_row"
    """The place held another content."""
    NEW_TOKENS = "new_tokens"
    """The row is as it was, and a setting of `tokens` is not."""
    NOT_MEASURED = "not_measured"
    """The row is as it was, and was not measured in this view."""
    NEW_OR_CHANGED = "new_or_changed"
    """The last run left no word of where its rows were."""


NEW_MODEL = {
    "base": Reason.NEW_BASE,
    "reference": Reason.NEW_REFERENCE,
    "warmup": Reason.NEW_WARMUP,
    "prior": Reason.NEW_TARGET_MODEL,
    "target": Reason.NEW_TARGET_MODEL,
}
"""Role of a model that is another than before -> why its rows are measured."""


def model_reason(
    model: str, label: str, store: str, record: Facts | None, changed: Collection[Change]
) -> Reason:
    """Say why the store has nothing at all of a pass. store: the folder that its measurements would be in."""
    if record is None:
        return Reason.FIRST_RUN
    if store in record.measurements.values():
        return Reason.EMPTY_STORE
    other, role = {change.what for change in changed}, role_of(model)
    if role in other:
        return NEW_MODEL[role]
    if "target_rows" in other and isinstance(resolve_kind(kind_of(label)), Aimed):
        return Reason.NEW_TARGET
    measured_then = map(_without_fold, record.measurements)
    return Reason.NEW_ENGINE if _without_fold(label) in measured_then else Reason.NOT_MEASURED


def _without_fold(label: str) -> str:
    """Name the model and the kind that a pass is of: `reference-token_loss` of `reference-token_loss-0`."""
    head, _, fold = label.rpartition("-")
    return head if fold.isdigit() else label


def row_reasons(now: Keys, then: Keys | None, changed: Collection[Change]) -> Counter[Reason]:
    """Count rows by reason. now, then: what is in their places, and what was in the last run [N]."""
    if then is None:
        return Counter({Reason.NEW_OR_CHANGED: len(now)} if len(now) else {})
    same = Reason.NEW_TOKENS if any(change.what == "tokens" for change in changed) else Reason.NOT_MEASURED
    absent, as_it_was = then == ABSENT, then == now
    counts = {
        Reason.NEW_ROW: int(absent.sum()),
        same: int(as_it_was.sum()),
        Reason.CHANGED_ROW: int(np.count_nonzero(~absent & ~as_it_was)),
    }
    return Counter({reason: count for reason, count in counts.items() if count})
