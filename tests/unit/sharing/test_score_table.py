import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from davir_ray import storage
from davir_ray.cli import main
from davir_ray.config import EngineConfig, TokensConfig
from davir_ray.corpus.split import Split
from davir_ray.errors import NotMeasured, RecipeError, StoreError
from davir_ray.ids import column_of, keys_of
from davir_ray.logprobs.kinds import LOSS, TOKEN_LOSS
from davir_ray.measure.stored_engine import stored_engine
from davir_ray.recipe import parse_recipe
from davir_ray.runs.locations import write_places
from davir_ray.runs.run import Run
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.sharing.score_table import (
    CARD,
    SCORE_TABLE,
    Measured,
    TableCard,
    read_score_table,
    write_score_table,
)
from davir_ray.sharing.table_export import export_table
from davir_ray.sharing.table_import import import_table
from davir_ray.store.holdings import description_in
from davir_ray.store.labels import labelled
from davir_ray.store.measurements import MeasurementStore, fingerprint
from davir_ray.store.prepared import Prepared
from tests.measured import held, keys, losses_of
from tests.records import run_record

NUMERICS = {
    "engine": "transformers",
    "version": "5.19",
    "device": "cpu",
    "dtype": "float32",
    "head_dtype": "float32",
}
BASE, REFERENCE = "b" * 32, "c" * 32


def measured(identity: str = BASE, *models: str, **changes) -> Measured:
    name = fingerprint("loss", identity, NUMERICS)
    whole = {
        "models": models or ("base",),
        "name": "org/model",
        "identity": identity,
        "numerics": NUMERICS,
        "fingerprint": name,
    }
    return Measured(**(whole | changes))


def card(*measurements: Measured) -> TableCard:
    return TableCard(
        davir_ray="0.1.0",
        run_id="r-1",
        score="davir",
        tokens=TokensConfig(max_length=512),
        measurements=measurements or (measured(), measured(REFERENCE, "reference")),
    )


def rows(names: str = "abab", of=(0, 0, 1, 1), losses=(4.0, 2.0, 3.0, 1.0), tokens=(2, 2, 2, 2)) -> pa.Table:
    ids = column_of(keys(*names))
    columns = [pa.array(of, pa.int32()), ids, pa.array(losses, pa.float64()), pa.array(tokens, pa.int32())]
    return pa.table(columns, schema=SCORE_TABLE)


@pytest.fixture
def table(tmp_path) -> str:
    uri = str(tmp_path / "rows.davir.parquet")
    write_score_table(uri, card(), rows())
    return uri


def of_model(store: Path, identity: str = BASE, numerics=NUMERICS) -> MeasurementStore:
    return MeasurementStore(str(store / "measurements" / fingerprint("loss", identity, numerics)), LOSS)


def test_what_is_imported_are_ordinary_parts_and_nothing_is_added_twice(tmp_path, table):
    told = list(import_table(table, str(tmp_path / "store")))
    assert told[0] == "base      2 sequences of org/model; 0 were in the store"
    assert held(of_model(tmp_path / "store"))[1].tolist() == [4.0, 2.0]
    assert held(of_model(tmp_path / "store", REFERENCE))[1].tolist() == [3.0, 1.0]
    verified = CliRunner().invoke(main, ["store", "verify", str(tmp_path / "store")])
    assert verified.exit_code == 0, verified.output
    again = list(import_table(table, str(tmp_path / "store")))
    assert again[0] == "base      0 sequences of org/model; 2 were in the store"
    assert len(of_model(tmp_path / "store").parts()) == 1


def test_only_what_the_store_lacks_is_added(tmp_path, table):
    of_model(tmp_path / "store").write(keys("b", "z"), losses_of([2.0, 9.0], 2))
    told = list(import_table(table, str(tmp_path / "store")))
    assert told[0] == "base      1 sequences of org/model; 1 were in the store"
    assert held(of_model(tmp_path / "store"))[1].tolist() == [4.0, 2.0, 9.0]


def test_a_recipe_of_what_import_prints_has_the_models_by_their_identity(table, tmp_path):
    told = list(import_table(table, str(tmp_path / "store")))
    assert "  tokens: {max_length: 512}" in told
    text = "\n".join(line[2:] for line in told if line.startswith("  "))
    recipe = parse_recipe({"corpus": {"paths": "x"}} | yaml.safe_load(text), "r")
    assert recipe.models.base.identity == BASE
    assert recipe.models.reference.identity == REFERENCE
    assert not recipe.models.are_here


