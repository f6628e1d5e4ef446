"""What `davir doctor` prints, and how it ends."""

from collections.abc import Iterator, Sequence

from davir_ray.doctor.finding import Finding
from davir_ray.errors import BrokenEnvironment

WIDTH = 15
"""Of the column of names: a line is printed before the other names are known, and a longer one moves its own alone."""


def finding_lines(one: Finding) -> Iterator[str]:
    """Yield the line of a finding, the rest of a longer problem, and below it what mends it."""
    first, *more = "; ".join(filter(None, (one.found, one.problem))).splitlines() or [""]
    yield f"{one.state:<8}{one.name:<{WIDTH}}  {first}"
    yield from (f"{'':<8}{'':<{WIDTH}}  {line.strip()}" for line in more)
    if one.mend:
        yield f"{'':<8}{'':<{WIDTH}}  -> {one.mend}"


def check_well(findings: Sequence[Finding]) -> None:
    """Raise `BrokenEnvironment` if something is wrong, with the names of what is."""
    if wrong := [one.name for one in findings if one.state == "wrong"]:
        raise BrokenEnvironment(f"{len(wrong)} of {len(findings)} are wrong: {', '.join(wrong)}")
