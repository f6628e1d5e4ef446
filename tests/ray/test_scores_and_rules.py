"""Scores that need other views, and rules that need other columns, through the whole job."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray import pipeline
from davir_ray.config import TokensConfig
from davir_ray.corpus.formats import FORMATS
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hash_engine import HashEngine
from davir_ray.recipe import parse_recipe
from davir_ray.schema import View
from davir_ray.tokens.tokenizer import load_tokenizer
from davir_ray.tokens.views import sequences

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
ENGINE = "tests.engines:PathHash"


def run(tmp_path: Path, models: tuple[str, str], paths, **changes) -> dict:
    tree = {
        "corpus": {"paths": paths},
        "models": {"base": models[0], "reference": models[1]},
        "engine": {"type": ENGINE, "num_cpus": 1},
        "store": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
    }
    return pipeline.score(parse_recipe(tree | changes, "test"), "test")


def loss(model: str, row: dict, format: str, view: View) -> float:
    """Measure one row under a model, without the pipeline."""
    tokenizer = load_tokenizer(model, TokensConfig())
    (one,) = sequences(FORMATS[format].parse(row), tokenizer, TokensConfig(), [view])
    (values,) = HashEngine(model).logprobs([TokenSequence(one.ids, one.scored)])
    return -float(values.sum(dtype=np.float64))


def test_pairs_are_ranked_by_margin_and_exported_with_frozen_logprobs(tmp_path, tiny_models):
    rows = [
        {"prompt": f"{i}?", "chosen": f"{i}, of course.", "rejected": f"No {i}.", "davir_rank": 99}
        for i in range(12)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    record = run(
        tmp_path,
        tiny_models,
        str(tmp_path / "pairs.parquet"),
        score={"name": "margin"},
        select=[{"type": "count", "count": 4}],
        export={"formats": ["parquet", "trl", "trl_frozen"]},
    )
    base, reference = tiny_models
    chosen = pq.read_table(record.coreset["parquet"]).to_pylist()
    for row in chosen:
        reward = {
            view: loss(base, row, "preference", view) - loss(reference, row, "preference", view)
            for view in (View.RESPONSE, View.REJECTED)
        }
        assert row["davir_score"] == pytest.approx(reward[View.RESPONSE] - reward[View.REJECTED])
    exported, frozen = (
        [json.loads(line) for line in (Path(record.coreset[name]) / "part-00000.jsonl").open()]
        for name in ("trl", "trl_frozen")
    )
    assert [row["chosen"][0]["content"] for row in exported] == [row["chosen"] for row in chosen]
    assert all(list(row) == ["prompt", "chosen", "rejected"] for row in exported)
    for row, plain, source in zip(frozen, exported, chosen, strict=True):
        sums = {side: row.pop(f"ref_{side}_logps") for side in ("chosen", "rejected")}
        assert row == plain
        assert sums["chosen"] == pytest.approx(-loss(base, source, "preference", View.COMPLETION))
        assert sums["rejected"] == pytest.approx(-loss(base, source, "preference", View.REJECTED_COMPLETION))


def test_ifd_needs_no_reference_and_one_source_is_kept_whole(tmp_path, tiny_models):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    near = [{"question": "Count.", "answer": " ".join(words) + f" and {i}"} for i in range(4)]
    other = [{"question": f"Name {i}.", "answer": f"{word} " * 6} for i, word in enumerate(words)]
    whole = [{"question": f"What is {i}?", "answer": f"{i}!"} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(near + other), tmp_path / "mixed.parquet")
    pq.write_table(pa.Table.from_pylist(whole), tmp_path / "whole.parquet")
    record = run(
        tmp_path,
        (tiny_models[0], None),
        {"mixed": str(tmp_path / "mixed.parquet"), "whole": str(tmp_path / "whole.parquet")},
        score={"name": "ifd"},
        select=[
            {"type": "near_duplicates", "threshold": 0.5},
            {"type": "fraction", "fraction": 0.5},
            {"type": "keep_sources", "sources": ["whole"]},
        ],
    )
    rows = pq.read_table(record.scored).to_pylist()
    assert record.measured == {"base": 38}  # two views of nineteen rows
    for name, count in (("mixed", 5), ("whole", 5)):  # a folder a source
        kept = pq.read_table(Path(record.coreset["parquet"]) / name)
        assert kept["davir_source"].to_pylist() == [name] * count
        assert kept["davir_rank"].to_pylist() == [
            row["rank"] for row in rows if row["selected"] and row["source"] == name
        ]
    assert record.status == {"ok": 19}
    assert all(row["selected"] for row in rows if row["source"] == "whole")
    dropped = record.dropped_by
    assert dropped["0:near_duplicates"] == 3
    assert dropped["1:fraction"] == 6  # of the eleven mixed rows that reach it, five stay
    example = other[0]
    expected = [
        loss(tiny_models[0], example, "question_answer", v) for v in (View.RESPONSE, View.RESPONSE_ALONE)
    ]
    assert min(abs(row["score"] - expected[0] / expected[1]) for row in rows) < 1e-9
