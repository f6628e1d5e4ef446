"""The Ray Data stage that turns a corpus into EXAMPLES and TOKENS, split by split.

Each split is read, parsed, tokenised and written by one call, so a stop loses only the splits in flight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.ray_session import encode_error
from davir_ray.config import CorpusConfig, TokensConfig
from davir_ray.corpus.not_read import NotRead
from davir_ray.corpus.reading import Parsed, examples, not_read_columns
from davir_ray.corpus.split import Split
from davir_ray.errors import CorpusError, RowError, UnreadableFile
from davir_ray.progress import Progress
from davir_ray.schema import EXAMPLES, SCORABLE, TOKENS, Status, View
from davir_ray.store.prepared import Prepared
from davir_ray.tokens.not_read import not_read_keys
from davir_ray.tokens.tokenizer import Tokenizer
from davir_ray.tokens.views import ViewTokens, sequence_id, sequences, views_in


@dataclass(frozen=True)
class Preparation:
    """Everything that a worker needs to prepare a split.

    The tokenizer travels: the folder that it was loaded from may be on the driver's disk alone.
    """

    corpus: CorpusConfig
    tokens: TokensConfig
    views: tuple[View, ...]
    formats: dict[str, str]
    tokenizer: Tokenizer
    prepared: Prepared
    splits: tuple[Split, ...]


def prepare(preparation: Preparation, workers: int) -> None:
    """Prepare the splits that are not prepared yet."""
    done = preparation.prepared.done()
    todo = [{"split": index} for index in range(len(preparation.splits)) if index not in done]
    if not todo:
        return
    progress = Progress("prepare", len(todo), "splits")
    dataset = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
        SplitPreparer,
        fn_constructor_args=(preparation,),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(workers, len(todo)))),
    )
    bad = set[int]()
    with progress.telling(), ray_session.batches(dataset) as batches:
        for batch in batches:
            for text in batch["error"].tolist():
                ray_session.raise_encoded(text, CorpusError)
            bad.update(batch["split"][batch["bad"]].tolist())
            progress.add(len(batch["split"]), int(batch["rows"].sum()), int(batch["size"].sum()))
    storage.await_listing(lambda: bad <= preparation.prepared.bad().keys(), preparation.prepared.folder)


class SplitPreparer:
    """Holds a tokenizer; each call prepares one split."""

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare the split that a batch of one row names."""
        (index,) = batch["split"].tolist()
        told_of = {"error": "", "bad": False, "rows": 0, "size": 0} | self._prepare(index)
        return batch | {name: np.array([value]) for name, value in told_of.items()}

    def _prepare(self, index: int) -> dict[str, Any]:
        """Prepare a split; tell its rows and bytes, an error of ours as text, or that it is bad and was left out."""
        plan = self.preparation
        try:
            collected = self._collect(plan.splits[index])
            examples, tokens = collected.tables()
            plan.prepared.write(index, examples, tokens, collected.not_read)
        except UnreadableFile as error:
            if plan.corpus.on_bad_file == "error":
                return {"error": encode_error(error)}
            return self._leave_out(index, error)
        except Exception as error:
            return {"error": encode_error(error)}
        return {"rows": len(examples), "size": examples.nbytes + tokens.nbytes}

    def _leave_out(self, index: int, reason: UnreadableFile) -> dict[str, Any]:
        try:
            self.preparation.prepared.write_bad(index, str(reason))
        except Exception as error:
            return {"error": encode_error(error)}
        return {"bad": True}

    def _collect(self, split: Split) -> "Collected":
        plan = self.preparation
        collected, format = Collected(), plan.formats[split.source]
        for parsed in examples(split, plan.corpus, format):
            collected.add(parsed, *self._tokenise(parsed))
            collected.not_read.add_row({*parsed.not_read, *not_read_keys(plan.tokenizer, parsed.example)})
        collected.not_read.add_columns(not_read_columns(split, plan.corpus, format))
        return collected

    def _tokenise(self, parsed: Parsed) -> tuple[Sequence[ViewTokens], str, str | None]:
        """Return the sequences of a row, and the row's status and reason."""
        if parsed.example is None:
            return (), parsed.status, parsed.reason
        plan = self.preparation
        views = views_in(parsed.example, plan.views)
        try:
            made = sequences(parsed.example, plan.tokenizer, plan.tokens, views)
        except RowError as error:
            return (), error.status, error.reason
        if any(one.truncated for one in made):
            return made, Status.TRUNCATED, f"cut at max_length = {plan.tokens.max_length} tokens"
        return made, Status.OK, None


@dataclass
class Collected:
    """The rows of a split, column by column, until they are written."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    sequences: list[tuple[Any, ...]] = field(default_factory=list)
    not_read: NotRead = field(default_factory=NotRead)

    def add(self, parsed: Parsed, made: Sequence[ViewTokens], status: str, reason: str | None) -> None:
        """Take in one row and its sequences."""
        if status in SCORABLE:
            self.sequences += [self._sequence(one) for one in made]
        place = parsed.row, parsed.example_id, parsed.id, parsed.source, parsed.group
        self.rows.append((*place, str(status), reason))

    def _sequence(self, one: ViewTokens) -> tuple[Any, ...]:
        scored = int(np.count_nonzero(one.scored))
        key = sequence_id(one.ids, one.scored)
        return len(self.rows), str(one.view), key, scored, len(one.ids), one.ids, one.scored

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Return the EXAMPLES and the TOKENS part."""
        return _table(self.rows, EXAMPLES), _table(self.sequences, TOKENS)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [() for _ in schema]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
