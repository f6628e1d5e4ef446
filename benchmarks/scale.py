"""Look up, score, rank, select and write over many rows: seconds, the same a row, and the memory that it takes.

    .venv/bin/python benchmarks/scale.py --rows 1000000 5000000 --out benchmarks/scale.json

The tokenised corpus and the store are made first, without a model, and are not timed. What comes out is compared with
a plain NumPy sort of all rows. Both happen in processes of their own, so that the driver holds nothing but the job.
Times are those of the stages of the main job. Memory is what a process holds for itself (RssAnon), looked at twice a
second: of the driver, of the largest of Ray's workers, and of the raylet and the GCS together. Ray's monitors, which do
not know the rows, are left out, and so is a cluster that RAY_ADDRESS names. The object store, which all share, is
told apart (what /dev/shm holds): Ray bounds it, and spills the rest to disk.
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import ray

from davir_ray.cluster import ray_session
from davir_ray.config import CorpusConfig, ExportConfig, ScoreConfig
from davir_ray.coreset.export import Template
from davir_ray.coreset.export_plan import Export
from davir_ray.coreset.ray_export import choose_places, write_scored
from davir_ray.coreset.ray_rank import Ranked, Ranking, rank
from davir_ray.coreset.rules import FractionRule
from davir_ray.coreset.rules.choose import choose, rule_names
from davir_ray.corpus.listing import ROWS_PER_SPLIT
from davir_ray.corpus.split import Split
from davir_ray.ids import Keys, column_of, keys_of
from davir_ray.logprobs.kinds import LOSS
from davir_ray.schema import EXAMPLES, TOKENS, View
from davir_ray.scores import resolve_score
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.prepared import Prepared
from davir_ray.store.ray_lookup import look_up

ROWS_PER_PART = 50_000
ROLES = ("base", "reference")
RULES = (FractionRule(fraction=0.06),)
RAY = ("raylet", "gcs_server")
MIB = 2**20


def main() -> None:
    """Measure each size in a folder of its own; print and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    ray_session.connect()
    figures = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            figures.append(measure(rows, folder))
        print(json.dumps(figures[-1], indent=2), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def measure(rows: int, folder: str) -> dict[str, Any]:
    """Time the stages over so many rows."""
    prepared = Prepared(f"{folder}/prepared", tuple(map(str, range(-(-rows // ROWS_PER_SPLIT)))))
    apart(make, rows, prepared, folder)
    seconds: dict[str, float] = {}
    with memory() as peaks:
        with timed(seconds, "look_up"):
            found = {(LOSS.name, role): looked_up(prepared, store(folder, role)) for role in ROLES}
        with timed(seconds, "rank"):
            ranked = rank(ranking(prepared), found, prepared.count_rows(), f"{folder}/ranked")
        with timed(seconds, "select_and_write"):
            selections = choose(RULES, ranked.scan)
            to = export(folder, prepared.splits)
            counts = write_scored(ranked, selections, rule_names(RULES), to)
            ray.get(choose_places(to, ranked, selections, counts))
    apart(check, ranked, folder)
    total = sum(seconds.values())
    told = {name: round(value, 1) for name, value in seconds.items()}
    return {"rows": rows, **told, "microseconds_a_row": round(total / rows * 1e6, 2), **peaks}


def apart(function: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a process of its own, which has ended when this returns; its errors are raised here."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


def make(rows: int, prepared: Prepared, folder: str) -> None:
    """Write the corpus and both models' measurements; for `check`, ids.npy [N] and the losses of each role [N]."""
    draw = np.random.default_rng(rows)
    ids = draw.integers(0, 256, (rows, 16), dtype=np.uint8).view("S16").reshape(-1)
    losses = {role: draw.gamma(4.0, 10.0, rows).round(3) for role in ROLES}
    for name, values in {"ids": ids, **losses}.items():
        np.save(f"{folder}/{name}.npy", values)
    for start in range(0, rows, ROWS_PER_SPLIT):
        _write_split(prepared, start // ROWS_PER_SPLIT, ids[start : start + ROWS_PER_SPLIT])
    for role in ROLES:
        for start in range(0, rows, ROWS_PER_PART):
            part = slice(start, start + ROWS_PER_PART)
            num_tokens = np.full(len(ids[part]), 8, dtype=np.int32)
            counts = pa.array(num_tokens)
            table = pa.table({"loss": losses[role][part], "num_tokens": counts})
            store(folder, role).write(ids[part], table)


def _write_split(prepared: Prepared, split: int, keys: Keys) -> None:
    count = len(keys)
    ids, numbers = column_of(keys), np.arange(count)
    name, ok, view = (pa.repeat(text, count) for text in ("x", "ok", str(View.RESPONSE)))
    offsets = pa.array(np.arange(count + 1, dtype=np.int32))
    one_id, one_mark = (pa.ListArray.from_arrays(offsets, pa.repeat(value, count)) for value in (0, True))
    none = pa.nulls(count, pa.string())
    examples = [numbers, ids, none, name, name, ok, none]
    tokens = [numbers, view, ids, pa.repeat(8, count), pa.repeat(9, count), one_id, one_mark]
    prepared.write(split, pa.table(examples, names=EXAMPLES.names), pa.table(tokens, names=TOKENS.names))


def store(folder: str, role: str) -> MeasurementStore:
    """Name the measurements of a model."""
    return MeasurementStore(f"{folder}/store/measurements/{role}", LOSS)


def looked_up(prepared: Prepared, measured: MeasurementStore) -> list[Any]:
    """Return what a model measured of the corpus, a table a split."""
    return look_up(prepared, (View.RESPONSE,), (measured,), pa.schema([LOSS.columns.field("loss")]))


def ranking(prepared: Prepared) -> Ranking:
    """Rank by DavIR."""
    config = ScoreConfig(name="davir")
    score = resolve_score(config.name)
    files = tuple(split.path for split in corpus_splits(prepared.splits))
    return Ranking(
        prepared=prepared,
        needs=score.needs,
        score=score,
        config=config,
        target=None,
        token_columns=(),
        failed={(LOSS.name, role): {} for role in ROLES},
        files=files,
    )


def export(folder: str, splits: int) -> Export:
    """Say where the scored table goes; no row is fetched from a source."""
    return Export(
        corpus=CorpusConfig(paths="x"),
        formats={"x": "text"},
        splits=corpus_splits(splits),
        config=ExportConfig(),
        run_dir=f"{folder}/run",
        template=Template({}),
    )


def corpus_splits(splits: int) -> tuple[Split, ...]:
    """Name the splits of the corpus, a file each."""
    return tuple(Split("x", f"{index}.parquet", "parquet", 0, None, None) for index in range(splits))


def check(ranked: Ranked, folder: str) -> None:
    """Compare the ranks with a plain sort: by score, then by id."""
    ids, base, reference = (np.load(f"{folder}/{name}.npy") for name in ("ids", *ROLES))
    score = (base - reference) / base
    expected = ids[np.lexsort((ids, -score))]
    start = 0
    for index in range(ranked.parts):
        table = ranked.part(index, ["example_id", "rank"])
        assert np.array_equal(keys_of(table["example_id"]), expected[start : start + len(table)]), (
            f"part {index} is in another order"
        )
        assert table["rank"][0].as_py() == start + 1
        start += len(table)
    assert start == len(ids)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long a block took."""
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


@contextmanager
def memory() -> Iterator[dict[str, int]]:
    """Watch this process and the Ray that it started; the peaks are there at the end."""
    peaks = dict.fromkeys(("driver_peak_mib", "worker_peak_mib", "ray_peak_mib", "object_store_peak_mib"), 0)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(peaks, over))
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def _watch(peaks: dict[str, int], over: threading.Event) -> None:
    driver = psutil.Process()
    while not over.wait(0.5):
        started = [_held(one) for one in driver.children(recursive=True)]
        now = {
            "driver_peak_mib": _held(driver)[1],
            "worker_peak_mib": max((mib for name, mib in started if name.startswith("ray::")), default=0),
            "ray_peak_mib": sum(mib for name, mib in started if name in RAY),
            "object_store_peak_mib": psutil.disk_usage("/dev/shm").used // MIB,
        }
        for name, mib in now.items():
            peaks[name] = max(peaks[name], mib)


def _held(process: psutil.Process) -> tuple[str, int]:
    """Return the name of a process, and what it holds in MiB: nothing, if it ended meanwhile."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))
        return process.name(), int(kib) // 1024
    except (psutil.Error, OSError, StopIteration):
        return "", 0


if __name__ == "__main__":
    main()
