"""The whole job on real rows and a real model, against plain transformers: one row at a time, float32, no padding."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer

from davir_ray import pipeline
from davir_ray.recipe import parse_recipe

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "alpaca-5k"
ROWS = 32
pytestmark = [
    pytest.mark.real,
    pytest.mark.ray,
    pytest.mark.skipif(not CORPUS.exists(), reason="no shared data"),
]


@pytest.fixture(scope="module")
def reference(smollm2, tmp_path_factory) -> str:
    """The base with noise on its weights: another model with the same tokenizer."""
    folder = tmp_path_factory.mktemp("reference")
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * parameter.std() * noise)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(Path(smollm2) / name, folder / name)
    return str(folder)


def plain_losses(folder: str, rows: list[dict]) -> dict[str, float]:
    """Sum the loss of each row's answer and end token, written without anything of davir_ray."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = {}
    for row in rows:
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        user = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["output"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1]
        logprobs = torch.log_softmax(logits.double(), dim=-1)
        losses[row["instruction"] + row["input"]] = -float(
            logprobs[torch.arange(len(answer)), torch.tensor(answer)].sum()
        )
    return losses


@pytest.mark.usefixtures("ray_cluster")
def test_scores_and_their_order_agree_with_plain_transformers(tmp_path, smollm2, reference):
    tree = {
        "corpus": {"paths": f"{CORPUS}/*.parquet", "limit": ROWS + 2},
        "models": {"base": smollm2, "reference": reference},
        "engine": {"type": "transformers"},
        "select": [{"type": "fraction", "fraction": 1.0}],
        "store": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
    }
    record = pipeline.score(parse_recipe(tree, "real"), "real")
    rows = pq.read_table(record.coreset["parquet"]).to_pylist()
    assert len(rows) >= ROWS
    scored = {row["rank"]: row for row in pq.read_table(record.scored).to_pylist() if row["rank"]}
    base, tuned = plain_losses(smollm2, rows), plain_losses(reference, rows)
    expected = []
    for row in rows:
        key = row["instruction"] + row["input"]
        mine = scored[row["davir_rank"]]
        assert mine["base_loss"] == pytest.approx(base[key], rel=1e-4)
        assert mine["reference_loss"] == pytest.approx(tuned[key], rel=1e-4)
        expected.append((base[key] - tuned[key]) / base[key])
    assert np.argsort(-np.array(expected), kind="stable").tolist() == list(range(len(rows)))
    assert spearmanr(expected, [row["davir_score"] for row in rows]).statistic == pytest.approx(1.0)
