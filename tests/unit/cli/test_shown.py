"""`davir show` on a run whose files are written by hand: what is found, and what is said of it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from davir_ray.cli import main
from davir_ray.config import CorpusConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.reading import examples
from davir_ray.recipe import parse_recipe
from davir_ray.runs.run import Run
from davir_ray.schema import SCORED
from tests.records import run_record

ROWS = [
    {"key": "k0", "question": "Say\x1b[31m red.", "answer": "Red\nand " + "long " * 100},
    {"key": "k1", "question": "Two?", "answer": "2"},
    {"key": "k2", "question": "Three?", "answer": ""},
    {"key": "k3", "question": "Two?", "answer": "2"},
    {"key": "k4", "question": "Five?", "answer": "5"},
]
SCORES = [0.5, 0.25, None, None, 0.125]
STATUS = ["ok", "ok", "empty", "duplicate", "no_score"]


@pytest.fixture(params=["jsonl", "parquet"])
def run(request, tmp_path) -> Path:
    """A finished run of five rows: one selected, one left out by a quota, three without a rank."""
    file = tmp_path / f"corpus.{request.param}"
    if request.param == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=2)
    folder = tmp_path / "runs" / "test-000000000000"
    (folder / "scored").mkdir(parents=True)
    tree = {
        "corpus": {"paths": str(file), "id": "key"},
        "models": {"base": "nowhere"},
        "select": [{"type": "quota", "by": "source", "count": 1}],
        "output": str(tmp_path / "runs"),
    }
    (folder / "recipe.json").write_text(parse_recipe(tree, "test").model_dump_json())
    for index, part in enumerate([slice(0, 2), slice(2, None)]):
        table = pa.Table.from_pylist(scored_rows(file, tree["corpus"])[part], schema=SCORED)
        pq.write_table(table, folder / "scored" / f"{index:05d}.parquet")
    Run.from_folder(str(folder)).finish(run_record(formats={"corpus": "question_answer"}))
    return folder


def scored_rows(file: Path, corpus: dict) -> list[dict]:
    config = CorpusConfig(**corpus)
    listing = list_corpus(config)
    parsed = [one for split in listing.splits for one in examples(split, config, "question_answer")]
    rows = [
        {
            "example_id": one.example_id,
            "id": one.id,
            "file": str(file),
            "row": one.row,
            "source": "corpus",
            "group": "",
            "status": status,
            "reason": None if status == "ok" else f"why {one.row}",
            "base_loss": 12.5,
            "reference_loss": 6.25,
            "num_tokens": 4,
            "score": score,
            "rank": None if score is None or status != "ok" else one.row + 1,
            "percentile": 100.0,
            "selected": one.row == 0,
            "dropped_by": "0:quota" if one.row == 1 else None,
        }
        for one, score, status in zip(parsed, SCORES, STATUS, strict=True)
    ]
    return [rows[i] for i in (0, 4, 1, 3, 2)]  # a repeat stands in the part of the row that it repeats


def shown(run: Path, *options: str, code: int = 0) -> str:
    told = CliRunner().invoke(main, ["show", str(run), *options])
    assert told.exit_code == code, told.output
    return told.output


def rows_of(run: Path, *options: str) -> list[dict]:
    return json.loads(shown(run, *options, "--json").splitlines()[-1])["rows"]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ((), ["k0", "k1"]),
        (("--rank", "1..20"), ["k0", "k1"]),
        (("--rank", "2"), ["k1"]),
        (("--id", "k4"), ["k4"]),
        (("--row", "{file}:2"), ["k2"]),
        (("--row", "{name}:3"), ["k3"]),
        (("--dropped-by", "quota"), ["k1"]),
        (("--dropped-by", "0:quota"), ["k1"]),
        (("--status", "no_score"), ["k4"]),
        (("--status", "ok", "--rank", "2..9"), ["k1"]),
    ],
)
def test_rows_are_found_by_whatever_they_are_asked_by(run, options, keys):
    file = next(run.parent.parent.glob("corpus.*"))
    filled = [option.format(file=file, name=file.name) for option in options]
    assert [row["id"] for row in rows_of(run, *filled)] == keys


def test_an_example_id_finds_a_row_and_its_repeats(run):
    (first,) = rows_of(run, "--id", "k1")
    assert [row["id"] for row in rows_of(run, "--id", first["example_id"])] == ["k1", "k3"]
    assert first["repeats"] == [f"{first['file']}:3"]


def test_what_is_printed_is_text_losses_and_fate_in_visible_characters(run):
    lines = shown(run, "--rank", "1").splitlines()
    file = next(run.parent.parent.glob("corpus.*"))
    assert lines[0] == f"--- rank 1  selected  {file}:0  id k0"
    assert lines[1] == "  score     0.5000  (percentile 100.0)"
    assert lines[2] == "  losses    base 12.50, reference 6.25 nats over 4 response tokens"
    assert lines[3] == "  prompt    Say\\x1b[31m red."
    assert lines[4].startswith("  response  Red\\nand long ")
    assert " ... " in lines[4]
    assert len(lines[4]) < 330
    assert lines[5].startswith("  example   ")
    (dropped,) = (line for line in shown(run, "--rank", "2").splitlines() if line.startswith("---"))
    assert "rank 2  left out by 0:quota" in dropped
    bad = shown(run, "--status", "empty")
    assert "no rank  empty" in bad
    assert "reason    why 2" in bad
    assert "Three?" in bad


def test_a_limit_says_how_many_there_are(run):
    assert shown(run, "--limit", "1").splitlines()[-1] == "1 of 2 rows; --limit shows more"


def test_a_row_that_was_changed_or_is_gone_is_told_with_the_rest(run):
    file = next(run.parent.parent.glob("corpus.*"))
    changed = [row | {"answer": f"not {row['answer']}"} for row in ROWS[:2]]
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in changed))
    else:
        pq.write_table(pa.Table.from_pylist(changed), file)
    told = shown(run, "--rank", "1")
    assert "problem   the corpus has another row there now: it was changed since the run" in told
    assert "base 12.50" in told
    assert f"problem   its text cannot be shown: {file}: holds no such row any more" in shown(
        run, "--id", "k4"
    )
    file.unlink()
    told = shown(run, "--rank", "1")
    assert "its text cannot be shown" in told
    assert "no such file" in told
    assert "base 12.50" in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--id", "nobody"), "no row of the run is called nobody"),
        (("--row", "x.jsonl:7"), "no row of the run is at x.jsonl:7"),
        (("--row", "seven"), "is not a file and a row"),
        (("--rank", "best"), "is neither a rank such as 7 nor ranks such as 1..20"),
        (("--status", "fine"), "is not one of ok, truncated"),
        (("--dropped-by", "fraction"), "is no rule of this run, which has quota"),
    ],
)
def test_what_cannot_be_found_is_said(run, options, says):
    assert says in shown(run, *options, code=2)


def test_a_run_that_is_not_finished_says_how_to_go_on(run):
    (run / "record.json").unlink()
    assert "davir resume" in shown(run, code=2)
