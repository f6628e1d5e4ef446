"""What each night left behind.

<output>/nightly/<name>/nights.jsonl    a line a night
<output>/nightly/<name>/lease/          see ../lease.py
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from davir_ray.errors import DamagedPart, StoreError
from davir_ray.schema import SCORABLE, Status
from davir_ray.storage.json_lines import read_lines, write_lines
from davir_ray.storage.layout import NightsLayout

Night = dict[str, Any]
Tree = Mapping[str, Any]

WITHOUT_NIGHTS = (
    "take the line out, or put back a copy of the file; without it, the next night is the first one"
)

FINE = (*SCORABLE, Status.DUPLICATE, Status.UNDESIRABLE)
"""A row of any other status failed: something should have been scored, and was not."""


@dataclass(frozen=True)
class Nights:
    """The nights of a recipe's name. `folder` is `<output>/nightly/<name>`."""

    folder: str

    @property
    def lease_folder(self) -> str:
        """Where the lease is."""
        return NightsLayout(self.folder).lease

    @property
    def uri(self) -> str:
        """Name the file of lines."""
        return NightsLayout(self.folder).lines

    def read(self) -> list[Night]:
        """Read all nights, the latest last. Raises `StoreError` if a line is none: nothing makes it again."""
        try:
            nights = read_lines(self.uri)
            for number, night in enumerate(nights, 1):
                if not {"time", "run_id", "drift"} <= night.keys():
                    raise DamagedPart(self.uri, f"line {number} is no night: {str(night)[:60]}")
        except DamagedPart as damage:
            raise StoreError(f"{damage}; {WITHOUT_NIGHTS}") from damage
        return nights

    def add(self, night: Night) -> None:
        """Add a line. The caller holds the lease."""
        write_lines(self.uri, (*self.read(), night))


def night_of(record: Tree, drift: Tree | None, *, measured_before: bool) -> Night:
    """Sum a night up. measured_before: the run was an earlier night's, so this night measured nothing."""
    asked = {label: count + record["reused"][label] for label, count in record["measured"].items()}
    night = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": record["run_id"],
        **{name: record[name] for name in ("rows", "ranked", "selected", "seconds")},
        "bad_files": len(record["bad_files"]),
        "failed": sum(count for status, count in record["status"].items() if status not in FINE),
        "measured": dict.fromkeys(asked, 0) if measured_before else record["measured"],
        "reused": asked if measured_before else record["reused"],
        "drift": None,
    }
    return night if drift is None else night | {"drift": _short(drift)}


def _short(drift: Tree) -> Tree:
    core_set = drift["core_set"]
    return {
        "before": drift["before"],
        "changed": list(dict.fromkeys(one["what"] for one in drift["changes"])),
        "coreset_change": core_set["change"],
        "in": core_set["in"],
        "out": core_set["out"],
        "rank_correlation": drift["rank_correlation"],
    }
