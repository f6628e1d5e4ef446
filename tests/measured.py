"""Small stores of measurements, made by hand: a sequence is a letter."""

import numpy as np

from davir_ray.store.measurements import MeasurementStore, sorted_losses

FINGERPRINTS = ("a" * 32, "b" * 32)


def keys(*names: str) -> np.ndarray:
    return np.array([name.encode().ljust(16, b".") for name in names], dtype="S16")


def store_with(folder, *parts) -> MeasurementStore:
    """A model's measurements, with parts given as ("ab", [1.0, 2.0])."""
    store = MeasurementStore(str(folder))
    for names, losses in parts:
        store.write(keys(*names), np.array(losses), np.ones(len(names), dtype=np.int32))
    return store


def held(store: MeasurementStore) -> tuple[np.ndarray, np.ndarray]:
    """What a reader finds: distinct sequences, sorted, with their losses."""
    return sorted_losses(store.read(part.uri for part in store.parts()))
