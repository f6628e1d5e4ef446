"""Small stores of measurements, made by hand: a sequence is a letter."""

import numpy as np
import pyarrow as pa

from davir_ray.ids import Keys, keys_of
from davir_ray.logprobs.kinds import LOSS
from davir_ray.store.measurements import MeasurementStore, distinct

FINGERPRINTS = ("a" * 32, "b" * 32)


def keys(*names: str) -> np.ndarray:
    return np.array([name.encode().ljust(16, b".") for name in names], dtype="S16")


def store_with(folder, *parts) -> MeasurementStore:
    """A model's measurements, with parts given as ("ab", [1.0, 2.0])."""
    store = MeasurementStore(str(folder), LOSS)
    for names, losses in parts:
        store.write(keys(*names), losses_of(losses))
    return store


def losses_of(losses, num_tokens=1) -> pa.Table:
    """Measurements as an engine gives them: summed losses of sequences with some counted tokens each."""
    counts = np.broadcast_to(np.asarray(num_tokens, dtype=np.int32), len(losses))
    return pa.table({"loss": pa.array(losses, pa.float64()), "num_tokens": pa.array(counts)})


def losses_table(losses) -> pa.Table:
    """What is found of the loss of some rows; NaN for a row without one."""
    values = np.asarray(losses, dtype=np.float64)
    return pa.table({"loss": pa.array(values, mask=np.isnan(values))})


def sorted_losses(table: pa.Table) -> tuple[Keys, np.ndarray]:
    """The distinct sequences of a table, sorted, with their losses."""
    table = distinct(table)
    return keys_of(table["sequence_id"]), table["loss"].to_numpy()


def held(store: MeasurementStore) -> tuple[np.ndarray, np.ndarray]:
    """What a reader finds: distinct sequences, sorted, with their losses."""
    return sorted_losses(store.read(part.uri for part in store.parts()))
