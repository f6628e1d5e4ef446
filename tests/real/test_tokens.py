"""The real SmolLM2 tokenizer over real rows, against plain transformers and string arithmetic."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example
from davir_ray.errors import RowError
from davir_ray.schema import Status, View
from davir_ray.tokens.agreement import check_agreement
from davir_ray.tokens.tokenizer import load_tokenizer
from davir_ray.tokens.views import sequences

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
VIEWS = [View.RESPONSE, View.RESPONSE_ALONE]
END = "<|im_end|>"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")]


def rows(name: str, limit: int) -> list[dict]:
    files = sorted((DATA / name).rglob("*.parquet"))
    found = [row for file in files for row in pq.read_table(file).to_pylist()[:limit]]
    return found[:limit]


def alpaca(limit: int) -> list[tuple[str, str]]:
    return [
        (row["instruction"] + (f"\n{row['input']}" if row["input"] else ""), row["output"])
        for row in rows("alpaca-5k", limit)
    ]


def gsm8k(limit: int) -> list[tuple[str, str]]:
    return [(row["question"], row["answer"]) for row in rows("gsm8k", limit)]


def transcript(text: str) -> tuple[dict, ...]:
    messages = []
    for part in text.split("\n\nHuman:")[1:]:
        human, *answers = part.split("\n\nAssistant:")
        messages.append({"role": "user", "content": human.strip()})
        messages += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return tuple(messages)


def example(prompt: str, answer: str) -> Example:
    return Example(messages=({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}))


@pytest.mark.parametrize("read", [alpaca, gsm8k])
@pytest.mark.parametrize("template", ["chat", "alpaca", "plain"])
def test_what_counts_is_the_answer_and_its_end(smollm2, read, template):
    config = TokensConfig(template=template, max_length=8192)
    tokenizer = load_tokenizer(smollm2, config)
    empty = 0
    for prompt, answer in read(1000):
        if not answer.strip():
            with pytest.raises(RowError) as caught:
                sequences(example(prompt, answer), tokenizer, config, VIEWS)
            assert caught.value.status == Status.EMPTY
            empty += 1
            continue
        made, alone = sequences(example(prompt, answer), tokenizer, config, VIEWS)
        text = tokenizer.hf.decode(made.ids[made.scored])
        assert text == answer + END
        assert np.array_equal(alone.ids[alone.scored], made.ids[made.scored])
    assert empty <= 2


def test_ids_are_those_of_transformers(smollm2):
    config = TokensConfig(max_length=8192)
    tokenizer = load_tokenizer(smollm2, config)
    for prompt, answer in alpaca(300):
        if answer.strip():
            row = example(prompt, answer)
            (made,) = sequences(row, tokenizer, config, [View.RESPONSE])
            expected = tokenizer.hf.apply_chat_template(list(row.messages), tokenize=True, return_dict=False)
            assert made.ids.tolist() == expected[:-1]
            assert tokenizer.hf.decode(expected[-1:]) == "\n"


@pytest.mark.parametrize("score_on", ["all_assistant", "last_assistant", "completion"])
def test_the_turns_of_real_transcripts_count(smollm2, score_on):
    config = TokensConfig(max_length=8192, score_on=score_on)
    tokenizer = load_tokenizer(smollm2, config)
    compared = 0
    for row in rows("hh-helpful", 300):
        messages = transcript(row["chosen"])
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        spoken = answers if score_on == "all_assistant" else answers[-1:]
        if not any(spoken) or messages[-1]["role"] != "assistant":
            continue
        (made,) = sequences(Example(messages=messages), tokenizer, config, [View.RESPONSE])
        assert tokenizer.hf.decode(made.ids[made.scored]) == "".join(text + END for text in spoken)
        compared += 1
    assert compared > 200


def test_a_tokenizer_agrees_with_a_copy_of_itself_that_pads_another_way(smollm2, tmp_path):
    config = TokensConfig()
    base, other = load_tokenizer(smollm2, config), load_tokenizer(smollm2, config)
    other.hf.add_special_tokens({"pad_token": "<pad>"})
    other.hf.save_pretrained(tmp_path)
    reference = load_tokenizer(str(tmp_path), config)
    check_agreement(base, reference, [example(*pair) for pair in alpaca(50)], config)
