"""`davir inspect RUN --row ID` on a small run made by hand: what is found in the store, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from davir_ray.cli import main
from davir_ray.corpus.folds import Fold
from davir_ray.corpus.listing import list_corpus
from davir_ray.ids import keys_of
from davir_ray.logprobs.kinds import LOSS, TOKEN_ENTROPY, TOKEN_LOSS
from davir_ray.recipe import parse_recipe
from davir_ray.report.shown_rows import tokens_in_colours
from davir_ray.runs.locations import write_places
from davir_ray.runs.record import load_record
from davir_ray.runs.run import Run
from davir_ray.schema import SCORED, View
from davir_ray.store.compaction import compact
from davir_ray.store.measurements import MeasurementStore, fingerprint
from davir_ray.store.prepared import Prepared
from davir_ray.store.ray_prepare import Preparation, SplitPreparer
from davir_ray.tokens.tokenizer import load_tokenizer
from tests.records import run_record

ROWS = [
    ("k0", "Two?", "2 \x1b[31mé東"),
    ("k1", "Three?", "three"),
    ("k2", "Empty?", ""),
    ("twice", "Four?", "4"),
    ("twice", "Five?", "5"),
]
ROWS += [(f"row {index}", f"And {index}?", f"It is {index}.") for index in range(8)]
FORMAT = "question_answer"
NUMERICS = {"engine": "hash"}


class MadeRun:
    """A finished run of a few rows; what its models measured is added by the tests."""

    def __init__(self, folder: Path, models: tuple[str, str]) -> None:
        self.root = folder
        self.folder = folder / "runs" / "test-000000000000"
        file = folder / "rows.jsonl"
        names = ("key", "question", "answer")
        file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS))
        tree = {
            "corpus": {"paths": str(file), "id": "key", "format": FORMAT},
            "models": dict(zip(("base", "reference"), models, strict=True)),
            "store": str(folder / "store"),
            "output": str(folder / "runs"),
        }
        self.recipe = parse_recipe(tree, "test")
        self.prepared = self._prepare()
        self.examples = self.prepared.examples(0).to_pylist()
        (self.folder / "scored").mkdir(parents=True)
        (self.folder / "recipe.json").write_text(self.recipe.model_dump_json())
        pq.write_table(self._scored(file), self.folder / "scored" / "00000.parquet")

    def _prepare(self) -> Prepared:
        listing = list_corpus(self.recipe.corpus)
        prepared = Prepared(str(self.root / "store" / "prepared" / "d"), listing.digests)
        tokenizer = load_tokenizer(self.recipe.models.base.model_name_or_path, self.recipe.tokens)
        views = (View.RESPONSE, View.RESPONSE_ALONE)
        formats = {"corpus": FORMAT}
        plan = Preparation(
            self.recipe.corpus, self.recipe.tokens, views, formats, tokenizer, prepared, listing.splits
        )
        told = SplitPreparer(plan)({"split": np.array([0])})
        assert told["error"] == [""]
        write_places(Run.from_folder(str(self.folder)), prepared, listing.splits)
        return prepared

    def _scored(self, file: Path) -> pa.Table:
        rows = []
        for example in self.examples:
            empty = dict.fromkeys(SCORED.names) | {"file": str(file), "selected": False}
            rows.append(empty | {name: one for name, one in example.items() if name in SCORED.names})
        return pa.Table.from_pylist(rows, schema=SCORED)

    def finish(self, references: int = 1, measured: bool = True) -> None:
        models = {"base": ["base"], "reference": [f"reference {index}" for index in range(references)]}
        folders = {"base": self.store("base", LOSS).folder} if measured else {}
        Run.from_folder(str(self.folder)).finish(run_record(models=models, measurements=folders))

    def store(self, model: str, kind) -> MeasurementStore:
        name = fingerprint(kind.name, model, NUMERICS)
        store = MeasurementStore(str(self.root / "store" / "measurements" / name), kind)
        store.describe({"kind": kind.name, "model": model, "numerics": NUMERICS})
        return store

    def measure(self, model: str, kind, view=View.RESPONSE, keep=lambda index: True, loss=1.5) -> None:
        """Measure rows in two parts, every token with the same loss but the first one, which has none."""
        table = self.prepared.sequences(0, [view])
        table = table.filter(pa.array([keep(index) for index in table["example"].to_pylist()]))
        for part in (table.slice(0, 2), table.slice(2)):
            rows = [[0.0, *[loss] * (count - 1)] for count in part["num_tokens"].to_pylist()]
            columns = {
                "loss": pa.array([sum(row) for row in rows], pa.float64()),
                "num_tokens": part["num_tokens"],
                "losses": pa.array(rows, pa.list_(pa.float32())),
                "ranks": pa.array([[7] * len(row) for row in rows], pa.list_(pa.uint8())),
                "entropies": pa.array([[0.25] * len(row) for row in rows], pa.list_(pa.float32())),
            }
            kept = {name: columns[name] for name in kind.columns.names[1:]}
            self.store(model, kind).write(keys_of(part["sequence_id"]), pa.table(kept))

    def index_of(self, own_id: str) -> int:
        return next(index for index, one in enumerate(self.examples) if one["id"] == own_id)


@pytest.fixture
def run(tmp_path, tiny_models) -> MadeRun:
    return MadeRun(tmp_path, tiny_models)


def shown(run: MadeRun, *options: str, code: int = 0) -> list[str]:
    told = CliRunner().invoke(main, ["inspect", str(run.folder), *options])
    assert told.exit_code == code, told.output
    return told.output.splitlines()


def refused(run: MadeRun, *options: str, code: int) -> str:
    (line,) = shown(run, *options, code=code)
    return line


def test_a_row_is_printed_with_the_losses_of_both_models(run):
    run.measure("base", TOKEN_LOSS)
    run.measure("reference 0", TOKEN_LOSS, loss=0.5)
    run.finish()
    lines = shown(run, "--row", "k0")
    example = run.examples[0]["example_id"].hex()
    assert lines[0].startswith(f"--- {run.root}/rows.jsonl:0 example {example} response: ")
    count = int(lines[0].split()[-5])
    assert lines[1:4] == [
        f"base        {1.5 * (count - 1):.3f} nats, {1.5 * (count - 1) / count:.3f} a token over {count} tokens",
        f"reference   {0.5 * (count - 1):.3f} nats, {0.5 * (count - 1) / count:.3f} a token over {count} tokens",
        f"difference  {count - 1:.3f} nats, {(count - 1) / count:.3f} a token over {count} tokens",
    ]
    assert lines[4].split() == ["position", "base_loss", "reference_loss", "difference", "token"]
    assert len(lines) == 5 + count
    assert lines[5].split() == [lines[5].split()[0], "0.000", "0.000", "0.000", "'2'"]
    told = [line.split(maxsplit=4)[4] for line in lines[5:]]
    assert told[1:3] == ["' '", r"'\x1b'"]
    assert told[7:12] == ["'é'", "(the same letter)", "'東'", "(the same letter)", "(the same letter)"]
    assert shown(run, "--row", example) == lines


def test_json_ends_the_output(run):
    run.measure("base", TOKEN_ENTROPY)
    run.finish()
    tree = json.loads(shown(run, "--row", "k1", "--json")[-1])
    assert (tree["id"], tree["row"], tree["view"], len(tree["tokens"])) == (
        "k1",
        1,
        "response",
        tree["num_tokens"],
    )
    last = tree["tokens"][1]
    assert {name: last[name] for name in last if name not in ("position", "text")} == {
        "base_loss": 1.5,
        "base_rank": 7,
        "base_entropy": 0.25,
    }


def test_the_kind_that_holds_most_is_shown_whatever_the_run_asked_for(run):
    run.measure("base", LOSS)
    run.measure("base", TOKEN_LOSS)
    run.measure("base", TOKEN_ENTROPY, keep=lambda index: index == 0)
    run.finish()
    assert "base_entropy" in shown(run, "--row", "k0")[2]
    assert shown(run, "--row", "k1")[2].split() == ["position", "base_loss", "token"]


def test_another_view_is_shown_where_it_was_measured(run):
    run.measure("base", TOKEN_LOSS, view=View.RESPONSE_ALONE)
    run.finish()
    assert "response_alone: " in shown(run, "--row", "k1", "--view", "response_alone")[0]
    assert "were not kept" in refused(run, "--row", "k1", code=2)
    assert refused(run, "--row", "k1", "--view", "rejected", code=2).endswith(
        "--view rejected: of this row the run has response, response_alone"
    )


def test_of_folds_the_reference_that_measured_the_row_is_shown(run):
    folds = [Fold(index, 2).holds(keys_of(run.prepared.examples(0)["example_id"])) for index in range(2)]
    run.measure("base", TOKEN_LOSS)
    for index, inside in enumerate(folds):
        run.measure(f"reference {index}", TOKEN_LOSS, keep=inside.__getitem__, loss=10.0 * (index + 1))
    run.finish(references=2)
    for row in ("k0", "k1", "row 0", "row 1", "row 2"):
        fold = int(folds[1][run.index_of(row)])
        tree = json.loads(shown(run, "--row", row, "--json")[-1])
        assert tree["tokens"][1]["reference_loss"] == 10.0 * (fold + 1)


def test_a_model_whose_sums_alone_were_measured_is_told_so(run):
    run.measure("base", TOKEN_LOSS)
    run.measure("reference 0", LOSS)
    run.finish()
    assert shown(run, "--row", "k1")[2].endswith("; the losses of its tokens were not measured")


@pytest.mark.parametrize("measured", [True, False])
def test_sums_alone_are_refused_with_the_line_to_add(run, measured):
    run.measure("base", LOSS)
    run.finish(measured=measured)
    line = refused(run, "--row", "k0", code=2)
    assert "add `measure: {kind: token_loss}` to the recipe" in line
    assert "measures again only what has no tokens" in line


def test_a_row_without_tokens_says_what_happened_to_it(run):
    run.measure("base", TOKEN_LOSS)
    run.finish()
    assert "the row has no tokens: empty: " in refused(run, "--row", "k2", code=2)


def test_an_id_that_no_row_or_several_have_is_refused(run):
    run.measure("base", TOKEN_LOSS)
    run.finish()
    assert "no row of the run is called nobody" in refused(run, "--row", "nobody", code=2)
    line = refused(run, "--row", "twice", code=2)
    first, second = (run.examples[index]["example_id"].hex() for index in (3, 4))
    assert "2 rows are called that" in line
    assert first in line
    assert second in line
    assert f"example {second}" in shown(run, "--row", second)[0]


def test_a_compacted_store_serves(run):
    run.measure("base", TOKEN_LOSS)
    run.finish()
    lines = shown(run, "--row", "k1")
    compact(run.store("base", TOKEN_LOSS))
    assert len(run.store("base", TOKEN_LOSS).merged_parts()) == 1
    assert shown(run, "--row", "k1") == lines


def test_a_damaged_part_is_told_on_one_line(run):
    run.measure("base", TOKEN_LOSS)
    run.finish()
    for part in run.store("base", TOKEN_LOSS).parts():
        Path(part.uri).write_bytes(Path(part.uri).read_bytes()[:200])
    assert "not readable as Parquet" in refused(run, "--row", "k1", code=6)
    Path(run.prepared.uri("tokens", 0)).write_bytes(b"nothing")
    assert "/tokens/" in refused(run, "--row", "k1", code=6)


def test_a_prepared_corpus_that_was_removed_is_told_with_what_brings_it_back(run):
    run.measure("base", TOKEN_LOSS)
    run.finish()
    Path(run.prepared.uri("tokens", 0)).unlink()
    assert "--set output=" in refused(run, "--row", "k1", code=6)


def test_runs_and_recipes_are_told_apart(run):
    assert "is not finished" in refused(run, "--row", "k0", code=2)
    assert "is a run; --row ID shows the tokens of a row" in refused(run, code=2)
    recipe = run.root / "recipe.yaml"
    recipe.write_text("corpus: {paths: rows.jsonl}")
    told = CliRunner().invoke(main, ["inspect", str(recipe), "--row", "k0"])
    assert (told.exit_code, len(told.output.splitlines())) == (2, 1)
    assert "is a recipe; --row shows a row of a finished run" in told.output


@pytest.mark.parametrize(
    "options",
    [("--json",), ("--view", "response"), ("--row", "a", "--rows", "2"), ("--row", "a", "--set", "a=b")],
)
def test_options_without_effect_are_refused(run, options):
    told = CliRunner().invoke(main, ["inspect", str(run.folder), *options])
    assert told.exit_code == 2
    assert "Usage: " in told.output


def test_no_weights_and_no_ray_are_loaded(run):
    run.measure("base", TOKEN_LOSS)
    run.finish()
    model = Path(run.recipe.models.base.model_name_or_path)
    bare = run.root / "bare"
    bare.mkdir()
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    text = (run.folder / "recipe.json").read_text().replace(str(model), str(bare))
    (run.folder / "recipe.json").write_text(text)
    code = (
        "import sys; from davir_ray.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "assert not {'ray', 'vllm'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(run.folder), "--row", "k1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "tokens count" in done.stdout


def test_the_page_of_a_run_paints_the_tokens_of_its_rows(run):
    run.measure("base", TOKEN_LOSS)
    run.measure("reference 0", TOKEN_LOSS, loss=0.05)
    run.finish()
    record = load_record(str(run.folder))
    rows = pq.read_table(run.folder / "scored").to_pylist()
    row = {**rows[run.index_of("k1")], "rank": 1}
    row["example_id"] = row["example_id"].hex()
    assert tokens_in_colours(str(run.folder), record, run.recipe, [row]) == {}  # none were asked for
    kept = record.model_copy(update={"measurements": {"base-token_loss": record.measurements["base"]}})
    (told,) = tokens_in_colours(str(run.folder), kept, run.recipe, [row]).values()
    assert told["no_tokens"] is None
    base, reference, difference = told["tokens"]
    assert [one.name for one in told["tokens"]] == ["base", "reference", "difference"]
    assert "".join(text for text, _, _ in base.pieces).startswith("three")
    steps = [[step for _, step, _ in one.pieces] for one in told["tokens"]]
    count = len(base.pieces)
    assert steps == [[0, *[2] * (count - 1)], [0] * count, [2, *[4] * (count - 1)]]
    assert base.nats == pytest.approx(1.5 * (count - 1))
    assert difference.nats == pytest.approx(base.nats - reference.nats)


def test_a_page_says_why_it_has_no_tokens(run):
    run.finish()
    record = load_record(str(run.folder)).model_copy(update={"measurements": {"base-token_loss": "x"}})
    row = {"rank": 3, "file": "nowhere", "row": 0, "example_id": "00" * 16, "id": None}
    (told,) = tokens_in_colours(str(run.folder), record, run.recipe, [row]).values()
    assert told["tokens"] == []
    assert "nowhere" in told["no_tokens"]
