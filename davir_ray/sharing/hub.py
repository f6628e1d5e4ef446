"""A finished run -> a data set on the Hugging Face hub: the core-set, its card, and the licence of its sources.

The token is the one that huggingface_hub finds (HF_TOKEN, or `hf auth login`); it is named nowhere here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetInfo, HfApi
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from davir_ray import storage
from davir_ray.errors import RecipeError
from davir_ray.recipe import Recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Run, load_run_or_recipe
from davir_ray.sharing.hub_card import TAG, card
from davir_ray.sharing.licences import Licence, licence_of
from davir_ray.sharing.names import shareable_name
from davir_ray.sharing.reaching_hub import reaching_hub

DATA, LICENSE = "data", "LICENSE"
WHOLE = "default"


def push_to_hub(run_dir: str, repo: str, *, private: bool, licence: str | None) -> Iterator[str]:
    """Upload the core-set of a finished run, in one commit, and tell in lines what went where.

    repo: `owner/name`; it is made if it is not there. A core-set that was pushed there before is taken out by the same
    commit. Files are written anew, without folders of this machine, into a temporary folder first. licence: in place of
    what the sources' cards say. Raises `RecipeError` for a name without an owner, a run without rows or a licence that
    is not known, `Unreachable` where the hub refuses.
    """
    _check_name(repo)
    run = Run.existing(run_dir)
    record = run.record(RunRecord)
    if record is None:
        raise RecipeError(f"{run_dir}: is not finished; {run.resume} goes on with it")
    recipe, _ = load_run_or_recipe(run_dir, ())
    _check_rows(run_dir, record)
    files = _files(record)
    known = {} if licence else {name: licence_of(name, paths) for name, paths in recipe.corpus.paths.items()}
    names = (
        [licence] if licence else list(dict.fromkeys(name for one in known.values() for name in one.names))
    )
    with TemporaryDirectory(prefix="davir-push-") as folder:
        operations = [
            CommitOperationAdd(path, content)
            for path, content in _content(record, recipe, files, known, names, Path(folder))
        ]
        what = f"{record.selected:,} rows of run {record.run_id}"
        url, gone = _commit(repo, operations, private=private, what=what)
    yield f"pushed    {record.selected:,} rows in {len(files):,} files, licence {', '.join(names)}"
    if gone:
        yield f"took out  {gone:,} files of an earlier push"
    yield f"see       {url}"


def _check_name(repo: str) -> None:
    """Refuse what is no name, or one that the hub would complete with the name of whoever has the token."""
    with reaching_hub(repo):
        validate_repo_id(repo)
    if "/" not in repo:
        raise RecipeError(f"{repo}: names no owner; expected OWNER/NAME, such as me/{repo}")


def _check_rows(run_dir: str, record: RunRecord) -> None:
    if not record.selected:
        raise RecipeError(f"{run_dir}: chose no row")
    if "parquet" not in record.coreset:
        raise RecipeError(
            f"{run_dir}: has no core-set in Parquet; `davir select {run_dir} --set export.formats=[parquet]` makes "
            "a run that has"
        )


def _files(record: RunRecord) -> dict[str, str]:
    """Return the path in the repository of each file of the core-set -> its URI; files without rows are left out."""
    folder = record.coreset["parquet"]
    found = [file.uri for file in storage.files_below(folder) if file.uri.endswith(".parquet")]
    rows = storage.concurrently(storage.read_footer, found)
    start = len(folder.rstrip("/")) + 1
    return {f"{DATA}/{uri[start:]}": uri for uri, (count, _) in zip(found, rows, strict=True) if count}


def _content(
    record: RunRecord,
    recipe: Recipe,
    files: Mapping[str, str],
    known: Mapping[str, Licence],
    names: list[str],
    folder: Path,
) -> Iterator[tuple[str, bytes | Path]]:
    """Yield path and content of all that goes to the repository; rows lie in files of a folder."""
    folders = {path.rpartition("/")[0] for path in files}
    named = {folder.removeprefix(DATA).strip("/") or WHOLE: folder for folder in sorted(folders)}
    yield "README.md", card(record, recipe, names, named).encode()
    texts = {source: one.text for source, one in known.items() if one.text is not None}
    for source, text in texts.items():
        yield LICENSE if len(known) == 1 else f"{LICENSE}-{source.replace('/', '-')}", text
    for index, (path, uri) in enumerate(files.items()):
        pq.write_table(_without_folders(storage.read_table(uri)), folder / str(index), compression="zstd")
        yield path, folder / str(index)


def _without_folders(rows: pa.Table) -> pa.Table:
    """Return rows of the core-set in which no folder of this machine is named."""
    places = pc.dictionary_encode(rows["davir_file"].combine_chunks())
    named = pa.array([shareable_name(place) for place in places.dictionary.to_pylist()], pa.string())
    at = rows.schema.get_field_index("davir_file")
    return rows.set_column(at, "davir_file", named.take(places.indices))


def _commit(repo: str, operations: list[CommitOperationAdd], *, private: bool, what: str) -> tuple[str, int]:
    """Commit to a data set, which is made if it is not there; return the URL, and how many files were taken out."""
    api = HfApi(library_name="davir_ray")
    with reaching_hub(repo):
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        there = api.dataset_info(repo)
        gone = _left_over(repo, there, {one.path_in_repo for one in operations})
        done = api.create_commit(
            repo,
            [*operations, *map(CommitOperationDelete, gone)],
            commit_message=f"Add {what}",
            repo_type="dataset",
            parent_commit=there.sha,
        )
    return str(done.commit_url), len(gone)


def _left_over(repo: str, there: DatasetInfo, kept: set[str]) -> list[str]:
    """List the files of an earlier push that the next one does not write over.

    Raises `RecipeError` for a data set with rows or licences that no push has put there.
    """
    names = (one.rfilename for one in there.siblings or ())
    found = [path for path in names if path not in kept and _is_of_a_core_set(path)]
    tags = there.card_data.get("tags") if there.card_data else None
    if found and TAG not in (tags or ()):
        raise RecipeError(
            f"{repo}: holds {found[0]}, and its card does not say that davir_ray made it; push to a data set of its own"
        )
    return found


def _is_of_a_core_set(path: str) -> bool:
    """Tell whether a file of a data set is named as a push names what it writes."""
    return path.startswith(f"{DATA}/") or path == LICENSE or path.startswith(f"{LICENSE}-")
