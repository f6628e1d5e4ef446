"""The word that was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the known name nearest to one that is not known, or nothing.

    Only letters and digits are compared, whatever their case.
    """
    names = {plain(name): name for name in known}
    near = get_close_matches(plain(found[:100]), names, n=1, cutoff=0.6)
    return f"; did you mean `{names[near[0]]}`?" if near else ""


def plain(name: str) -> str:
    """Return the letters and digits of a name, whatever their case."""
    return "".join(character for character in name.casefold() if character.isalnum())
