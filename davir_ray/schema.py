"""The Arrow schema of every table, in pipeline order, and the words that its columns use.

corpus rows -> EXAMPLES + TOKENS (one part of each per split) -> measurements -> SCORED -> core-set

The columns of a measurement are those of its kind (measure/kind.py).
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc

ID = pa.binary(16)


class Status(StrEnum):
    """Where a row ended. Only `ok` and `truncated` rows are measured, ranked and selectable."""

    OK = "ok"
    TRUNCATED = "truncated"
    """Cut at `tokens.max_length`, with part of its response left: scored, and flagged."""
    BAD_FORMAT = "bad_format"
    """The row does not have the shape that the corpus format asks for."""
    UNDESIRABLE = "undesirable"
    """An unpaired row whose label says that its response is not wanted (KTO)."""
    EMPTY = "empty"
    """The text that would be scored is empty."""
    NO_RESPONSE_TOKENS = "no_response_tokens"
    """No token of the row counts: no assistant turn, or all of it cut off."""
    TOO_LONG = "too_long"
    """Longer than `tokens.max_length` where `tokens.truncation` is `drop`."""
    BAD_TEXT = "bad_text"
    """Text that no tokenizer can take, such as an unpaired surrogate."""
    TEMPLATE_ERROR = "template_error"
    """The chat template refused the row, or its turns could not be told apart in its output."""
    DUPLICATE = "duplicate"
    """The same content as another row, which stands for all of them."""
    ENGINE_ERROR = "engine_error"
    """The engine could not measure one of the row's sequences."""
    NO_SCORE = "no_score"
    """The score's formula has no finite value for this row."""


SCORABLE = (Status.OK, Status.TRUNCATED)


class View(StrEnum):
    """One way to turn an example into a sequence of tokens."""

    RESPONSE = "response"
    """The conversation; its response tokens count."""
    RESPONSE_ALONE = "response_alone"
    """The response without its prompt (IFD)."""
    REJECTED = "rejected"
    """The conversation with the rejected response in place of the chosen one."""
    COMPLETION = "completion"
    """What TRL's DPO trains on of an exported pair's chosen side (see tokens/completions.py)."""
    REJECTED_COMPLETION = "rejected_completion"
    """The same of the rejected side."""


Role = Literal["base", "reference", "warmup", "prior", "target"]
"""What a model is there for. Of `reference` there may be one a fold, each for its own rows; `warmup`, `prior` and
`target` may be a series, each for all rows."""
ROLES: tuple[Role, ...] = get_args(Role)


def model_names(role: str, count: int) -> list[str]:
    """Name the models of a role that has so many: those of a series by number, all others together."""
    if role in ("base", "reference") or count == 1:
        return [role] if count else []
    return [f"{role}-{index}" for index in range(count)]


def role_of(name: str) -> str:
    """Return the role of a model by its name, or by the label of a pass under it."""
    return name.partition("-")[0]


def kind_of(label: str) -> str:
    """Return the kind of measurement that a pass is of, by its label: `rose` of `warmup-0-rose`, `loss` of `base`."""
    return "-".join(part for part in label.split("-")[1:] if not part.isdigit()) or "loss"


class Need(NamedTuple):
    """What a score, a rule or an export asks for: a kind of measurement, of a model, in a view.

    kind: a name in `measure.kind.KINDS`, or `module:attribute` of a kind of your own. model: a role; of a series of
    several, a score names the role, and what is measured `role-0`, `role-1` and so on.
    """

    kind: str
    model: str
    view: View


COMPLETIONS = (View.COMPLETION, View.REJECTED_COMPLETION)
"""The views that only the export `trl_frozen` asks for."""

PAIR_VIEWS = (View.REJECTED, *COMPLETIONS)
"""The views that preference pairs alone have."""

IGNORED = -100
"""The label of a token that does not count, for torch, transformers and TRL alike."""


EXAMPLES = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the source file, from 0
        pa.field("example_id", ID, nullable=False),  # hash of the content
        pa.field("id", pa.string()),  # the user's own, where corpus.id names a column
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
    ]
)

TOKENS = pa.schema(
    [
        pa.field("example", pa.int32(), nullable=False),  # index into the EXAMPLES part of the same split
        pa.field("view", pa.string(), nullable=False),
        pa.field("sequence_id", ID, nullable=False),  # hash of ids and scored
        pa.field("num_tokens", pa.int32(), nullable=False),  # how many positions count
        pa.field("length", pa.int32(), nullable=False),  # how many ids there are
        pa.field("ids", pa.list_(pa.int32()), nullable=False),
        pa.field("scored", pa.list_(pa.bool_()), nullable=False),
    ]
)

SCORED = pa.schema(
    [
        pa.field("example_id", ID, nullable=False),
        pa.field("id", pa.string()),
        pa.field("file", pa.dictionary(pa.int32(), pa.string()), nullable=False),  # as the corpus lists it
        pa.field("row", pa.int64(), nullable=False),  # position in the file, from 0
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("base_loss", pa.float64()),  # nats, summed over the response tokens
        pa.field("reference_loss", pa.float64()),
        pa.field("num_tokens", pa.int32()),  # response tokens that count
        pa.field("score", pa.float64()),
        pa.field("rank", pa.int64()),  # 1 is best
        pa.field("percentile", pa.float64()),  # 100 is best
        pa.field("selected", pa.bool_(), nullable=False),
        pa.field("dropped_by", pa.string()),  # the selection rule that left the row out
    ]
)


OF_SUBTASK = "score_"
"""With what the names of columns begin that hold a row's score for one subtask of the target."""


def scored_schema(columns: Iterable[str]) -> pa.Schema:
    """Return SCORED, with the scores of subtasks among these columns behind the score."""
    at = SCORED.get_field_index("score") + 1
    own = [pa.field(name, pa.float64()) for name in columns if name.startswith(OF_SUBTASK)]
    return pa.schema([*list(SCORED)[:at], *own, *list(SCORED)[at:]])


def is_of_view(table: pa.Table, *views: View) -> pa.ChunkedArray:
    """Tell which rows of a table with TOKENS' column `view` are of one of these views: a mask to filter by [N]."""
    return pc.is_in(table["view"], pa.array([str(view) for view in views]))
