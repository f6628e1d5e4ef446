"""`davir store` as it is called: what it prints, its exit codes, and what it leaves."""

import json
import os
from pathlib import Path
from time import time

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from davir_ray import storage
from davir_ray.cli import main
from davir_ray.logprobs.kinds import LOSS
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.prepared import Prepared
from tests.measured import FINGERPRINTS, held, losses_of, store_with


def davir(*words: str):
    return CliRunner().invoke(main, ["store", *map(str, words)])


@pytest.fixture
def models(tmp_path):
    parts = [("ab", [1.0, 2.0]), ("c", [3.0])]
    return [store_with(tmp_path / "store" / "measurements" / name, *parts) for name in FINGERPRINTS]


def test_a_recipe_stands_for_its_store(tmp_path, models):
    recipe = {
        "corpus": {"paths": "x"},
        "models": {"base": "b", "reference": "r"},
        "store": f"{tmp_path}/store",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    told = [davir("info", tmp_path / name, "--json") for name in ("recipe.yaml", "store")]
    assert [one.exit_code for one in told] == [0, 0]
    by_recipe, by_path = (json.loads(one.output.splitlines()[-1]) for one in told)
    assert [one["fingerprint"] for one in by_recipe["models"]] == list(FINGERPRINTS)
    assert (
        [one["parts"] for one in by_recipe["models"]] == [one["parts"] for one in by_path["models"]] == [2, 2]
    )


def test_a_recipe_that_is_not_there_is_no_store(tmp_path):
    told = davir("info", tmp_path / "recpe.yaml")
    assert told.exit_code == 6
    assert "holds no store" in told.output


def test_verify_names_damage_and_fails_and_delete_removes_it(tmp_path, models):
    assert davir("verify", tmp_path / "store").exit_code == 0
    torn = models[1].parts()[0].uri
    storage.write_atomic(torn, b"torn")
    told = davir("verify", tmp_path / "store")
    assert told.exit_code == 6
    assert f"damaged   {torn}" in told.output
    assert "1 damaged file" in told.output
    assert storage.exists(torn)
    told = davir("verify", tmp_path / "store", "--delete")
    assert told.exit_code == 0
    assert told.output.index("damaged") < told.output.index(f"removing  {torn}")
    assert not storage.exists(torn)
    assert davir("verify", tmp_path / "store").exit_code == 0
    assert [len(model.parts()) for model in models] == [2, 1]


def test_compact_merges_the_parts_of_each_model(tmp_path, models):
    told = davir("compact", tmp_path / "store")
    assert told.exit_code == 0
    assert told.output.count("2 parts into 1 (3 sequences)") == 2
    assert [len(model.parts()) for model in models] == [1, 1]
    assert davir("compact", tmp_path / "store").output.count(": nothing to merge") == 2


def test_prune_tells_what_would_go_and_removes_it_with_yes_only(tmp_path, models):
    words = ("prune", tmp_path / "store", "--keep", FINGERPRINTS[0])
    told = davir(*words)
    assert told.exit_code == 0
    assert f"would go  {models[1].folder}" in told.output
    assert models[0].folder not in told.output
    assert len(models[1].parts()) == 2
    assert "removed" in davir(*words, "--yes").output
    assert not storage.exists(models[1].folder)
    assert held(models[0])[1].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("age", "code"), [("0m", 0), ("30d", 0), ("30", 2), ("soon", 2)])
def test_prune_reads_ages_and_refuses_others(tmp_path, models, age, code):
    told = davir("prune", tmp_path / "store", "--older-than", age)
    assert told.exit_code == code
    assert ("would go" in told.output) == (age == "0m")


def test_prune_without_a_choice_is_a_mistake(tmp_path, models):
    assert davir("prune", tmp_path / "store", "--yes").exit_code == 2
    assert all(storage.exists(model.folder) for model in models)


def prepared_with(store, *splits: str) -> Prepared:
    prepared = Prepared(str(store / "prepared" / "settings"), splits)
    for index in range(len(splits)):
        prepared.write(index, EXAMPLES.empty_table(), TOKENS.empty_table())
    return prepared


def flip_a_bit(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("table", ["examples", "tokens"])
def test_a_prepared_split_with_a_damaged_part_is_prepared_again(tmp_path, models, table):
    prepared = prepared_with(tmp_path / "store" / "examples" / "store", "sound", "torn")
    store = tmp_path / "store" / "examples" / "store"
    assert davir("verify", store).exit_code == 0
    torn = store / "prepared/settings" / table / "torn.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    told = davir("verify", store)
    assert told.exit_code == 6
    assert f"damaged   {torn}" in told.output
    assert davir("verify", store, "--delete").exit_code == 0
    assert prepared.done() == {0}


@pytest.mark.parametrize("table", ["examples", "tokens"])
def test_a_prepared_split_that_lacks_a_part_is_not_done(tmp_path, table):
    prepared = prepared_with(tmp_path, "a", "b")
    (tmp_path / f"prepared/settings/{table}/a.parquet").unlink()
    assert prepared.done() == {1}


def test_verify_sees_a_flipped_bit(tmp_path):
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 256, (2000, 16), dtype=np.uint8).view("S16").reshape(-1)
    store = MeasurementStore(str(tmp_path / "measurements/m"), LOSS)
    store.write(ids, losses_of(draw.gamma(4.0, 10.0, 2000), 8))
    assert davir("verify", tmp_path).exit_code == 0
    flip_a_bit(Path(store.parts()[0].uri))
    told = davir("verify", tmp_path)
    assert told.exit_code == 6
    assert "CRC" in told.output


@pytest.mark.parametrize(("hours", "goes"), [(23, False), (25, True)])
def test_prune_removes_what_killed_writers_left_a_day_ago(tmp_path, models, hours, goes):
    torn = Path(models[0].folder) / f"{storage.TEMPORARY}123-a.parquet"
    torn.write_bytes(b"half")
    then = time() - hours * 3600
    os.utime(torn, (then, then))
    told = davir("prune", tmp_path / "store", "--older-than", "12h", "--yes")
    assert told.exit_code == 0
    assert torn.exists() != goes
    assert [len(model.parts()) for model in models] == [2, 2]
