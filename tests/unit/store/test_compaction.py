import string
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davir_ray import storage
from davir_ray.errors import StoreError
from davir_ray.logprobs.kinds import LOSS
from davir_ray.measure.kind import known_kind
from davir_ray.store import compaction
from davir_ray.store.compaction import Compaction, compact
from davir_ray.store.holdings import models_in
from davir_ray.store.measurements import MeasurementStore, part_name
from davir_ray.store.verify import verify
from tests.measured import held, keys, sorted_losses, store_with

PARTS = (("dc", [4.0, 3.0]), ("ba", [2.0, 1.0]), ("be", [2.0, 5.0]))


def as_lists(found):
    return [one.tolist() for one in found]


def test_small_parts_become_one_that_holds_the_same(tmp_path):
    store = store_with(tmp_path / "m", *PARTS)
    before = as_lists(held(store))
    assert compact(store) == Compaction(merged=3, made=1, sequences=5)
    (part,) = store.parts()
    assert part.stem == part_name(keys(*"abcde"))
    assert as_lists(held(store)) == before == [keys(*"abcde").tolist(), [1.0, 2.0, 3.0, 4.0, 5.0]]
    assert list(verify(store)) == []


def test_a_chunk_stays_settled_through_compactions(tmp_path):
    store = store_with(tmp_path / "m", *PARTS)
    store.write_failed("chunk-that-failed", {keys("z")[0]: "died"})
    before = store.chunks_done()
    assert len(before) == 4
    compact(store)
    store_with(tmp_path / "m", ("f", [6.0]))
    compact(store)
    assert len(store.parts()) == 1
    assert store.chunks_done() >= before | {part_name(keys("f"))}


def test_a_compaction_of_what_is_compact_changes_nothing(tmp_path):
    store = store_with(tmp_path / "m", *PARTS)
    compact(store)
    before = store.parts()
    assert compact(store) == Compaction()
    assert store.parts() == before


def test_a_reader_that_listed_the_parts_before_finds_everything(tmp_path):
    store = store_with(tmp_path / "m", *PARTS)
    listed = [part.uri for part in store.parts()]
    before = as_lists(sorted_losses(store.read(listed)))
    compact(store)
    merged = [part.uri for part in store.parts()]
    assert as_lists(sorted_losses(store.read(listed))) == before
    store_with(tmp_path / "m", ("f", [6.0]))
    compact(store)
    assert not storage.exists(merged[0])
    for known in (listed, merged, [*listed, *merged]):
        assert set(keys(*"abcde").tolist()) <= set(sorted_losses(store.read(known))[0].tolist())


def test_a_reader_of_a_part_that_is_not_merged_does_not_read_the_merged_ones(tmp_path):
    store = store_with(tmp_path / "m", *PARTS)
    compact(store)
    store_with(tmp_path / "m", ("f", [6.0]))
    (single,) = storage.list_files(store.folder, ".parquet")
    assert sorted_losses(store.read([single]))[0].tolist() == keys("f").tolist()


def test_a_compaction_that_was_stopped_before_it_deleted_is_finished_by_the_next(tmp_path):
    store, other = (store_with(tmp_path / name / "m", *PARTS) for name in ("one", "other"))
    compact(other)
    (merged,) = other.parts()
    uri = storage.join(store.folder, "merged", f"{merged.stem}.parquet")
    storage.write_atomic(uri, storage.read_bytes(merged.uri))
    before = store.chunks_done()
    compact(store)
    assert [part.uri for part in store.parts()] == [uri]
    assert store.chunks_done() == before
    assert as_lists(held(store)) == as_lists(held(other))


def test_a_part_that_adds_nothing_leaves_its_name_and_goes(tmp_path):
    store = store_with(tmp_path / "m", *PARTS)
    compact(store)
    (merged,) = store.parts()
    store_with(tmp_path / "m", ("ca", [3.0, 1.0]))
    compact(store)
    assert [part.uri for part in store.parts()] == [merged.uri]
    assert part_name(keys("c", "a")) in store.chunks_done()
    assert len(held(store)[0]) == 5


def test_large_parts_stay_and_merged_ones_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "MERGED_ROWS", 5)
    store = store_with(
        tmp_path / "m", *[((a, b), [1.0, 2.0]) for a, b in zip("acegik", "bdfhjl", strict=True)]
    )
    compact(store)
    assert sorted(len(store.read_part(part.uri)) for part in store.parts()) == [4, 4, 4]
    assert len(held(store)[0]) == 12
    monkeypatch.setattr(compaction, "SMALL_BYTES", 10)
    monkeypatch.setattr(compaction, "MERGED_ROWS", 100)
    assert compact(store) == Compaction()


