"""Everything that davir_ray raises on purpose.

    DavirError                      exit code of the command line
    +-- RecipeError                 2   the recipe does not parse, or contradicts itself
    +-- CorpusError                 3   the corpus cannot be read or understood
    |   +-- UnknownFormat               no known format fits the columns
    |   +-- UnreadableFile              a file that is not what its name says
    +-- ModelError                  4   a model or tokenizer cannot be used
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

A row that cannot be scored raises `RowError` inside the stage that found it; the stage turns it into that
row's `status` and `reason`, so a `RowError` never leaves the row it belongs to.
"""


class DavirError(Exception):
    """The base of all errors that a user can act on."""

    exit_code = 1


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


class ModelError(DavirError):
    """A model or its tokenizer cannot be used."""

    exit_code = 4


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
        super().__init__(uri, reason)
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


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


class RowError(Exception):
    """One row cannot be scored. `status` is one of `schema.Status`; the message is the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
