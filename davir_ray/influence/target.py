from dataclasses import dataclass

from davir_ray.logprobs.engine import TokenSequence


@dataclass(frozen=True)
class TargetRow:
    chosen: TokenSequence
    rejected: TokenSequence | None


@dataclass(frozen=True)
class Subtask:
    name: str
    rows: tuple


@dataclass(frozen=True)
class Target:
    subtasks: tuple
    digest: str = "x"
