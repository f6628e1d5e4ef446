"""Which passes of a run go through the same engines, one after the other."""

from collections.abc import Callable, Sequence

from davir_ray.measure.measurement import Measurement


def in_turn(
    passes: Sequence[Measurement], switches: Callable[[Measurement, Measurement], bool]
) -> list[list[Measurement]]:
    """Put neighbouring passes together whose engine can be switched from each to each.

    switches: tells it of two passes of one kind. Two that add to one store stay apart: what the first measures
    the second need not.
    """
    found: list[list[Measurement]] = []
    for one in passes:
        if found and all(_may(other, one) and switches(other, one) for other in found[-1]):
            found[-1].append(one)
        else:
            found.append([one])
    return found


def _may(one: Measurement, other: Measurement) -> bool:
    return one.kind == other.kind and one.store.folder != other.store.folder
