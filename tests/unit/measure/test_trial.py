"""A chunk is measured whole if it can be, and without its guilty sequences if it cannot."""

import pytest

from davir_ray import storage
from davir_ray.errors import EngineDied, EngineError
from davir_ray.measure.trial import FRUITLESS_DEATHS, Journal, try_ranges


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def life(
    uri: str, size: int, lethal: set[int], failing: set[int], stored: list[tuple[int, int]]
) -> dict[int, str]:
    """Run one process until it ends; return what failed."""

    def measure(sequences):
        if lethal & set(sequences):
            raise Killed
        if failing & set(sequences):
            raise ValueError("no good")
        return [-sequence for sequence in sequences]

    journal = Journal.open(uri, size)
    for (start, stop), result in try_ranges(journal, list(range(size)), measure):
        assert result == [-index for index in range(start, stop)]
        stored.append((start, stop))
    journal.close()
    return journal.failed


def lives(
    uri: str, size: int, lethal: set[int], failing: set[int]
) -> tuple[dict[int, str], list[tuple[int, int]]]:
    stored: list[tuple[int, int]] = []
    for _ in range(200):
        try:
            return life(uri, size, lethal, failing, stored), stored
        except Killed:
            continue
    raise AssertionError("the chunk never settled")


@pytest.mark.parametrize(
    ("lethal", "failing"), [(set(), set()), ({5}, set()), (set(), {0}), ({0, 7}, {3}), (set(range(8)), set())]
)
def test_the_guilty_are_marked_and_all_others_measured_once(tmp_path, lethal, failing):
    failed, stored = lives(str(tmp_path / "j.json"), 8, lethal, failing)
    assert set(failed) == lethal | failing
    measured = [index for start, stop in stored for index in range(start, stop)]
    assert sorted(measured) == sorted(set(range(8)) - set(failed))
    assert not storage.exists(str(tmp_path / "j.json"))


def test_a_chunk_without_trouble_is_measured_in_one_piece(tmp_path):
    assert lives(str(tmp_path / "j.json"), 8, set(), set()) == ({}, [(0, 8)])


def test_a_death_by_chance_does_not_cut_the_chunk(tmp_path):
    uri = str(tmp_path / "j.json")
    for _ in range(2):
        journal = Journal.open(uri, 8)
        assert journal.next() == (0, 8)  # and then the process ends
    stored: list[tuple[int, int]] = []
    assert life(uri, 8, set(), set(), stored) == {}
    assert stored == [(0, 8)]


def test_what_is_begun_again_is_counted(tmp_path):
    uri = str(tmp_path / "j.json")
    again = []
    for _ in range(4):
        journal = Journal.open(uri, 8)
        again.append(journal.again)
        journal.next()  # and then the process ends
    assert again == [0, 8, 16, 24], "twice whole, then in halves"
    assert Journal.open(uri, 8).again == 28, "a half in quarters"


def test_a_sequence_that_is_given_up_is_not_begun_again(tmp_path):
    journal = Journal.open(str(tmp_path / "j.json"), 1)
    journal.blame((0, 1), "no good")
    assert journal.again == 0


def test_a_sequence_that_stalls_every_engine_says_so(tmp_path):
    uri = str(tmp_path / "j.json")
    for _ in range(3):
        journal = Journal.open(uri, 1)
        assert journal.next() == (0, 1)
        journal.note_stall("the engine stalled")
    assert Journal.open(uri, 1).failed == {0: "the engine stalled, each time it measured this sequence"}


def test_a_dead_engine_is_not_the_fault_of_a_sequence(tmp_path):
    def measure(sequences):
        raise EngineDied("gone")

    journal = Journal.open(str(tmp_path / "j.json"), 4)
    with pytest.raises(EngineDied):
        list(try_ranges(journal, list(range(4)), measure))
    assert Journal.open(journal.uri, 4).pending == [(0, 4)]


def test_the_reason_names_what_the_engine_raised(tmp_path):
    failed, _ = lives(str(tmp_path / "j.json"), 2, set(), {1})
    assert failed == {1: "ValueError: no good"}


def test_a_result_that_cannot_be_stored_is_not_the_fault_of_a_sequence(tmp_path):
    journal = Journal.open(str(tmp_path / "j.json"), 4)

    def store(results):
        for _ in results:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store(try_ranges(journal, list(range(4)), lambda sequences: sequences))
    assert journal.failed == {}


def test_half_a_chunk_that_kills_does_not_stop_the_other_half(tmp_path):
    lethal = set(range(32))
    failed, stored = lives(str(tmp_path / "j.json"), 64, lethal, set())
    assert set(failed) == lethal
    assert sum(stop - start for start, stop in stored) == 32


def test_an_engine_that_dies_whatever_it_measures_is_given_up(tmp_path):
    uri = str(tmp_path / "j.json")
    for _ in range(FRUITLESS_DEATHS):
        with pytest.raises(Killed):
            life(uri, 64, set(range(64)), set(), [])
    with pytest.raises(EngineError, match="the engine died, 30 times in one chunk"):
        life(uri, 64, set(range(64)), set(), [])
