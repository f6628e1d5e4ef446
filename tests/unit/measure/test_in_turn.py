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
    fold: None = None

    @property
    def model(self):
        return self.name[0]

    @property
    def store(self):
        return SimpleNamespace(folder=self.folder or self.name)


def names(passes, switches=lambda one, other: True):
    return [[one.name for one in group] for group in in_turn(passes, switches)]


def test_passes_of_one_kind_go_together_also_past_others():
    passes = [Pass("a"), Pass("b"), Pass("c", "rose"), Pass("d")]
    assert names(passes) == [["a", "b", "d"], ["c"]]
    assert names([]) == []


def test_the_passes_of_one_model_stay_in_their_order():
    """What a pass under `r` measures, a later one of another kind finds in the store."""
    passes = [Pass("a"), Pass("r-tokens", "token_loss"), Pass("r")]
    assert names(passes) == [["a"], ["r-tokens"], ["r"]]
    first = [Pass("a-tokens", "token_loss"), Pass("a"), Pass("r-tokens", "token_loss")]
    assert names(first) == [["a-tokens", "r-tokens"], ["a"]]


def test_each_must_be_able_to_follow_each():
    apart = {"a", "c"}
    assert names([Pass("a"), Pass("b"), Pass("c")], lambda one, other: {one.name, other.name} != apart) == [
        ["a", "b"],
        ["c"],
    ]


def test_passes_that_add_to_one_store_stay_apart():
    assert names([Pass("a", folder="s"), Pass("b", folder="s")]) == [["a"], ["b"]]
