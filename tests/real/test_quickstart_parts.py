"""What the quickstart prepares: a corpus of which the bad rows are known, held-out rows, and a model."""

from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from jobs.prepare_quickstart import corpus
from jobs.prepare_quickstart.closing import example_id, good_above_swapped, known_bad, known_bad_lines
from jobs.prepare_quickstart.whole import made_whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "corpus"
    corpus.write_corpus(folder, folder.parent / "held_out", seed=0)
    return folder


@pytest.fixture(scope="module")
def rows(folder) -> list[dict]:
    return ds.dataset(folder).to_table().to_pylist()


def answers(rows, kind):
    return {
        m[0]["content"]: m[-1]["content"]
        for m in (row["messages"] for row in rows if row["known_bad"] == kind)
    }


def test_the_corpus_is_the_same_for_a_seed_and_another_for_another(folder, tmp_path):
    corpus.write_corpus(tmp_path / "again", tmp_path / "again-held-out", seed=0)
    corpus.write_corpus(tmp_path / "other", tmp_path / "other-held-out", seed=1)
    shards = sorted(path.name for path in folder.iterdir())
    assert shards == [f"part-0000{i}.parquet" for i in range(4)]
    for name in shards:
        assert pq.read_table(folder / name).equals(pq.read_table(tmp_path / "again" / name))
        assert not pq.read_table(folder / name).equals(pq.read_table(tmp_path / "other" / name))


def test_the_corpus_holds_exactly_the_bad_rows_it_says(rows):
    assert Counter(row["known_bad"] for row in rows) == {
        "": 52,
        "swapped": 12,
        "repeat": 6,
        "empty": 2,
        "wrong_shape": 2,
    }
    assert Counter(row["family"] for row in rows if row["known_bad"] == "swapped") == {
        "word_problem": 8,
        "leg_count": 4,
    }
    assert len({row["id"] for row in rows}) == 74


def test_every_kind_of_bad_row_is_bad_in_its_own_way(rows):
    good, swapped = answers(rows, ""), answers(rows, "swapped")
    assert len(good) == len(set(good.values())) == 52
    assert all(good[question] == answer for question, answer in answers(rows, "repeat").items())
    assert set(answers(rows, "empty").values()) == {""}
    assert {len(row["messages"]) for row in rows if row["known_bad"] == "wrong_shape"} == {1}
    assert len(set(swapped.values())) == 12
    assert not set(swapped) & set(good)
    assert not set(swapped.values()) & set(good.values())


def test_swapped_leg_counts_answer_another_question(rows):
    """The animals that a question counts are named in its answer, unless the answer was swapped."""

    def fits(row):
        question, answer = (message["content"] for message in row["messages"])
        counted = question.removeprefix("How many legs are there in total if you have ").removesuffix("?")
        return all(f"{part} have " in answer for part in counted.lower().split(", "))

    legs = [row for row in rows if row["family"] == "leg_count"]
    assert all(fits(row) == (row["known_bad"] != "swapped") for row in legs)


def test_a_worked_leg_count_adds_up(rows):
    for row in rows:
        if row["family"] == "leg_count":
            *lines, total, final = row["messages"][-1]["content"].splitlines()
            products = [line.partition(" have ")[2].removesuffix(" legs").split(" = ") for line in lines]
            assert all(int(p.split(" * ")[0]) * int(p.split(" * ")[1]) == int(legs) for p, legs in products)
            assert f"= {sum(int(legs) for _, legs in products)} legs" in total
            assert final == f"#### {sum(int(legs) for _, legs in products)}"


def test_a_lone_copy_is_no_repeat_and_a_second_copy_is_one(rows):
    repeat = next(row for row in rows if row["known_bad"] == "repeat")
    original = next(r for r in rows if r["messages"] == repeat["messages"] and r["known_bad"] == "")
    assert known_bad([repeat]).total() == 0
    assert known_bad([repeat, original])["repeat"] == 1
    assert known_bad(rows) == {"swapped": 12, "repeat": 6, "empty": 2, "wrong_shape": 2}


def test_the_closing_table_gives_shares_of_both_sets(rows):
    table = "\n".join(known_bad_lines(rows, [row for row in rows if row["known_bad"] in ("", "empty")]))
    assert "12 of 74 (16%)" in table
    assert "22 of 74 (30%)" in table
    assert table.count("2 of 54 (4%)") == 2  # the empty answers, and all together


def test_the_probability_that_a_good_row_ranks_above_a_swapped_one(rows):
    picked = [row for row in rows if row["known_bad"] in ("", "swapped")]
    picked.sort(key=lambda row: row["known_bad"])
    scored = [{"example_id": example_id(row), "rank": rank} for rank, row in enumerate(picked, 1)]
    upside_down = [{**row, "rank": 1 - row["rank"]} for row in scored]
    assert good_above_swapped(picked, scored) == 1.0
    assert good_above_swapped(picked, upside_down) == 0.0
    scored[51]["rank"], scored[63]["rank"] = 64, 52  # the last good row falls below all 12 swapped rows
    assert good_above_swapped(picked, scored) == pytest.approx(1 - 1 / 52)


def test_an_interrupted_folder_is_not_there(tmp_path):
    def interrupted():
        with made_whole(tmp_path / "model") as partial:
            (partial / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "model").exists()
    with made_whole(tmp_path / "model") as partial:
        (partial / "whole").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["whole"]


def test_the_first_of_two_starts_at_once_stays(tmp_path):
    with made_whole(tmp_path / "model") as slow:
        (slow / "second").touch()
        with made_whole(tmp_path / "model") as fast:
            (fast / "first").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["first"]


def test_held_out_rows_are_good_and_in_no_other_place(folder, rows):
    held_out = ds.dataset(folder.parent / "held_out").to_table().to_pylist()
    assert Counter(row["family"] for row in held_out) == corpus.HELD_OUT
    assert not any(row["known_bad"] for row in held_out)
    texts = {message["content"] for row in rows for message in row["messages"]}
    assert texts.isdisjoint(message["content"] for row in held_out for message in row["messages"])


@pytest.mark.real
def test_the_converted_model_keeps_its_licence_and_answers(smollm2):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert "Apache License" in (Path(smollm2) / "LICENSE").read_text()
    assert not list(Path(smollm2).rglob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert model.dtype == torch.float32
    assert model.num_parameters() == 134_515_008
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0][ids["input_ids"].shape[1] :])
