"""`davir init`: a first recipe that is a recipe, says what was found, and that `davir validate` takes."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from davir_ray.cli import main
from davir_ray.errors import CorpusError, RecipeError, UnknownFormat, UnreadableFile
from davir_ray.recipe.draft import SMALL_MODEL, draft
from davir_ray.recipe.loading import parse_recipe


def corpus(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ALPACA = [
    {"instruction": f"say {i}", "output": f"{i}", "uid": f"row-{i}", "family": "ab"[i % 2], "weight_kg": i}
    for i in range(40)
]
PAIRS = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(4)]


def test_a_draft_says_what_was_found_and_suggests_columns(tmp_path):
    text = draft(corpus(tmp_path, ALPACA))
    assert "format: alpaca  # as it was found" in text
    assert "rows.jsonl  # 1 file\n" in text
    assert "  # id: uid  # your own name of a row" in text
    assert "  # group_by: family  # 2 values in the first 40 rows; for quotas" in text
    assert "weight_kg" not in text
    recipe = parse_recipe(yaml.safe_load(text), "draft")
    assert recipe.models.base.model_name_or_path == SMALL_MODEL
    assert (recipe.corpus.format, recipe.makes) == ("alpaca", ("reference",))


@pytest.mark.parametrize("names", [("a/rows.jsonl", "b/rows.jsonl"), ("a.jsonl", "b.jsonl")])
def test_files_of_several_formats_are_named_with_what_to_do(tmp_path, names):
    for name, rows in zip(names, (ALPACA, PAIRS), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        corpus(tmp_path, rows, name)
    one, other = (str(tmp_path / name) for name in names)
    says = f"its files are of several formats: alpaca ({one}), preference ({other}); name a folder or files of one"
    with pytest.raises(CorpusError, match=re.escape(says)):
        draft(str(tmp_path))


def test_a_file_that_no_format_fits_is_told_of_as_ever(tmp_path):
    with pytest.raises(UnknownFormat, match="no known format fits"):
        draft(corpus(tmp_path, [{"weight_kg": 3}]))


def test_a_file_that_cannot_be_read_is_told_of_beside_one_that_can(tmp_path):
    corpus(tmp_path, ALPACA)
    (tmp_path / "cut.parquet").write_text("PAR1")
    with pytest.raises(UnreadableFile, match=r"cut\.parquet"):
        draft(str(tmp_path))


def test_a_draft_counts_rows_where_the_files_tell(tmp_path):
    pq.write_table(pa.Table.from_pylist(ALPACA), tmp_path / "rows.parquet")
    assert "rows.parquet  # 1 file, 40 rows\n" in draft(str(tmp_path / "rows.parquet"))


def test_what_is_suggested_is_a_setting_when_its_mark_is_taken_off(tmp_path):
    for rows, objective in ((ALPACA, "sft"), (PAIRS, "dpo")):
        text = draft(corpus(tmp_path, rows), base="b")
        lines = [line.replace("# ", "", 1) if is_suggestion(line) else line for line in text.splitlines()]
        recipe = parse_recipe(yaml.safe_load("\n".join(lines)), "draft")
        assert recipe.train.objective == objective
        assert (recipe.corpus.limit, len(recipe.select)) == (1000, 2)


def is_suggestion(line):
    return line.lstrip().startswith("# ") and line.lstrip("# ").split(":")[0] in (
        "id",
        "group_by",
        "limit",
        "train",
        "  objective",
        "objective",
        "- {type",
    )


@pytest.mark.parametrize(
    "name", ["a: b #c.jsonl", "'\"{[.jsonl", "true.jsonl", "\u202e\u6570.jsonl", "a\nb: c.jsonl"]
)
def test_names_of_files_and_columns_are_quoted_whatever_is_in_them(tmp_path, name):
    rows = [row | {f"g\n: {name}": "xy"[i % 2]} for i, row in enumerate(ALPACA)]
    path = corpus(tmp_path, rows, name.replace("[", "("))
    text = draft(path)
    assert yaml.safe_load(text)["corpus"]["paths"] == path
    assert all(line.isprintable() for line in text.splitlines())
    assert "group_by" in text


def test_a_model_in_a_folder_is_asked_for_its_template_and_its_length(tmp_path, tiny_models):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text('{"max_position_embeddings": 512}')
    rows = corpus(tmp_path, ALPACA)
    for base, told in ((tiny_models[0], ("chat", 2048)), (str(tmp_path / "plain"), ("alpaca", 512))):
        tokens = parse_recipe(yaml.safe_load(draft(rows, base)), "draft").tokens
        assert (tokens.template, tokens.max_length) == told


def test_a_corpus_that_is_not_understood_and_a_place_with_a_secret_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownFormat):
        draft(corpus(tmp_path, [{"colour": "red"}]))
    with pytest.raises(CorpusError, match="no such file"):
        draft("none.jsonl")
    with pytest.raises(RecipeError, match="holds credentials"):
        draft(corpus(tmp_path, ALPACA), base="s3://KEY:SECRET@b/model")
    result = CliRunner().invoke(main, ["init", "none.jsonl"])
    assert (result.exit_code, (tmp_path / "recipe.yaml").exists()) == (CorpusError.exit_code, False)


def test_the_recipe_that_is_written_is_one_that_validate_takes(tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus(tmp_path, ALPACA)
    result = CliRunner().invoke(main, ["init", "rows.jsonl", "--base", tiny_models[0]])
    assert result.output == "wrote recipe.yaml; what it would do with your rows: davir validate recipe.yaml\n"
    validated = CliRunner().invoke(main, ["validate", "recipe.yaml"])
    assert validated.exit_code == 0, validated.output
    assert "to make   reference: by `davir reference` or `davir run`, fit whole" in validated.output


def test_a_file_that_is_there_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus(tmp_path, ALPACA)
    (tmp_path / "recipe.yaml").write_text("mine")
    result = CliRunner().invoke(main, ["init", "rows.jsonl"])
    assert result.exit_code == RecipeError.exit_code
    assert result.stderr.startswith(
        "error: recipe.yaml: is there already, and stays as it is; name another file"
    )
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert CliRunner().invoke(main, ["init", "rows.jsonl", "--output", "other.yaml"]).exit_code == 0
    assert CliRunner().invoke(main, ["init", "rows.jsonl", "--output", "none/r.yaml"]).exit_code == 2