def test_losses_that_are_made_up_are_told_of_at_both_ends(made_up, tmp_path):
    warning = (
        "warning   engine hash: the losses of this table are made up; they say nothing about models or rows"
    )
    assert warning in export_table(made_up.run.folder, str(tmp_path / "t.parquet"))
    assert next(import_table(str(tmp_path / "t.parquet"), str(tmp_path / "other"))) == warning


def test_the_name_of_a_folder_elsewhere_is_to_be_replaced(tmp_path, table):
    uri = str(tmp_path / "t.parquet")
    write_score_table(uri, card(measured(name="mine")), rows("ab", (0, 0), (4.0, 2.0), (2, 2)))
    told = "\n".join(import_table(uri, str(tmp_path / "store")))
    assert (
        "base      'mine' is of the hub, or of a folder where the table was made: there write your own path"
        in told
    )
    assert "folder's name" not in "\n".join(import_table(table, str(tmp_path / "store")))


def test_what_the_engine_could_not_measure_is_not_asked_for_again(tmp_path):
    uri = str(tmp_path / "t.parquet")
    write_score_table(uri, card(measured()), rows("ab", (0, 0), (4.0, None), (2, None)))
    list(import_table(uri, str(tmp_path / "store")))
    assert of_model(tmp_path / "store").failed() == {
        keys("b")[0].ljust(16, b"."): "could not be measured where the score table was made"
    }


def test_a_table_that_contradicts_the_store_is_refused_whole(tmp_path, table):
    of_model(tmp_path / "store", REFERENCE).write(keys("b"), losses_of([8.0], 2))
    with pytest.raises(
        StoreError, match=r"reference: of 1 sequences .* 1 have another loss .* nothing was imp"
    ):
        list(import_table(table, str(tmp_path / "store")))
    assert of_model(tmp_path / "store").parts() == []


def relabelled(uri: str, tree: dict, table: pa.Table | None = None) -> None:
    """Write a table with another card, sealed anew as a forger would."""
    found = pq.read_table(uri) if table is None else table
    metadata = {**(found.schema.metadata or {}), CARD: json.dumps(tree).encode()}
    label = json.loads(metadata.pop(b"davir_part"))
    label.pop("seal")
    storage.write_table(uri, labelled(found.replace_schema_metadata(metadata), **label))


def card_of(uri: str) -> dict:
    return json.loads(pq.read_schema(uri).metadata[CARD])


def test_a_forged_card_is_refused(table, tmp_path):
    tree = card_of(table)
    tree["measurements"][0]["identity"] = "d" * 32
    relabelled(table, tree)
    with pytest.raises(
        StoreError, match=r"measurement 0 \(base\): its fingerprint is .* and from kind, model"
    ):
        read_score_table(table)
    tree = card_of(table)
    tree["measurements"][0]["identity"] = "../../elsewhere"
    relabelled(table, tree)
    with pytest.raises(StoreError, match=r"measurements\.0\.identity: found '\.\./\.\./elsewhere'"):
        read_score_table(table)
    relabelled(table, card_of(table) | {"measurements": []})
    with pytest.raises(StoreError, match="measurements: found a list of 0"):
        read_score_table(table)
    tree["schema_version"] = 2
    relabelled(table, tree)
    with pytest.raises(StoreError, match=r"schema_version: found 2"):
        read_score_table(table)


def test_rows_that_were_changed_are_refused(table):
    whole = pq.read_table(table)
    losses = pa.array([3.9, 2.0, 3.0, 1.0])
    storage.write_table(table, whole.set_column(2, SCORE_TABLE.field("loss"), losses))
    with pytest.raises(StoreError, match="holds other rows than were written"):
        read_score_table(table)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (rows(losses=(-1.0, 2.0, 3.0, 1.0)), r"base: sequence 61.*: a loss of -1\.0, which no model gives"),
        (rows(losses=(np.nan, 2.0, 3.0, 1.0)), "a loss of nan"),
        (rows(losses=(np.inf, 2.0, 3.0, 1.0)), "a loss of inf"),
        (rows(tokens=(2, 0, 2, 2)), "no token that counts"),
        (rows("aaab"), "base: a sequence stands there twice"),
        (rows(of=(0, 0, 1, 2)), r"column `measurement`: expected 0 to 1, found 2"),
        (rows(losses=(None, 2.0, 3.0, 1.0)), "a loss or a number of tokens, and not both"),
        (rows(losses=(None, 2.0, 3.0, 1.0), tokens=(2, None, 2, 2)), "a loss or a number of tokens, and not"),
    ],
)
def test_what_no_measuring_gives_is_refused(tmp_path, changed, says):
    uri = str(tmp_path / "t.parquet")
    write_score_table(uri, card(), changed)
    with pytest.raises(StoreError, match=says):
        list(import_table(uri, str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()


def foreign(path: Path) -> None:
    pq.write_table(pa.table({"question": ["2+2?"]}), path)


def part_of_a_store(path: Path) -> None:
    store = of_model(path.parent / "other")
    store.write(keys("a"), losses_of([1.0]))
    path.write_bytes(Path(store.parts()[0].uri).read_bytes())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (foreign, "does not say that it holds a score table of davir"),
        (part_of_a_store, "says holds: measurements, where a score table is expected"),
        (lambda path: path.write_text("no table"), "not readable as Parquet"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "not readable as Parquet"),
    ],
)
def test_another_file_is_refused(table, make, says):
    make(Path(table))
    result = CliRunner().invoke(main, ["score-table", "import", table])
    assert result.exit_code == 6
    assert "is no whole score table" in result.output
    assert says in " ".join(result.output.split())


