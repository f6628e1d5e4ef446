"""The word that was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the known name nearest to one that is not known, or nothing."""
    names = {name.lower().replace("-", "_"): name for name in known}
    near = get_close_matches(found[:100].lower().replace("-", "_"), names, n=1, cutoff=0.7)
    return f"; did you mean `{names[near[0]]}`?" if near else ""
