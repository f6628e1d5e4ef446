"""What `davir doctor` prints, and how it ends."""

from collections.abc import Iterator, Sequence

from davir_ray.doctor.finding import Finding
from davir_ray.errors import BrokenEnvironment


def doctor_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each finding, the rest of a longer problem, and below it what mends it."""
    width = max(len(one.name) for one in findings)
    for one in findings:
        first, *more = "; ".join(filter(None, (one.found, one.problem))).splitlines() or [""]
        yield f"{one.state:<8}{one.name:<{width}}  {first}"
        yield from (f"{'':<8}{'':<{width}}  {line.strip()}" for line in more)
        if one.mend:
            yield f"{'':<8}{'':<{width}}  -> {one.mend}"


def check_well(findings: Sequence[Finding]) -> None:
    """Raise `BrokenEnvironment` if something is wrong, with the names of what is."""
    if wrong := [one.name for one in findings if one.state == "wrong"]:
        raise BrokenEnvironment(f"{len(wrong)} of {len(findings)} are wrong: {', '.join(wrong)}")
