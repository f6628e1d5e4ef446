"""A small sharded corpus whose bad rows are known, generated with reasoning-gym.

Two families of word problems with worked answers, ending in `#### number` as in GSM8K. Column `known_bad` is
empty for a good row and otherwise says what was done to it; the main job never reads that column.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import reasoning_gym
from reasoning_gym.arithmetic.leg_counting import ANIMALS

from .whole import made_whole

Problem = tuple[str, str]
"""A question and its worked answer."""

GOOD = {"word_problem": 36, "leg_count": 16}
SWAPPED = {"word_problem": 8, "leg_count": 4}
REPEATS = 6
EMPTY = 2
WRONG_SHAPE = 2
HELD_OUT = {"word_problem": 8, "leg_count": 4}
SHARDS = 4
LONGEST = 170
"""Characters of a question or an answer: short rows keep the quickstart quick."""

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("family", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("known_bad", pa.string()),
    ]
)


def write_corpus(folder: Path, held_out: Path, seed: int) -> None:
    """Write the corpus to `folder`, and good rows that it does not have to `held_out`, as Parquet shards.

    The same seed gives the same rows in the same order.
    """
    rows, kept_back = corpus_rows(seed)
    _write_shards(held_out, kept_back, 1)
    _write_shards(folder, rows, SHARDS)


def _write_shards(folder: Path, rows: list[dict[str, Any]], shards: int) -> None:
    with made_whole(folder) as partial:
        for shard in range(shards):
            table = pa.Table.from_pylist(rows[shard::shards], schema=SCHEMA)
            pq.write_table(table, partial / f"part-{shard:05}.parquet")


def corpus_rows(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Good rows of both families and the known-bad ones, shuffled; and rows to hold out."""
    rng = random.Random(seed)
    families = {"word_problem": _distinct(_word_problems(seed)), "leg_count": _distinct(_leg_counts(seed))}
    good = [
        _row(family, *next(problems)) for family, problems in families.items() for _ in range(GOOD[family])
    ]
    rows = good + [{**row, "known_bad": "repeat"} for row in rng.sample(good, REPEATS)]
    for family, problems in families.items():
        rows += _swapped(family, [next(problems) for _ in range(SWAPPED[family])])
    for _ in range(EMPTY):
        rows.append(_row("word_problem", next(families["word_problem"])[0], "", "empty"))
    for _ in range(WRONG_SHAPE):
        row = _row("word_problem", *next(families["word_problem"]), "wrong_shape")
        rows.append({**row, "messages": row["messages"][:1]})
    rng.shuffle(rows)
    held_out = [_row(family, *next(families[family])) for family in families for _ in range(HELD_OUT[family])]
    return _numbered("row", rows), _numbered("held-out", held_out)


def _numbered(prefix: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": f"{prefix}-{number:04}", **row} for number, row in enumerate(rows)]


def _row(family: str, question: str, answer: str, known_bad: str = "") -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"family": family, "messages": messages, "known_bad": known_bad}


def _swapped(family: str, problems: list[Problem]) -> list[dict[str, Any]]:
    """Give each question the answer of the problem before it."""
    return [_row(family, problems[i][0], problems[i - 1][1], "swapped") for i in range(len(problems))]


def _distinct(problems: Iterator[Problem]) -> Iterator[Problem]:
    """Leave out what shares its question or its answer with an earlier one: repeats are made on purpose."""
    seen: set[str] = set()
    for problem in problems:
        if seen.isdisjoint(problem):
            seen.update(problem)
            yield problem


def _word_problems(seed: int) -> Iterator[Problem]:
    """Short `gsm_symbolic` problems with the worked answers of their metadata."""
    for item in reasoning_gym.create_dataset("gsm_symbolic", seed=seed, size=10_000):
        question = item["question"].removesuffix(
            " Give the result as your final answer. Do not include units."
        )
        answer = item["metadata"]["answer_cot"]
        if max(len(question), len(answer)) <= LONGEST:
            yield question, answer


def _leg_counts(seed: int) -> Iterator[Problem]:
    """`leg_counting` problems with two or three animals, and an answer worked out line by line."""
    sizes = {"min_animals": 2, "max_animals": 3, "min_instances": 2}
    for item in reasoning_gym.create_dataset("leg_counting", seed=seed, size=10_000, **sizes):
        counts = item["metadata"]["animals"]
        legs = {animal: count * ANIMALS[animal] for animal, count in counts.items()}
        lines = [f"{counts[a]} {a}s have {counts[a]} * {ANIMALS[a]} = {legs[a]} legs" for a in counts]
        total = " + ".join(map(str, legs.values()))
        lines.append(f"In total there are {total} = {sum(legs.values())} legs\n#### {sum(legs.values())}")
        yield item["question"].split("Now, ")[1].strip().capitalize(), "\n".join(lines)
