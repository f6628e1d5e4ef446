"""Whatever is killed, and whenever: the run ends with the bytes of an undisturbed one, and hardly does work again.

The victims are the process of an engine, a process that runs a task, a whole node and the driver; the stages are all
that a run has. One round has four strikes, and 33 have one each, drawn from their seeds, a third of them with a real
engine. A round whose victim could not be struck is played again. `make test` strikes at moments that have names
(test_named_kills.py).
In `record` the core-set is complete, and the record may be written or not: the run still tidies up, and ends.
"""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.ray.kill_rounds import FILES, ROWS_PER_FILE, Arena, Grounds, Outcome, Round, Strike, drawn, summed

NODES = 2
ROWS = FILES * ROWS_PER_FILE
HANDFUL = Round(
    "handful",
    (
        Strike("worker", "measuring", 0.1),
        Strike("driver", "part", 0.2),
        Strike("node", "ranking", 0.2),
        Strike("driver", "record", 0.5),
    ),
)
NIGHTLY = [drawn(seed) for seed in range(33)]
pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory, tiny_models):
    folder = tmp_path_factory.mktemp("kills")
    with Arena(NODES, folder / "arena.log") as arena:
        yield Grounds(arena, folder, tiny_models)


def assert_undisturbed(struck: Outcome, calm: Outcome) -> None:
    """Compare a run with the one that nothing befell, and count its rows and its measurements."""
    assert struck.tables() == calm.tables()
    places = struck.places()
    assert places.ranks == list(range(1, ROWS - 1)), "each row with a score once"
    assert places.status == Counter(ok=ROWS - 2, empty=1, duplicate=1)
    assert len(set(places.unscored)) == len(places.unscored) == 2
    for model in struck.folder.glob("store/measurements/*"):
        parts = [pq.read_table(path) for path in model.glob("[0-9a-f]*.parquet")]
        ids = pa.concat_tables(parts)["sequence_id"].to_pylist()
        assert len(ids) == len(set(ids)) == ROWS - 2, "each sequence was stored once"
    assert not [name for name in ("work", "ranked") if (struck.run / name).exists()]


def assert_little_was_done_again(struck: Outcome, calm: Outcome) -> None:
    """Bound the work done again: no more than what every engine had in hand when something was killed."""
    assert calm.again() == calm.told_again() == 0
    measuring = [one for one in struck.told["strikes"] if one["stage"] in ("measuring", "part")]
    print(
        f"{struck.folder.name}: {summed(struck.told['strikes'])}; {struck.told['starts']} starts, "
        f"{struck.again()} of {len(calm.calls())} chunks measured again ({struck.told_again()} sequences, says the "
        f"record), {struck.torn()} files torn"
    )
    assert struck.again() <= NODES * len(measuring)
    # A driver that is killed takes along what it was told of earlier deaths.
    if sum(strike["victim"] != "worker" for strike in measuring) <= 1:
        assert struck.told_again() >= sum(len(sequences) for _, *sequences in struck.repeated())


def play(grounds: Grounds, round_: Round) -> None:
    struck, calm = grounds.survived(round_), grounds.undisturbed(round_.engine)
    drivers = sum(strike.victim == "driver" for strike in round_.strikes)
    assert [one["victim"] for one in struck.told["strikes"]] == [one.victim for one in round_.strikes]
    late = [one for one in struck.told["strikes"] if one["record"] and one["stage"] != "record"]
    assert not late, "the run was over before it was struck"
    assert struck.told["starts"] == 1 + drivers, "but for its driver, a run goes on by itself"
    assert_undisturbed(struck, calm)
    assert_little_was_done_again(struck, calm)


def test_a_run_that_is_struck_four_times_ends_like_one_left_alone(grounds):
    play(grounds, HANDFUL)


@pytest.mark.parametrize("round_", NIGHTLY, ids=lambda one: f"{one.name}-{one.engine}")
def test_a_run_that_is_struck_at_random_ends_like_one_left_alone(grounds, round_):
    play(grounds, round_)
