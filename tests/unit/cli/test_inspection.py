"""What validate says of the first rows of a corpus."""

import json

import pytest

from davir_ray.cli.inspection import inspect, validate
from davir_ray.recipe import parse_recipe

ROWS = [
    {"instruction": "Add.", "Input": "2+2", "output": "4", "kind": "sum"},
    {"instruction": "Add.", "Input": "2+3", "output": ""},
    {"instruction": "Add.", "Input": "2+4", "output": "6", "label": False},
    {"instruction": 5, "Input": "2+5", "output": "7"},
    {"instruction": 6, "Input": "2+6", "output": "8"},
]


@pytest.fixture
def recipe(tmp_path, tiny_models):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tree = {
        "corpus": {"paths": str(tmp_path / "rows.jsonl")},
        "models": dict(zip(("base", "reference"), tiny_models, strict=True)),
        "store": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
    }
    return parse_recipe(tree, "recipe")


def test_rows_that_would_be_left_out_are_counted_with_one_of_each_status(recipe):
    told = [line for line in validate(recipe, colour=False) if line.startswith("left out")]
    assert [line.partition(", for instance ")[0] for line in told] == [
        "left out  corpus: 2 of the first 5 rows are bad_format",
        "left out  corpus: 1 of the first 5 rows are empty",
        "left out  corpus: 1 of the first 5 rows are undesirable",
    ]
    assert "row 3: column `instruction`: expected text, found int 5" in told[0]


def test_a_column_that_differs_in_capitals_alone_is_asked_about(recipe):
    line = next(line for line in inspect(recipe, 1, colour=False) if line.startswith("not read"))
    assert line == (
        "not read  corpus: Input (all 5 rows; is it `input`? then corpus.columns: {input: Input}), kind (1 row); "
        "the first 5 rows were looked at"
    )


def test_the_rows_of_a_target_are_counted_and_one_of_each_subtask_is_shown(recipe, tmp_path):
    pair = {"prompt": "Add 1+1.", "chosen": "That is 2.", "rejected": "No."}
    for name, rows in (("sums", 3), ("words", 2)):
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(pair)}\n" * rows)
    tree = recipe.model_dump(exclude_unset=True, mode="json") | {
        "target": {"paths": {name: str(tmp_path / f"{name}.jsonl") for name in ("sums", "words")}},
        "score": {"name": "rose"},
        "warmup": {"fraction": 0.5},
    }
    told = list(validate(parse_recipe(tree, "recipe"), colour=False))
    assert "target    sums: 3 rows, format preference" in told
    assert "target    words: 2 rows, format preference" in told
    assert (
        "to make   warmup: by `davir reference` or `davir run`, 4 checkpoints, on 0.5 of the corpus" in told
    )
    titles = [index for index, line in enumerate(told) if line.startswith("--- target ")]
    assert [told[index].split()[2] for index in titles] == ["sums", "sums", "words", "words"]
    assert "[[That is 2." in told[titles[0] + 1]
    assert "[[No." in told[titles[1] + 1]
