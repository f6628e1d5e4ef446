"""The transformers engine on a real model and real rows, against plain transformers one row at a time."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.engine import TransformersEngine

pytestmark = pytest.mark.real

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "alpaca-5k"
ROWS = 64


def _alpaca(model):
    """Render real rows: chat template, response and end token scored."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = pq.read_table(sorted(CORPUS.glob("*.parquet"))[0]).to_pylist()
    for row in [row for row in rows if row["output"]][:ROWS]:
        message = [{"role": "user", "content": row["instruction"] + "\n" + row["input"]}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        response = tokenizer(row["output"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        scored = np.arange(len(prompt) + len(response)) >= len(prompt)
        yield TokenSequence(np.array(prompt + response, dtype=np.int32), scored)


def _loss(model, sequence):
    """Sum the loss of the scored tokens: the whole row, float32, no batch, no padding, no cache."""
    ids = torch.from_numpy(sequence.ids.astype(np.int64))
    with torch.inference_mode():
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].double()
    losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none").numpy()
    return losses[sequence.scored[1:]].sum()


@pytest.mark.skipif(not CORPUS.is_dir(), reason="needs ../shared/data/alpaca-5k")
def test_losses_and_ranking_of_real_rows_equal_one_row_at_a_time(smollm2):
    sequences = list(_alpaca(smollm2))
    assert len(sequences) == ROWS
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    expected = np.array([_loss(model, sequence) for sequence in sequences])
    logprobs = TransformersEngine(smollm2).logprobs(sequences)
    found = np.array([-row.astype(np.float64).sum() for row in logprobs])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    lengths = np.array([len(row) for row in logprobs])
    np.testing.assert_array_equal(np.argsort(found / lengths), np.argsort(expected / lengths))