def test_a_damaged_part_is_set_aside_and_the_others_are_merged(tmp_path, capsys):
    store = store_with(tmp_path / "m", *PARTS, ("x", [7.0]))
    torn = storage.join(store.folder, f"{part_name(keys('x'))}.parquet")
    storage.write_atomic(torn, storage.read_bytes(torn)[:-9])
    assert compact(store) == Compaction(merged=3, made=1, sequences=5)
    assert as_lists(held(store))[1] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert f"set aside, and made again: {torn}" in capsys.readouterr().err


def test_parts_that_contradict_each_other_are_not_merged(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("bc", [2.5, 3.0]))
    with pytest.raises(StoreError, match="contradict"):
        compact(store)
    assert len(store.parts()) == 2


def test_rounding_is_no_contradiction_and_what_is_read_stays(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("bc", [1.99, 3.0]), ("b", [2.01]))
    before = as_lists(held(store))
    compact(store)
    assert as_lists(held(store)) == before
    assert before[1] == [1.0, 1.99, 3.0]


def test_an_empty_store_is_compact(tmp_path):
    assert compact(MeasurementStore(str(tmp_path / "m"), LOSS)) == Compaction()


steps = st.lists(st.sampled_from(["compact", *string.ascii_lowercase[:8]]), max_size=14)


@settings(max_examples=40)
@given(steps)
def test_whatever_is_written_and_compacted_in_any_order_is_there(tmp_path_factory, walk):
    store = MeasurementStore(str(tmp_path_factory.mktemp("m")), LOSS)
    names, listed = set[str](), []
    for step in walk:
        if step == "compact":
            compact(store)
        else:
            pair = step + chr(ord(step) + 1)
            store_with(store.folder, (pair, [float(ord(letter)) for letter in pair]))
            names.add(pair)
        listed.append([part.uri for part in store.parts()])
    letters = sorted(set("".join(names)))
    assert as_lists(held(store)) == [keys(*letters).tolist(), [float(ord(letter)) for letter in letters]]
    assert store.chunks_done() >= {part_name(keys(*pair)) for pair in names}
    for number, uris in enumerate(listed):
        found = set(sorted_losses(store.read(uris))[0].tolist())
        written = {pair for pair in walk[: number + 1] if pair != "compact"}
        assert found >= {key for letter in written for key in keys(letter, chr(ord(letter) + 1)).tolist()}


def test_a_run_that_reads_and_writes_meanwhile_misses_nothing(tmp_path):
    store = MeasurementStore(str(tmp_path / "m"), LOSS)
    written: list[str] = []
    over = Event()

    def write() -> None:
        for number in range(150):
            store_with(store.folder, ((f"{number}", f"{number}x"), [1.0, 2.0]))
            written.append(f"{number}")

    def keep_compacting() -> int:
        count = 0
        while not over.is_set():
            count += compact(store).made
        return count

    def keep_reading() -> None:
        while not over.is_set():
            known = list(written)
            listed = [part.uri for part in store.parts()]
            assert store.chunks_done() >= {part_name(keys(one, f"{one}x")) for one in known}
            found = set(sorted_losses(store.read(listed))[0].tolist())
            assert found >= set(keys(*known).tolist())

    with ThreadPoolExecutor(5) as pool:
        loops = [pool.submit(task) for task in (keep_reading, keep_reading, keep_compacting, keep_compacting)]
        pool.submit(write).result()
        over.set()
        *_, one, other = [loop.result() for loop in loops]
    assert one + other > 3
    compact(store)
    assert len(held(store)[0]) == 300


def test_a_kind_that_is_not_known_here_is_passed_over(tmp_path, capsys):
    known = store_with(tmp_path / "measurements" / "a", ("ab", [1.0, 2.0]))
    other = store_with(tmp_path / "measurements" / "b", ("ab", [1.0, 2.0]))
    other.describe({"kind": "no_such_module:KIND", "model": "m", "numerics": {}})
    assert [model.folder for model in models_in(str(tmp_path), known_kind)] == [known.folder]
    assert "passed over" in capsys.readouterr().err
