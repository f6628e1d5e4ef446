"""Passes that go through the same engines."""

from dataclasses import dataclass
from types import SimpleNamespace

from davir_ray.measure.in_turn import in_turn


@dataclass(frozen=True)
class Pass:
    """What of a pass decides."""

    name: str
    kind: str = "loss"
    folder: str = ""

    @property
    def store(self):
        return SimpleNamespace(folder=self.folder or self.name)


def names(passes, switches=lambda one, other: True):
    return [[one.name for one in group] for group in in_turn(passes, switches)]


def test_neighbours_of_one_kind_go_together():
    assert names([Pass("a"), Pass("b"), Pass("c", "rose"), Pass("d")]) == [["a", "b"], ["c"], ["d"]]
    assert names([]) == []


def test_each_must_be_able_to_follow_each():
    apart = {"a", "c"}
    assert names([Pass("a"), Pass("b"), Pass("c")], lambda one, other: {one.name, other.name} != apart) == [
        ["a", "b"],
        ["c"],
    ]


def test_passes_that_add_to_one_store_stay_apart():
    assert names([Pass("a", folder="s"), Pass("b", folder="s")]) == [["a"], ["b"]]
