"""An engine whose process does not live through its loading is given up, and counted by a mark that outlives it."""

import pytest

from davir_ray.errors import EngineDied, EngineError, ModelError
from davir_ray.measure.loading import LOADS, deaths_while_loading, load_watched


class Killed(BaseException):
    """Stands for the end of the process."""


def die(mark):
    """Load in a process that ends on it: what it would clean up, it does not."""
    before = mark.read_bytes() if mark.exists() else b"0"

    def load():
        raise Killed

    with pytest.raises(Killed):
        load_watched(str(mark), load, 60.0)
    mark.write_bytes(str(int(before) + 1).encode())


def test_a_process_that_dies_each_time_is_not_started_for_ever(tmp_path):
    mark = tmp_path / "loading.json"
    for _ in range(LOADS):
        die(mark)
    with pytest.raises(EngineError, match="died or stalled 3 times while it loaded"):
        load_watched(str(mark), lambda: "engine", 60.0)


def test_a_death_by_chance_is_forgotten_once_it_loads(tmp_path):
    mark = tmp_path / "loading.json"
    die(mark)
    assert load_watched(str(mark), lambda: "engine", 60.0) == "engine"
    assert not mark.exists()


def test_an_error_of_loading_is_no_death(tmp_path):
    def load():
        raise ModelError("no such model")

    with pytest.raises(ModelError):
        load_watched(str(tmp_path / "loading.json"), load, 60.0)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_cannot_go_on_counts_as_dead_and_leaves_its_reason(tmp_path):
    mark = tmp_path / "loading.json"

    def load():
        raise EngineDied("half overwritten, twice")

    for deaths in (1, 2):
        with pytest.raises(EngineDied):
            load_watched(str(mark), load, 60.0)
        assert deaths_while_loading(str(mark)) == (deaths, "half overwritten, twice")
    assert load_watched(str(mark), lambda: "engine", 60.0) == "engine"
    assert deaths_while_loading(str(mark)) == (0, "")
