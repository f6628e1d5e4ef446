"""A kind of measurement in one file: how many counted tokens of a sequence cost more than 2 nats."""

from dataclasses import dataclass

import pyarrow as pa

from davir_ray.logprobs.choice import build_engine
from davir_ray.schema import ID, Need, View
from davir_ray.scores.score import Score


@dataclass(frozen=True)
class HardTokens:
    name = "hard_tokens"
    implies = ()
    columns = pa.schema([pa.field("sequence_id", ID, nullable=False), pa.field("hard", pa.int32())])

    def fingerprint(self):
        return ""

    def check(self, choice): ...

    def open(self, *asked):
        return Counter(build_engine(*asked))

    def flaws(self, measured):
        return {}

    def contradicts(self, one, other):
        return one["hard"].to_numpy() != other["hard"].to_numpy()


class Counter:
    def __init__(self, engine):
        self.engine, self.close = engine, engine.close

    def measure(self, sequences):
        hard = [sum(one < -2) for one in self.engine.logprobs(sequences)]
        return pa.table({"hard": pa.array(hard, pa.int32())})


HARD, NEED = HardTokens(), Need("tests.hard_tokens:HARD", "base", View.RESPONSE)
HARDNESS = Score("hardness", "tokens above 2 nats", (NEED,), "none", lambda got, _: got.floats(NEED, "hard"))
