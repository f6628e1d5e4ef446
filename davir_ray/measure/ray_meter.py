"""What a pass counts while it measures: told to people, to Prometheus, and to the events of its run."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from time import monotonic

from davir_ray.cluster.ray_metrics import METRICS, publish
from davir_ray.measure.measurement import Work
from davir_ray.progress import Progress

COUNTED = tuple(one.name for one in METRICS if one.kind == "counter")
"""What a chunk tells when it is measured, by the names of the metrics."""
SECONDS_BETWEEN_NOTES = 60.0


class Meter:
    """Counts one pass of a run, from when it has its turn. note: writes an event down, given its values."""

    def __init__(self, run_id: str, work: Work, note: Callable[..., None]) -> None:
        role, planned = work.measurement.label, work.planned
        self.run_id, self.role, self._note = run_id, role, note
        self.counted: dict[str, int | float] = dict.fromkeys(COUNTED, 0)
        self.missing = work.sequences
        self.reuse_share = 1 - planned.missing / planned.asked if planned.asked else 1.0
        self.progress = Progress(f"measure {role}", work.tokens, "tokens")
        self._noted = monotonic()
        publish(run_id, role, self._state())

    def telling(self) -> AbstractContextManager[None]:
        """Tell people how far the pass is, while the context lasts."""
        return self.progress.telling()

    def add(self, counted: Mapping[str, int | float]) -> None:
        """Count what came of some chunks, by the names in `COUNTED`."""
        for name, amount in counted.items():
            self.counted[name] += amount
        self.progress.add(int(counted["tokens"]), rows=int(counted["sequences"]))
        publish(self.run_id, self.role, {**counted, **self._state()})
        if monotonic() - self._noted >= SECONDS_BETWEEN_NOTES:
            self.note()

    def note(self) -> None:
        """Write an event with everything that was counted, as it is published."""
        self._noted = monotonic()
        counted = self.counted | {"engine_seconds": round(self.counted["engine_seconds"], 1)}
        state = self._state()
        publish(self.run_id, self.role, state)
        self._note(role=self.role, **counted, **state)

    def _state(self) -> dict[str, float]:
        return {
            "missing_sequences": self.missing - int(self.counted["sequences"]),
            "reuse_share": round(self.reuse_share, 4),
            "tokens_per_second": round(self.progress.speed, 1),
        }
