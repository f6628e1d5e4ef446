"""Everything that davir_ray raises on purpose.

    DavirError                      exit code of the command line
    +-- RecipeError                 2   the recipe does not parse, or contradicts itself
    +-- CorpusError                 3   the corpus cannot be read or understood
    |   +-- UnknownFormat               no known format fits the columns
    |   +-- UnreadableFile              a file that is not what its name says
    |   +-- NothingChosen               a run is done, and no row of the corpus could be chosen
    +-- ModelError                  4   a model or tokenizer cannot be used
    |   +-- ModelNotFound               there is none under its name
    |   +-- TokenizerMismatch           base and reference disagree on token ids
    +-- EngineError                 5   measuring failed
    |   +-- EngineDied                  the engine cannot go on; its process must end
    |   +-- NotMeasured                 stored measurements are missing and none may be made
    +-- StoreError                  6   the store holds something that is not true, or cannot be used
    |   +-- DamagedPart                 a file of a store or a run is not what it should be
    |   +-- StalePlan                   a plan believed in measurements that are gone
    |   +-- Unreachable                 the storage of a store or a run fails, or refuses
    +-- TrainingError               7   training failed
    +-- PastLimits                  8   a night went past a limit of the recipe
    +-- BrokenEnvironment           9   a package is missing, broken or of another version; `davir doctor` tells which
    +-- Unexpected                      what nobody foresaw: 1, or the code of the stage where one is known

A row that cannot be scored raises `RowError` inside the stage that found it; the stage turns it into that
row's `status` and `reason`, so a `RowError` never leaves the row it belongs to.
"""

from davir_ray.foreign_text import without_credentials


class DavirError(Exception):
    """The base of all errors that a user can act on.

    lines: the message, a line each, without the credentials that a URI in it may hold. A line break within one is
    foreign text, and is spelt out when it is printed.
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(map(without_credentials, lines))
        super().__init__(*self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class RecipeError(DavirError):
    """The recipe does not parse, or contradicts itself."""

    exit_code = 2


class CorpusError(DavirError):
    """The corpus cannot be read or understood."""

    exit_code = 3


class UnknownFormat(CorpusError):
    """No known format fits the columns of the corpus."""


class UnreadableFile(CorpusError):
    """A file is empty, cut off, or not what its name says."""


class NothingChosen(CorpusError):
    """A run is done, and chose nothing: no row has a score, or the rules left none."""


class ModelError(DavirError):
    """A model or its tokenizer cannot be used."""

    exit_code = 4


class ModelNotFound(ModelError):
    """There is no model under a name, or it cannot be had now."""


class TokenizerMismatch(ModelError):
    """Base and reference turn the same text into different token ids."""


class EngineError(DavirError):
    """Measuring failed."""

    exit_code = 5


class EngineDied(EngineError):
    """The engine cannot go on: the process that holds it must end and be replaced."""


class NotMeasured(EngineError):
    """Measurements are missing from the store, and this command may not make them."""


class StoreError(DavirError):
    """The store holds something that is not what its name says."""

    exit_code = 6


class DamagedPart(StoreError):
    """A file of a store or a run cannot be read, or says what cannot be. `reason` follows its name in the message."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{uri}: {reason}")
        self.args = (uri, reason)  # what pickle and `ray_session.encode_error` make it of again
        self.uri = uri
        self.reason = reason


class StalePlan(StoreError):
    """The plan of a run believed in measurements that are not in the store."""


class Unreachable(StoreError):
    """The storage of a store or a run fails for good, or refuses."""


class TrainingError(DavirError):
    """Training failed, or has nothing to train on."""

    exit_code = 7


class PastLimits(DavirError):
    """A night is done, and went past a limit that the recipe sets."""

    exit_code = 8


class BrokenEnvironment(DavirError):
    """What davir_ray stands on is not as it should be: a package, a driver, or what a recipe reaches for."""

    exit_code = 9


class Unexpected(DavirError):
    """An exception of another library, or a mistake of ours: one line of it.

    exit_code: that of the stage it came from. worker_traceback: where a worker raised it; empty if the driver did.
    """

    def __init__(self, message: str, exit_code: int = 1, worker_traceback: str = "") -> None:
        super().__init__(message)
        self.args = (message, exit_code, worker_traceback)
        self.exit_code = exit_code
        self.worker_traceback = worker_traceback


class RowError(Exception):
    """One row cannot be scored. `status` is one of `schema.Status`; the message is the reason."""

    def __init__(self, status: str, reason: str) -> None:
        self.reason = without_credentials(reason)
        super().__init__(self.reason)
        self.status = status
