"""Errors of a target that name its own section."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray.config import CorpusConfig, TargetConfig, TokensConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.errors import CorpusError, ModelError, UnreadableFile
from davir_ray.models.resolve import ResolvedModel
from davir_ray.target.ray_measured import measured_target
from davir_ray.target.rows import FewShot, read_target
from davir_ray.tokens.tokenizer import load_tokenizer


def write(path, rows):
    path.write_text("".join(json.dumps({"prompt": f"q{n}", "completion": "a"}) + "\n" for n in range(rows)))
    return str(path)


def read(tiny_models, **settings):
    tokens = TokensConfig(template="plain")
    return read_target(TargetConfig(**settings), tokens, load_tokenizer(tiny_models[0], tokens), pairs=False)


def test_an_unreadable_file_of_a_target_cannot_be_left_out(tmp_path, tiny_models):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(UnreadableFile) as caught:
        read(tiny_models, paths=str(tmp_path / "a.parquet"))
    assert str(caught.value).startswith(
        "target: 1 of its files cannot be read (every row of a target counts)"
    )
    assert "on_bad_file" not in str(caught.value)


def test_a_target_without_rows_is_not_called_the_corpus(tmp_path, tiny_models):
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"^target: holds no rows: "):
        read(tiny_models, paths=str(tmp_path / "a.parquet"))


def test_files_of_a_training_are_told_of_under_its_section(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    config = TargetConfig(paths=str(tmp_path / "a.parquet"))
    with pytest.raises(
        UnreadableFile, match=r"^train\.eval_corpus: 1 .*train\.eval_corpus\.on_bad_file: skip"
    ):
        list_corpus(config, section="train.eval_corpus")


def test_a_limit_that_cuts_a_subtask_away_is_named(tmp_path, tiny_models):
    paths = {name: write(tmp_path / f"{name}.jsonl", 3) for name in ("a", "b")}
    assert len(read(tiny_models, paths=paths, limit=4).rows) == 4
    with pytest.raises(CorpusError, match=r"^target\.paths\.b: has no row among the first 2 .*target\.limit"):
        read(tiny_models, paths=paths, limit=2)


def test_a_setting_is_named_where_it_stands_in_the_recipe(tmp_path, tiny_models):
    missing = str(tmp_path / "corpus.format" / "corpus.jsonl")
    with pytest.raises(CorpusError) as caught:
        read(tiny_models, paths={"a": missing})
    assert str(caught.value) == f"target.paths: {missing}: no such file or folder"
    (tmp_path / "hh.jsonl").write_text(json.dumps({"chosen": "a", "rejected": "b"}) + "\n")
    with pytest.raises(CorpusError) as caught:
        read(tiny_models, paths=str(tmp_path / "hh.jsonl"), format="preference")
    assert "`preference_implicit` and `preference_hh` fit" in str(caught.value)
    assert "target.paths, with a format and columns each in target.sources" in str(caught.value)


def test_every_setting_of_a_corpus_is_named_under_its_section(tmp_path):
    config = CorpusConfig(paths={"corpus": (write(tmp_path / "a.jsonl", 2),)}, id="nope")
    with pytest.raises(CorpusError, match=r"which train\.eval_corpus\.id names"):
        list_corpus(config, section="train.eval_corpus")


def test_a_file_that_is_not_there_is_no_data_set_of_the_hub(tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError) as caught:
        read(tiny_models, paths="nowhere/x.jsonl")
    assert "hub" not in str(caught.value)


def test_every_row_that_cannot_be_used_is_named_up_to_ten(tmp_path, tiny_models):
    rows = [{"prompt": "q", "completion": "" if n % 2 else "a"} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CorpusError) as caught:
        read(tiny_models, paths=str(tmp_path / "a.jsonl"))
    lines = str(caught.value).splitlines()
    assert [line.split(": empty")[0].rsplit(":", 1)[-1] for line in lines[:-1]] == [
        str(n) for n in range(1, 21, 2)
    ]
    assert lines[-1] == "target: 5 rows more"


def test_a_checkpoint_without_a_folder_has_no_weight():
    known = ResolvedModel("", None, "ab12", "")
    with pytest.raises(
        ModelError, match=r"^models\.warmup: the checkpoint ab12 is known by its identity alone;"
    ):
        measured_target(FewShot((), {}, {}), [known], [], may_measure=False, note=print)
