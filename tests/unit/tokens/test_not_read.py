import json

from davir_ray.config import CorpusConfig
from davir_ray.corpus.not_read import NotRead
from davir_ray.corpus.split import Split
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.prepared import Prepared
from davir_ray.tokens.not_read import by_source, first_not_read

TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes", "name": "bob"}]


def split_of(source, path="a.jsonl"):
    return Split(source, str(path), "jsonl", 0, None, None)


def test_the_first_rows_tell_columns_and_keys(load, tmp_path):
    rows = [{"messages": TURNS, "tools": [{"name": "sum"}], "id": number} for number in range(5)]
    rows[0] = {"messages": TURNS, "image": "a.png", "id": 0}
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = first_not_read(split_of("one", path), 3, CorpusConfig(paths="x"), "messages", load("smollm2"))
    # The row with an image is refused, so nothing of it is tokenised.
    assert found == NotRead(3, {"id": 3, "turns[].name": 2, "tools": 2})


def test_what_is_not_read_is_kept_with_the_prepared_parts_and_summed_by_source(tmp_path):
    prepared = Prepared(str(tmp_path), ("a", "b", "c"))
    empty = EXAMPLES.empty_table(), TOKENS.empty_table()
    for index, found in enumerate((NotRead(3, {"id": 3}), NotRead(4, {"id": 2, "x": None}), NotRead(5))):
        prepared.write(index, *empty, found)
    again = Prepared(str(tmp_path), ("a", "b", "c")).not_read()
    splits = [split_of(source) for source in ("one", "one", "two")]
    assert by_source(splits, again) == {"one": NotRead(7, {"id": 5, "x": None})}


def test_a_split_that_cannot_be_read_tells_nothing(tmp_path):
    prepared = Prepared(str(tmp_path), ("a",))
    prepared.write_bad(0, "torn")
    assert prepared.not_read() == [NotRead()]
