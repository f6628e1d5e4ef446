"""What nobody foresaw: freed from what Ray puts around it, with its stage's exit code, and kept in a file.

An exception that is no `DavirError` leaves the stage that it was raised in as `Unexpected`. The command line tells one
line of it, and writes the whole traceback, that of a worker too, into the temporary folder of the machine.
"""

import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from davir_ray.errors import DavirError, Unexpected
from davir_ray.foreign_text import without_credentials

INTERRUPTED = 130
"""What shells take for the exit code of a command that was interrupted."""
LONGEST_LINE = 500
way_on = ""
"""How to go on with the run that is under way, in words; empty before there is one."""


def begun(resume: str = "") -> None:
    """Note that a run is under way, and the command beside its own that goes on with it, for whoever interrupts it."""
    global way_on
    way_on = "; the same command goes on" + (f", or: {resume}" if resume else "")


@contextmanager
def stage(kind: type[DavirError]) -> Iterator[None]:
    """Raise what nobody foresaw as `Unexpected` with the exit code of `kind`; take Ray's wrapper off our own errors."""
    try:
        yield
    except Exception as error:
        ours = as_ours(error, kind.exit_code)
        if ours is error:
            raise
        raise ours from error


def as_ours(error: Exception, exit_code: int = DavirError.exit_code) -> DavirError:
    """Return the `DavirError` that an exception is, or holds; any other as `Unexpected` with an exit code."""
    inner = unwrapped(error)
    return inner if isinstance(inner, DavirError) else Unexpected(in_one_line(inner), exit_code)


def unwrapped(error: BaseException) -> BaseException:
    """Return what a worker raised, without the exceptions that Ray puts around it."""
    while type(error).__module__.startswith("ray."):
        inner = getattr(error, "cause", None) or error.__cause__
        if inner is None:
            break
        error = inner
    return error


def in_one_line(error: BaseException) -> str:
    """Name the type of an exception, with the first line of what it says."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "it says nothing")
    return f"unexpected {type(error).__name__}: {line[:LONGEST_LINE]}"


def ending(error: BaseException) -> tuple[list[str], int]:
    """Return what a command that ends with an error says, a line each, and its exit code.

    The traceback of what nobody foresaw is kept.
    """
    if isinstance(error, KeyboardInterrupt):
        return [f"interrupted{way_on}"], INTERRUPTED
    assert isinstance(error, Exception)
    ours = as_ours(error)
    kept = ""
    if isinstance(ours, Unexpected):
        kept = f"; the full traceback is in {keep_traceback(error, ours.worker_traceback)}"
    first, *more = ours.lines
    return [f"error: {first}{kept}", *more], ours.exit_code


def keep_traceback(error: BaseException, of_worker: str = "") -> str:
    """Write the traceback of an error, and of the worker that it came from, into a new file; return the file's path.

    The credentials that URIs in it may hold are left out.
    """
    text = "".join(traceback.format_exception(error)) + (
        f"\nIn the worker:\n{of_worker}" if of_worker else ""
    )
    number, path = tempfile.mkstemp(prefix="davir-error-", suffix=".txt")
    with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(without_credentials(text))
    return path
