"""Which format a corpus is taken for, what its renames mean, and how a refusal names the way out."""

import json

import pytest
import yaml

from davir_ray.config import CorpusConfig
from davir_ray.corpus.detection import check_columns, check_renames, check_targets, detect, renames_for
from davir_ray.corpus.formats import FORMATS
from davir_ray.corpus.nearest import remedy
from davir_ray.errors import CorpusError, UnknownFormat

ASKED = ({"role": "user", "content": "2+2?"},)
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}


def config(**settings):
    return CorpusConfig(paths={"corpus": "x"}, **settings)


def refusal(columns, **settings):
    with pytest.raises(CorpusError) as caught:
        check_renames(config(columns=columns, **settings), "corpus")
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (("instruction", "input", "output", "text"), "alpaca"),
        (("messages", "prompt", "source"), "messages"),
        (("conversations", "id"), "sharegpt"),
        (("query", "response", "type"), "query_response"),
        (("input_ids", "attention_mask", "labels", "text"), "tokenized"),
        (("prompt", "completion", "question", "answer"), "prompt_completion"),
        (("conversations", "chosen", "rejected"), "preference_sharegpt"),
    ],
)
def test_the_more_particular_format_wins(columns, name):
    assert detect(columns, [], {}).name == name


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (("prompt", "completion", "instruction", "input", "output"), "alpaca"),
        (("chosen", "rejected", "instruction", "input", "output"), "preference_alpaca"),
    ],
)
def test_the_format_that_reads_most_of_the_columns_wins_over_an_earlier_one(columns, name):
    assert detect(columns, [], {}).name == name


def test_rows_tell_pairs_with_the_same_columns_apart():
    whole = {"prompt": "2+2?", "chosen": [*ASKED, FOUR], "rejected": [*ASKED, FIVE]}
    assert detect(list(whole), [whole], {}).name == "preference_implicit"
    ends = {"prompt": list(ASKED), "chosen": [FOUR], "rejected": [FIVE]}
    assert detect(list(ends), [{"prompt": None}, ends], {}).name == "preference"


def test_pairs_of_two_shapes_are_ambiguous():
    rows = [json.loads(FORMATS[name].example) for name in ("preference_implicit", "preference_hh")]
    with pytest.raises(UnknownFormat, match="preference_implicit, preference_hh, and each of these"):
        detect(["chosen", "rejected"], rows, {})


def test_pairs_of_no_known_shape_are_shown():
    with pytest.raises(UnknownFormat, match=r"none of these in the first rows \(`chosen` is int 4\)"):
        detect(["chosen", "rejected"], [{"chosen": 4, "rejected": 5}], {})


def test_an_unknown_format_names_the_columns():
    with pytest.raises(UnknownFormat, match="no known format fits the columns problem, solution"):
        detect(["problem", "solution"], [], {})


def test_renames_decide_the_format():
    assert (
        detect(["problem", "solution"], [], {"query": "problem", "response": "solution"}).name
        == "query_response"
    )
    renames = {"question": "instruction", "answer": "output"}
    assert detect(["instruction", "output"], [], renames).name == "question_answer"


LLAMA_FACTORY = {
    "prompt": "question_text",
    "query": "ctx",
    "response": "gold",
    "system": "sys",
    "history": "hist",
}


@pytest.mark.parametrize(
    ("renames", "format", "understood"),
    [
        (
            LLAMA_FACTORY,
            "alpaca",
            {
                "instruction": "question_text",
                "input": "ctx",
                "output": "gold",
                "system": "sys",
                "history": "hist",
            },
        ),
        ({"prompt": "q", "response": "a"}, "alpaca", {"instruction": "q", "output": "a"}),
        (
            {"prompt": "instruction", "query": "input", "response": "output"},
            "alpaca",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            {"prompt": "q", "query": "c", "chosen": "a", "rejected": "b"},
            "preference_alpaca",
            {"instruction": "q", "input": "c", "chosen": "a", "rejected": "b"},
        ),
        (
            {"messages": "talk", "chosen": "a", "rejected": "b"},
            "preference_sharegpt",
            {"conversations": "talk", "chosen": "a", "rejected": "b"},
        ),
        # Where they make sense as our own names, they are these.
        ({"query": "ctx", "response": "gold"}, "query_response", {"query": "ctx", "response": "gold"}),
        ({"messages": "talk"}, "messages", {"messages": "talk"}),
    ],
)
def test_a_column_block_of_llama_factory_is_understood(renames, format, understood):
    assert detect(list(renames.values()), [], renames).name == format
    assert renames_for(FORMATS[format], renames) == understood


