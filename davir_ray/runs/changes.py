"""What differs between two runs besides their rows: the models, how they measure, how rows are scored and chosen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from davir_ray.runs.record import Facts
from davir_ray.schema import ROLES, role_of
from davir_ray.storage.typed import Written

Tree = Mapping[str, Any]

SECTIONS = ("corpus", "tokens", "score", "select")
"""Sections of the recipe that decide what a run makes of its rows. The engine is judged by its fingerprint."""
HASH_SHOWN = 12


class Change(Written):
    """One thing that changed between two runs."""

    what: str
    """Role of a model (`base`, `reference`, ...), `target_rows`, `engine`, or a section of the recipe."""
    detail: str
    """From what to what, in words."""


def changes(before: Facts, now: Facts, recipe_before: Tree, recipe_now: Tree) -> tuple[Change, ...]:
    """Compare two runs by their records, and by their recipes as plain data."""
    return (
        *_models(before, now),
        *_numerics(before, now),
        *_settings(recipe_before, recipe_now),
        *_code(before, now),
    )


def _models(before: Facts, now: Facts) -> Iterator[Change]:
    for role in ROLES:
        was, is_now = _of_role(before, role), _of_role(now, role)
        if was != is_now:
            yield Change(what=role, detail=f"models.{role}: {_hashes(was)} -> {_hashes(is_now)}")
    if before.target != now.target:
        was, is_now = ([one.target] if one.target else [] for one in (before, now))
        yield Change(what="target_rows", detail=f"target: {_hashes(was)} -> {_hashes(is_now)}")


def _of_role(facts: Facts, role: str) -> list[str]:
    """Return the identities of all models of a role, those of a series in order."""
    return [one for name, some in facts.models.items() if role_of(name) == role for one in some]


def _hashes(identities: Sequence[str]) -> str:
    return ", ".join(identity[:HASH_SHOWN] for identity in identities) or "none"


def _numerics(before: Facts, now: Facts) -> Iterator[Change]:
    """Find an engine that gives other numbers: a model that is the same under another fingerprint."""
    was, is_now = (f"{one.engine.type} {one.engine.dtype}" for one in (before, now))
    if was != is_now:
        yield Change(what="engine", detail=f"engine: {was} -> {is_now}")
    elif any(_measured_anew(before, now, name) for name in before.models):
        yield Change(what="engine", detail="engine: another version or setting of it")


def _measured_anew(before: Facts, now: Facts, name: str) -> bool:
    """Tell whether what both runs measured of a model is in other folders; another kind is no other engine.

    Nor is another target, at which some kinds are aimed.
    """
    if before.models[name] != now.models.get(name) or before.target != now.target:
        return False
    both = [label for label in before.measurements if label.startswith(name) and label in now.measurements]
    was, is_now = ([one.measurements[label].rsplit("/", 1)[-1] for label in both] for one in (before, now))
    return was != is_now


def _settings(before: Tree, now: Tree) -> Iterator[Change]:
    """Compare what both recipes set: a setting that only one version of the program knows is no change."""
    for section in SECTIONS:
        was, is_now = _flat(before, section), _flat(now, section)
        for name in (name for name in was if name in is_now and was[name] != is_now[name]):
            yield Change(
                what=section, detail=f"{name}: {json.dumps(was[name])} -> {json.dumps(is_now[name])}"
            )


def _flat(recipe: Tree, section: str) -> dict[str, Any]:
    if section not in recipe:
        return {}
    settings = recipe[section]
    if not isinstance(settings, Mapping):
        return {section: settings}
    return {f"{section}.{name}": value for name, value in settings.items()}


def _code(before: Facts, now: Facts) -> Iterator[Change]:
    if before.score == now.score and before.score_code != now.score_code:
        yield Change(what="score", detail=f"the source of {now.score}")