def test_a_file_that_is_not_there_is_a_mistake_of_usage(tmp_path):
    with pytest.raises(RecipeError, match="there is no such file; expected a score table"):
        read_score_table(str(tmp_path / "none.parquet"))
    with pytest.raises(RecipeError, match="there is no such file"):
        read_score_table(str(tmp_path))


# Export


@dataclass
class Made:
    """A finished run that was put together by hand. own: the sequences of its corpus."""

    run: Run
    store: Path
    own: str


@pytest.fixture
def run(tmp_path) -> Made:
    return made_run(tmp_path, NUMERICS)


@pytest.fixture
def made_up(tmp_path) -> Made:
    return made_run(tmp_path, {"engine": "hash"})


def made_run(tmp_path, numerics) -> Made:
    """Make a run of three sequences, of which one could not be measured, in a store that holds another corpus too."""
    store = tmp_path / "store"
    for identity, losses in ((BASE, [1.0, 2.0, 7.0]), (REFERENCE, [0.5, 1.5, 6.5])):
        one = of_model(store, identity, numerics)
        one.write(keys("a", "b", "x"), losses_of(losses))
        one.write_failed("chunk", {keys("c")[0]: "died on /home/alice", keys("y")[0]: "died"})
        one.describe({"kind": "loss", "model": identity, "path": "p", "adapter": None, "numerics": numerics})
    prepared = Prepared(str(store / "prepared" / "s"), ("one",))
    tokens = [(0, "response", keys(name)[0], 1, 3, [7, 8, 9], [False, False, True]) for name in "abc"]
    tables = (
        EXAMPLES.empty_table(),
        pa.Table.from_pylist([dict(zip(TOKENS.names, one, strict=True)) for one in tokens], schema=TOKENS),
    )
    prepared.write(0, *tables)
    models = {"base": "/home/alice/models/mine", "reference": "s3://key:secret@bucket/reference"}
    tree = {"corpus": {"paths": "x"}, "models": models, "tokens": {"template": "/home/alice/t.jinja"}}
    tree["models"] = tree["models"] | {"reference": "s3://bucket/reference"}
    made = Run.begin(parse_recipe(tree | {"output": str(tmp_path / "runs")}, "r"), "r-000000000001")
    write_places(made, prepared, [Split("s", "x", "parquet", 0, 3, (0,))])
    folders = {
        "base": of_model(store, BASE, numerics).folder,
        "reference": of_model(store, REFERENCE, numerics).folder,
    }
    identities = {"base": (BASE,), "reference": (REFERENCE,)}
    made.finish(run_record(run_id=made.run_id, measurements=folders, models=identities))
    return Made(made, store, "abc")


