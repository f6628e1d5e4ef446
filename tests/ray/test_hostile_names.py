"""A run in which all names are hostile: nothing of them reaches the terminal raw, and nothing of them is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.unit.test_foreign_text import HOSTILE, ROW, SPELT, is_safe, tree

pytestmark = pytest.mark.ray

CALLS = """
import json, sys
from davir_ray.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        print("exit", arguments[0], end.code, flush=True)
"""


@pytest.fixture
def recipe(tmp_path, tiny_models) -> str:
    (tmp_path / HOSTILE).mkdir()
    for name, model in zip(("base", "reference"), tiny_models, strict=True):
        os.symlink(model, tmp_path / f"{HOSTILE}{name}")
    rows = [ROW | {"prompt": f"{index}?", HOSTILE: HOSTILE} for index in range(20)]
    rows.append({"prompt": HOSTILE, "completion": "", HOSTILE: HOSTILE})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / HOSTILE / f"{HOSTILE}.parquet")
    floats = pa.table({"prompt": ["a"], "completion": ["b"], HOSTILE: [1.5]})
    pq.write_table(floats, tmp_path / HOSTILE / f"{HOSTILE}2.parquet")
    (tmp_path / HOSTILE / f"{HOSTILE}3.parquet").write_bytes(b"PAR1")
    corpus = {"paths": {HOSTILE: f"{HOSTILE}/*"}, "group_by": HOSTILE, "on_bad_file": "skip"}
    rules = [{"type": "quota", "fraction": 0.5}, {"type": "keep_sources", "sources": [HOSTILE]}]
    path = tmp_path / f"{HOSTILE}.yaml"
    path.write_text(json.dumps(tree(corpus=corpus, select=rules)))
    return path.name


def test_hostile_names_reach_neither_the_terminal_nor_a_log_raw(tmp_path, recipe):
    other = ["--set", "select={type: count, count: 3}"]
    calls = [
        ["score", recipe],
        ["select", recipe, *other],
        ["nightly", recipe, *other, "--set", "nightly.max_bad_files=null"],
        ["plan", recipe],
    ]
    calls += [
        ["status", recipe],
        ["store", "info", recipe],
        ["store", "verify", recipe],
        ["store", "compact", recipe],
    ]
    calls += [["store", "prune", recipe, "--older-than", "1d"]]
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(calls)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=500,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert [line for line in out.splitlines() if line.startswith("exit")] == [
        f"exit {one[0]} 0" for one in calls
    ], err
    assert is_safe(out + err)
    assert SPELT in out
    assert f"skipped {tmp_path}/{SPELT}/{SPELT}3.parquet" in err
    assert f"column `{SPELT}` is " in err

    runs = sorted((tmp_path / f"{HOSTILE}output").glob("*/record.json"))
    assert len(runs) == 2
    kept = [
        path for folder in ("output", "store") for path in Path(tmp_path, HOSTILE + folder).rglob("*.json*")
    ]
    assert {"recipe.json", "record.json", "events.jsonl", "model.json", "00000.jsonl"} <= {
        path.name for path in kept
    }
    assert all(path.read_bytes().isascii() for path in kept)
    for record in (json.loads(path.read_text()) for path in runs):
        assert set(record["sources"]) == {HOSTILE}
        assert set(pq.read_table(record["scored"])["source"].to_pylist()) == {HOSTILE}
        assert HOSTILE in pq.read_table(record["coreset"]["parquet"]).column_names
