"""The whole job on four nodes, one of which is lost and one of which is new while it measures."""

import json
import subprocess

import pytest

from tests.ray.kill_rounds import ROOT, Arena, Grounds, Outcome, Round, Strike, environment, summed

NODES = 4
FILES, ROWS_PER_FILE = 20, 14
STRIKES = (Strike("node", "measuring", 0.8), Strike("newcomer", "measuring", 0.0))
pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory, tiny_models):
    folder = tmp_path_factory.mktemp("nodes")
    with Arena(NODES, folder / "arena.log") as arena:
        yield Grounds(arena, folder, tiny_models, FILES, ROWS_PER_FILE)


def on_one_node(grounds: Grounds) -> Outcome:
    """Run the job as most people do: on a Ray of this machine's own."""
    folder, command = grounds.command_of(Round("one-node", (), "QuickHash"))
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return Outcome(folder, {"record": json.loads(done.stdout.splitlines()[-1])})


def test_four_nodes_of_which_one_is_lost_and_one_is_new_give_what_one_node_gives(grounds):
    calm = on_one_node(grounds)
    grounds.calm["NotedHash"] = calm
    spread = grounds.survived(Round("spread", STRIKES))
    assert spread.tables() == calm.tables()
    assert len(spread.places().ranks) == FILES * ROWS_PER_FILE - 2
    assert spread.told["starts"] == 1
    lost, newcomer = spread.told["strikes"]
    nodes = {call["node"] for call in spread.calls()}
    print(f"{summed([lost])}; measured on {len(nodes)} nodes, {spread.again()} chunks again")
    assert "ChunkMeasurer" in lost["hit"]
    assert newcomer["hit"] in nodes, "the new node measures too"
    assert len(nodes) >= NODES
    assert spread.again() <= 2, "what the lost node had in hand"
