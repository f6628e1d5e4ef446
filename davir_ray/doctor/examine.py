"""Everything that davir_ray stands on, looked at in order."""

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from davir_ray.doctor.address import look_at_cluster
from davir_ray.doctor.finding import Finding
from davir_ray.doctor.in_time import AGAIN, SECONDS, within
from davir_ray.doctor.machine import look_at_gpus, look_at_python
from davir_ray.doctor.packages import DISTRIBUTION, Required, look_at_packages
from davir_ray.doctor.probes import BESIDE_TORCH, IMPORTS, Probe, probe
from davir_ray.errors import DavirError
from davir_ray.progress import say

if TYPE_CHECKING:
    from davir_ray.recipe import Recipe

INSTALLED = "site-packages"
AT_ONCE = 2
"""Imports at once: each takes seconds of a core and hundreds of megabytes."""
WITHOUT = f"pip uninstall -y {' '.join(BESIDE_TORCH)}"


def examine(recipe_or_run: str | None = None) -> Iterator[Finding]:
    """Look at Python, the cluster of RAY_ADDRESS, what a recipe reaches for if one is given, packages and GPUs.

    Each finding is yielded once it is known. A recipe that cannot be read is one, too. What is imported comes last: it
    takes longest.
    """
    yield look_at_python()
    yield from look_at_cluster()
    recipe, needed, refused = _recipe(recipe_or_run)
    yield from refused
    if recipe is not None and recipe_or_run is not None:
        from davir_ray.doctor.reach import look_at_reach

        yield from look_at_reach(recipe, recipe_or_run)
    torch = yield from _packages(needed)
    yield look_at_gpus(torch)


def _recipe(path: str | None) -> "tuple[Recipe | None, set[str], list[Finding]]":
    """Read a recipe, if one is given, and the extras that it needs; or say why it cannot be read.

    That takes pydantic, Arrow and more, of which one may be what is broken.
    """
    if path is None:
        return None, set(), []
    try:
        return *within(SECONDS, partial(_read, path)), []
    except DavirError as error:
        why, mend = str(error), f"davir validate {quote(path)}  # when it is put right"
    except TimeoutError as error:
        why, mend = str(error), AGAIN
    except Exception as error:
        why, mend = f"cannot be read here: {type(error).__name__}: {error}", "mend the packages below first"
    return None, set(), [Finding("recipe", "wrong", path, why, mend)]


def _read(path: str) -> "tuple[Recipe, set[str]]":
    from davir_ray.doctor.reach import extras_of
    from davir_ray.runs.run import load_run_or_recipe

    recipe, _ = load_run_or_recipe(path, ())
    return recipe, extras_of(recipe)


def _packages(needed: set[str]) -> Generator[Finding, None, dict[str, object] | None]:
    """Look at packages, then import those that are as they should be; return what torch says of itself."""
    looked = list(look_at_packages(needed))
    if not looked:
        problem = "is not installed, so nothing tells which versions it needs"
        yield Finding(DISTRIBUTION, "wrong", "", problem, f"pip install {DISTRIBUTION}")
        return None
    tried = {one.module: (one, it) for one, it in looked if it.state == "ok" and one.module in IMPORTS}
    yield from (finding for one, finding in looked if one.module not in tried)
    mends = {one.module: finding.mend for one, finding in looked if finding.state == "wrong"}
    mends |= dict.fromkeys(BESIDE_TORCH, WITHOUT)
    facts = None
    for name, came in _imported([*tried, *(name for name in BESIDE_TORCH if find_spec(name) is not None)]):
        yield from [_with_probe(*tried[name], came, mends)] if name in tried else _beside_torch(name, came)
        facts = came.facts if name == "torch" and not came.error else facts
    return facts


def _imported(modules: Sequence[str]) -> Iterator[tuple[str, Probe]]:
    """Import modules, each in a process of its own; yield what came of each, the first that is done first."""
    say(f"importing {', '.join(modules)}: that takes half a minute, and minutes on a busy machine")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        going = {pool.submit(probe, IMPORTS.get(name, f"import {name}")): name for name in modules}
        for done in as_completed(going):
            yield going[done], done.result()


def _with_probe(one: Required, finding: Finding, came: Probe, mends: Mapping[str, str]) -> Finding:
    """Return what is said of a package once it was imported. mends: module that is wrong itself -> what mends it."""
    if not came.error:
        return finding
    culprit = _culprit(came.files, one.module, mends)
    raised = "" if culprit == one.module else f" (raised in {culprit})"
    mend = mends.get(culprit) or _again(culprit, one)
    mend = "davir doctor  # once more: a busy machine or a cold disk may be why" if came.is_late else mend
    return Finding(one.name, "wrong", finding.found, f"cannot be imported: {came.error}{raised}", mend)


def _culprit(files: Sequence[str], module: str, known: Collection[str]) -> str:
    """Return the module that an error comes from: one that is known to be wrong, else the innermost that is installed.

    files: those on the way to the error, innermost first.
    """
    ways = [[part.removesuffix(".py") for part in Path(file).parts] for file in files]
    installed = (way[way.index(INSTALLED) + 1] for way in ways if INSTALLED in way)
    return next((part for way in ways for part in way if part in known), next(installed, module))


def _again(culprit: str, one: Required) -> str:
    """Return the command that installs once more the package that a module belongs to."""
    owners = metadata.packages_distributions().get(culprit, [culprit])
    name = one.name if culprit == one.module else owners[0]
    try:
        pinned = f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        pinned = name
    return f"pip install --force-reinstall --no-deps {quote(pinned)}"


def _beside_torch(name: str, came: Probe) -> Iterator[Finding]:
    """Tell of what lies beside torch and does not fit it: transformers imports it, and fails with it."""
    if came.error:
        problem = f"is there and cannot be imported: {came.error}; nothing here needs it, and transformers imports it"
        yield Finding(name, "wrong", "", problem, WITHOUT)