def test_a_table_has_the_runs_own_sequences_and_nothing_of_this_machine(run, tmp_path):
    uri = str(tmp_path / "t.parquet")
    told = list(export_table(run.run.folder, uri))
    assert told[0] == "base      2 sequences of mine, and 1 that could not be measured"
    found, table = read_score_table(uri)
    assert table["measurement"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert sorted(keys_of(table["sequence_id"])[:3].tolist()) == sorted(keys(*run.own).tolist())
    assert table["loss"].to_pylist() == [1.0, 2.0, None, 0.5, 1.5, None]
    assert [one.name for one in found.measurements] == ["mine", "s3://bucket/reference"]
    assert found.tokens.template == "t.jinja"
    assert b"alice" not in Path(uri).read_bytes()
    assert not {"ids", "text"} & set(table.column_names)


def test_sums_of_a_richer_kind_are_handed_on_as_losses(run, tmp_path):
    name = fingerprint("token_loss", BASE, NUMERICS)
    richer = MeasurementStore(str(run.store / "measurements" / name), TOKEN_LOSS)
    storage.delete(of_model(run.store).folder + "/failed")
    lists = pa.array([[1.25, 1.75]], pa.list_(pa.float32()))
    sums = {"loss": [3.0], "num_tokens": pa.array([2], pa.int32()), "losses": lists}
    richer.write(keys("c"), pa.table(sums))
    list(export_table(run.run.folder, str(tmp_path / "t.parquet")))
    list(import_table(str(tmp_path / "t.parquet"), str(tmp_path / "other")))
    assert held(of_model(tmp_path / "other"))[1].tolist() == [1.0, 2.0, 3.0]


def test_one_model_in_two_roles_stands_there_once(run, tmp_path):
    models = {"base": (BASE,), "reference": (BASE,)}
    folders = {name: of_model(run.store).folder for name in models}
    run.run.finish(run_record(run_id=run.run.run_id, measurements=folders, models=models))
    told = list(export_table(run.run.folder, str(tmp_path / "t.parquet")))
    assert told[0].startswith("base and reference")
    assert len(read_score_table(str(tmp_path / "t.parquet"))[0].measurements) == 1
    lines = list(import_table(str(tmp_path / "t.parquet"), str(tmp_path / "other")))
    assert sum(f"identity: {BASE}" in line for line in lines) == 2


def test_a_run_without_losses_and_one_whose_sequences_are_gone_are_told_of(run, tmp_path):
    storage.delete(str(run.store / "prepared"))
    with pytest.raises(StoreError, match="the sequences of its corpus are not in the store any more"):
        list(export_table(run.run.folder, str(tmp_path / "t.parquet")))


def test_a_run_that_measured_nothing_of_the_kind_has_no_table(run, tmp_path):
    run.run.finish(run_record(run_id=run.run.run_id, measurements={}, models={"base": (BASE,)}))
    with pytest.raises(RecipeError, match="measured nothing; a score table holds losses of sequences"):
        list(export_table(run.run.folder, str(tmp_path / "t.parquet")))
    assert not (tmp_path / "t.parquet").exists()


# The engine that measured


def described(store: Path, identity: str, kind: str = "loss", **numerics) -> None:
    whole = NUMERICS | numerics
    one = MeasurementStore(str(store / "measurements" / fingerprint(kind, identity, whole)), LOSS)
    one.describe({"kind": kind, "model": identity, "path": "p", "adapter": None, "numerics": whole})


def asked(store: Path, *passes: tuple[str, str], **settings):
    return stored_engine(str(store), EngineConfig(**settings), passes)


def test_the_engine_is_the_one_that_measured_all_passes_in_its_version(tmp_path):
    described(tmp_path, BASE, version="4.57")
    described(tmp_path, BASE)
    described(tmp_path, REFERENCE, "token_loss", version="4.57")
    choice = asked(tmp_path, ("loss", BASE), ("loss", REFERENCE))
    assert (choice.type, choice.version, choice.dtype) == ("transformers", "4.57", "float32")
    with pytest.raises(NotMeasured, match=r"several engines .* \(transformers [45]"):
        asked(tmp_path, ("loss", BASE))
    described(tmp_path, "d" * 32, dtype="bfloat16")
    with pytest.raises(NotMeasured, match="no one engine measured all models"):
        asked(tmp_path, ("loss", REFERENCE), ("loss", "d" * 32))


def test_measurements_of_an_engine_that_the_recipe_does_not_ask_for_are_not_used(tmp_path):
    described(tmp_path, BASE)
    assert asked(tmp_path, ("loss", BASE), device="cpu").device == "cpu"
    for settings in ({"type": "hash"}, {"device": "cuda"}, {"dtype": "bfloat16"}):
        with pytest.raises(
            NotMeasured, match=f"no loss of the model {BASE} by the engine that the recipe asks"
        ):
            asked(tmp_path, ("loss", BASE), **settings)
    with pytest.raises(NotMeasured, match="holds nothing of the model"):
        asked(tmp_path, ("loss", REFERENCE))
    with pytest.raises(NotMeasured, match="holds no token_loss of the model"):
        asked(tmp_path, ("token_loss", BASE))


def test_code_that_a_table_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    described(tmp_path, BASE, engine="evil:Engine", code="x")
    assert (
        description_in(str(next((tmp_path / "measurements").iterdir())))["numerics"]["engine"]
        == "evil:Engine"
    )
    with pytest.raises(NotMeasured):
        asked(tmp_path, ("loss", BASE))
