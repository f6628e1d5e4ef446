"""A corpus that grows from night to night, in files that stay as they are."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from davir_ray.recipe import Recipe, parse_recipe


def rows(start: int, stop: int, word: str = "Yes") -> list[dict[str, str]]:
    """Make rows; those of another word have another content."""
    return [
        {"question": f"What is {i}?", "answer": f"{word}, {i}." * (1 + i % 4)} for i in range(start, stop)
    ]


def write(folder: Path, name: str, content: list[dict[str, str]]) -> None:
    """Write a file of the corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(content), folder / f"{name}.parquet")


def recipe(folder: Path, models: tuple[str, str | None], **changes: Any) -> Recipe:
    """Describe a night over all files in `folder`/corpus, with the hash engine."""
    tree = {
        "corpus": {"paths": {"one": f"{folder}/corpus/a*.parquet", "two": f"{folder}/corpus/b*.parquet"}},
        "models": {"base": models[0], "reference": models[1]},
        "engine": {"type": "hash", "num_cpus": 1},
        "select": [{"type": "fraction", "fraction": 0.2}],
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    return parse_recipe(tree | changes, "test")