def test_a_column_of_the_instruction_beside_a_rename_of_ours_does_not_change_what_the_rename_means():
    assert (
        detect(["ctx", "gold", "instruction"], [], {"query": "ctx", "response": "gold"}).name
        == "query_response"
    )


def test_names_that_would_be_read_twice_are_not_understood():
    assert renames_for(FORMATS["alpaca"], {"prompt": "a", "instruction": "b", "output": "c"}) is None


def test_a_column_that_is_renamed_is_not_read_under_its_own_name_as_well():
    row = {"input": "Add 2 and 2.", "output": "4"}
    assert detect(list(row), [row], {"instruction": "input"}).name == "alpaca"
    example = FORMATS["alpaca"].parse(FORMATS["alpaca"].select(row, {"instruction": "input"}))
    assert example.messages[0]["content"] == "Add 2 and 2."


def test_a_missing_column_is_named_with_the_file_and_its_columns():
    with pytest.raises(
        CorpusError, match=r"x\.parquet: format `alpaca` needs the column answer; the file has instruction"
    ):
        check_columns(
            FORMATS["alpaca"], ["instruction"], config(columns={"output": "answer"}), "corpus", "x.parquet"
        )


def test_a_rename_that_no_format_reads_is_refused():
    assert "`promt` is read by no format; did you mean `prompt`?" in refusal({"promt": "question"})
    said = refusal({}, format="alpacca")
    assert "`alpacca` of source `corpus` is not known; did you mean `alpaca`?" in said


def test_a_rename_that_the_named_format_does_not_read_is_refused():
    said = refusal({"query": "ctx", "response": "gold", "prompt": "q"}, format="query_response")
    assert "`prompt` is not read by format `query_response`; expected query, response" in said


def test_renames_that_no_one_format_reads_are_refused():
    said = refusal({"question": "q", "answer": "a", "output": "o"})
    assert (
        "no format reads question, answer, output together; `question_answer` does not read `output`" in said
    )


def test_a_rename_of_a_column_that_is_nowhere_names_it_and_the_way_out():
    with pytest.raises(CorpusError) as caught:
        check_targets(
            config(columns={"instruction": "nope"}), {"corpus": ["instruction", "output"]}, "corpus"
        )
    assert "instruction: nope: source `corpus` has no column `nope`; it has instruction, output" in str(
        caught.value
    )
    assert "`alpaca` fits without a rename" in str(caught.value)


def test_renames_that_fit_one_of_two_sources_are_given_to_it():
    both = CorpusConfig(paths={"a": "x", "b": "y"}, columns={"query": "problem", "response": "solution"})
    columns_of = {"a": ["problem", "solution"], "b": ["question", "answer"]}
    check_targets(both, columns_of, "a")
    with pytest.raises(CorpusError) as caught:
        check_targets(both, columns_of, "b")
    assert "source `b` has no column `problem`" in str(caught.value)
    line = "corpus.sources: {a: {columns: {query: problem, response: solution}}} in place of corpus.columns"
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "format", "renames"),
    [
        (["Instruction", "Output"], "alpaca", "{instruction: Instruction, output: Output}"),
        (["instruction", "context", "response", "category"], "alpaca", "{output: response, input: context}"),
        (
            ["id", "System_Prompt", "Question", "Answer"],
            "question_answer",
            "{question: Question, answer: Answer, system: System_Prompt}",
        ),
        (["input", "output"], "prompt_completion", "{prompt: input, completion: output}"),
        (["Dialogue"], "messages", "{messages: Dialogue}"),
    ],
)
def test_the_line_of_recipe_for_the_nearest_format_makes_it_fit(columns, format, renames):
    assert remedy(columns, config(), "corpus") == f"the nearest is `{format}`, by corpus.columns: {renames}"
    assert detect(columns, [], yaml.safe_load(renames)).name == format


def test_the_line_of_recipe_keeps_the_renames_that_are_right():
    given = config(columns={"instruction": "frage"})
    line = "`alpaca`, by corpus.columns: {instruction: frage, output: Output}"
    assert remedy(["frage", "Output"], given, "corpus").endswith(line)


def test_the_line_of_recipe_of_one_of_several_sources_is_its_own():
    several = CorpusConfig(paths={"a": "x", "b": "y"})
    line = "corpus.sources: {b: {columns: {query: Query, response: Response}}}"
    assert remedy(["Query", "Response"], several, "b").endswith(line)


def test_columns_that_are_near_to_no_format_are_told_what_is_missing_or_what_is_known():
    assert "`question_answer`, which also needs question" in remedy(["answer"], config(), "corpus")
    assert "question_answer (question, answer)" in remedy(["a", "b"], config(), "corpus")
