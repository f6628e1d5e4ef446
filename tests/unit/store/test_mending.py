"""Work that meets damage: set aside, begun again, and given up where what was made anew is damaged again."""

from pathlib import Path

import numpy as np
import pytest

from davir_ray import storage
from davir_ray.errors import DamagedPart, EngineError, StalePlan, StoreError
from davir_ray.logprobs.kinds import loss_of
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.mending import mended
from davir_ray.store.prepared import Prepared
from tests.measured import held, keys, losses_of, store_with


@pytest.fixture
def prepared(tmp_path):
    made = Prepared(str(tmp_path / "prepared" / "p"), ("one", "two", "three"))
    for split in range(3):
        made.write(split, EXAMPLES.empty_table(), TOKENS.empty_table())
    return made


def test_all_damaged_parts_of_a_store_are_set_aside_at_once_and_the_others_stay(tmp_path, prepared, capsys):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("c", [3.0]), ("d", [4.0]))
    forgotten, parts = [], store.parts()
    for part in parts[:2]:
        storage.write_atomic(part.uri, b"torn")
    found = mended(lambda: held(store)[1].tolist(), prepared, [store], lambda: forgotten.append(1))
    assert len(found) == len(store.read([parts[2].uri]))
    assert forgotten == [1]
    said = capsys.readouterr().err
    assert all(f"set aside, and made again: {part.uri}" in said for part in parts[:2])
    assert all(Path(f"{part.uri}.damaged").exists() for part in parts[:2])


def test_two_prepared_parts_that_were_swapped_are_prepared_again(prepared):
    one, other = (Path(prepared.uri("tokens", split)) for split in (0, 1))
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)

    def work():
        return [len(prepared.tokens(split)) for split in sorted(prepared.done())]

    assert mended(work, prepared, []) == [0]
    assert prepared.done() == {2}


def test_a_file_that_is_damaged_again_though_it_was_made_anew_is_an_error(prepared):
    def work():
        raise DamagedPart(f"{prepared.folder}/tokens/one.parquet", "is torn")

    with pytest.raises(StoreError, match=r"one.parquet: is torn, and was made anew before"):
        mended(work, prepared, [])


def test_a_plan_that_believed_in_what_is_gone_is_made_again_once(prepared):
    starts = []

    def work():
        starts.append(1)
        raise StalePlan("gone")

    with pytest.raises(StoreError, match="made anew before"):
        mended(work, prepared, [])
    assert len(starts) == 2


@pytest.mark.parametrize("loss", [np.nan, np.inf, -0.5])
def test_what_is_no_loss_is_never_written(tmp_path, loss):
    store = store_with(tmp_path / "m")
    with pytest.raises(EngineError, match="a loss of"):
        store.write(keys("a"), losses_of(np.array([loss])))
    assert store.parts() == []


def test_a_probability_that_was_rounded_above_1_is_1():
    assert loss_of(np.array([1e-6, 1e-7], dtype=np.float32)) == 0.0
    assert loss_of(np.array([0.5], dtype=np.float32)) == -0.5
    assert loss_of(np.array([-0.5, -0.25], dtype=np.float32)) == 0.75
