"""Which passes of a run go through the same engines, one after the other."""

from collections.abc import Callable, Sequence

from davir_ray.measure.measurement import Measurement


def in_turn(
    passes: Sequence[Measurement], switches: Callable[[Measurement, Measurement], bool]
) -> list[list[Measurement]]:
    """Put passes together whose engine can be switched from each to each.

    switches: tells it of two passes of one kind. The passes of one model stay in their order, and apart where they add
    to one store: what one measures a later one need not.
    """
    found: list[list[Measurement]] = []
    for one in passes:
        group = _group_for(one, found, switches)
        if group is None:
            found.append([one])
        else:
            group.append(one)
    return found


def _group_for(
    one: Measurement,
    found: Sequence[list[Measurement]],
    switches: Callable[[Measurement, Measurement], bool],
) -> list[Measurement] | None:
    """Return the last group that a pass can join, none of whose followers it has to wait for."""
    for group in reversed(found):
        if all(_may(other, one) and switches(other, one) for other in group):
            return group
        if any((other.model, other.fold) == (one.model, one.fold) for other in group):
            return None
    return None


def _may(one: Measurement, other: Measurement) -> bool:
    return one.kind == other.kind and one.store.folder != other.store.folder
