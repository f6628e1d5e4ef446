"""What a selection rule is: settings, what has to be measured for them, and which rows they keep."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import CorpusConfig, Section
from davir_ray.schema import Need

Mask = NDArray[np.bool_]

Rows = Callable[..., Iterator[pa.Table]]
"""`rows(column, ...)` reads those columns of the rows that reach a rule, in rank order, one table a part. It may be
called again for another scan, which has the same parts."""


@dataclass(frozen=True)
class TokenColumn:
    """A column of the ranked rows that is made for a rule, of the token ids of each row's view `response`.

    size: bytes of a value. make: the ids of N rows -> their N values.
    """

    name: str
    size: int
    make: Callable[[Sequence[NDArray[np.int32]]], Sequence[bytes]]


class Rule(Section):
    """Base of the selection rules. Rules run in order, each on the rows that the ones before it kept."""

    type: str

    needs: ClassVar[tuple[Need, ...]] = ()
    """What has to be measured for the rule, beside what the score needs."""
    cuts: ClassVar[Literal["ranking", "groups"] | None] = None
    """What the rule cuts by rank: the whole ranking, or each of some groups. None: it looks at other things than the
    rank, and the closing table shows no rows beside its cut."""

    @property
    def cut_scores(self) -> tuple[float, ...]:
        """The scores at which the rule cuts the ranking, where its settings say them."""
        return ()

    @property
    def token_column(self) -> TokenColumn | None:
        """A column that the rule reads beside those of the ranked rows, or None."""
        return None

    @property
    def kept_sources(self) -> tuple[str, ...]:
        """Sources whose rows are selected whatever any rule says. A rule that names some leaves no row out."""
        return ()

    @property
    def counted_by(self) -> Literal["group", "source"] | None:
        """The column by whose values the closing table counts what the rule left out, or None for the number alone."""
        return None

    def check_corpus(self, corpus: CorpusConfig) -> None:
        """Raise `ValueError` where the settings have no meaning for the corpus."""

    def over(self, subtasks: Sequence[str]) -> "Rule":
        """Return the rule for a run whose target has these subtasks."""
        return self

    @abstractmethod
    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Yield one mask a part [N]: true keeps the row.

        Columns that may be read: example_id, source, group, num_tokens (int32, null without tokens), base_loss and
        reference_loss (nats summed over the response, null where not measured), score, rank (1 is best), for each
        subtask of the target `score_<subtask>`, and `token_column`.
        """


def tokens_in(table: pa.Table) -> NDArray[np.int64]:
    """Return the response tokens of each row [N]. Reads `num_tokens`."""
    return np.asarray(table["num_tokens"].fill_null(0).to_numpy(), dtype=np.int64)
