"""vLLM's CPU build against plain transformers: float32, one row at a time, no padding."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]

ALPACA = ROOT.parent / "shared" / "data" / "alpaca-5k"
MAX_LENGTH = 64
TOLERANCE = 5e-4
"""Nats a token, for vLLM sums in other orders than torch; 6e-5 was the worst of these rows on one machine."""


def instructions() -> list[tuple[str, str]]:
    """64 rows of Alpaca, or of made-up arithmetic where it is not at hand."""
    if not ALPACA.exists():
        return [(f"What is {n} plus {n * 7}?", f"The sum of {n} and {n * 7} is {n * 8}.") for n in range(64)]
    import pyarrow.parquet

    path = sorted(ALPACA.glob("*.parquet"))[0]
    rows = pyarrow.parquet.read_table(path).slice(0, 400).to_pylist()
    pairs = [(row["instruction"], row["output"]) for row in rows if row["output"] and not row["input"]]
    return pairs[:64]


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Prompts and answers of 64 rows; then a single scored token, and turns scattered over a row."""
    sequences = []
    for prompt, answer in instructions():
        head = tokenizer(f"Question: {prompt}\nAnswer:")["input_ids"][:20]
        tail = tokenizer(f" {answer}")["input_ids"][: 6 + len(sequences) % 12]
        sequences.append((head + tail, [False] * len(head) + [True] * len(tail)))
    ids = sequences[0][0]
    sequences.append((ids, [False] * (len(ids) - 1) + [True]))
    sequences.append((ids[:2], [False, True]))
    sequences.append((ids, [i in (1, 4, 5, 9) for i in range(len(ids))]))
    sequences.append(((ids * 9)[:MAX_LENGTH], [i % 7 in (2, 3) for i in range(MAX_LENGTH)]))
    return sequences


@pytest.fixture(scope="module")
def adapter(smollm2, tmp_path_factory) -> str:
    """A LoRA with weights that are not zero, over attention alone: the head is left as it is."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft = get_peft_model(model, config)
    for name, weight in peft.named_parameters():
        if "lora_" in name:
            weight.data.mul_(0.1)
    peft.save_pretrained(folder)
    return str(folder)


def plain(model_path: str, rows, adapter_path: str | None = None) -> list[np.ndarray]:
    """The yardstick: nothing of davir_ray in it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    if adapter_path:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter_path).eval()
    values = []
    for ids, scored in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        tokens = torch.log_softmax(logits.double(), -1)[range(len(ids) - 1), ids[1:]]
        values.append(tokens.numpy()[np.array(scored[1:])])
    return values


@pytest.fixture(scope="module")
def measured(smollm2, adapter, rows, tmp_path_factory) -> dict[str, list[np.ndarray]]:
    """All that vLLM measures here, in one start of a process: base, base in another order, reference."""
    folder = tmp_path_factory.mktemp("vllm")
    shared = {"max_length": MAX_LENGTH, "too_long": False}
    jobs = {
        "base": {"model": smollm2, "adapter": None, "sequences": rows, **shared, "too_long": True},
        "reversed": {"model": smollm2, "adapter": None, "sequences": rows[:12][::-1], **shared},
        "reference": {"model": smollm2, "adapter": adapter, "sequences": rows[:4] + rows[64:], **shared},
    }
    for name, job in jobs.items():
        job["out"] = str(folder / name)
    (folder / "jobs.json").write_text(json.dumps(list(jobs.values())))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "VLLM_DP_SIZE": "2"}
    command = [sys.executable, "-m", "tests.real.vllm_child", str(folder / "jobs.json")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    names = [*jobs, *(f"{name}.ranks" for name in jobs)]
    found = {name: list(np.load(folder / f"{name}.npz").values()) for name in names}
    found["refused"] = Path(jobs["base"]["out"] + ".refused").read_text()
    return found


def worst(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    assert [len(one) for one in found] == [len(one) for one in expected]
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


@pytest.fixture(scope="module")
def base(smollm2, rows) -> list[np.ndarray]:
    return plain(smollm2, rows)


def test_every_token_agrees_with_plain_transformers(measured, base):
    gap = worst(measured["base"], base)
    print(f"largest difference of a token: {gap:.2e} nats")
    assert gap < TOLERANCE


@pytest.mark.parametrize("job", ["base", "reference"])
def test_ranks_agree_with_those_of_the_transformers_engine(measured, smollm2, adapter, rows, job):
    from davir_ray.logprobs.engine import TokenSequence
    from davir_ray.logprobs.hf.engine import TransformersEngine

    engine = TransformersEngine(smollm2, adapter_path=adapter if job == "reference" else None)
    sequences = [TokenSequence(np.array(i, np.int32), np.array(s, bool)) for i, s in rows]
    sequences = sequences if job == "base" else sequences[:4] + sequences[64:]
    expected = np.concatenate([one.rank for one in engine.token_values(sequences, frozenset({"rank"}))])
    found = np.concatenate(measured[f"{job}.ranks"])
    gap = np.abs(found.astype(int) - expected)
    print(f"{(gap > 0).mean():.4f} of {len(gap)} ranks differ, by {gap.max()} at most")
    assert found.dtype == np.uint8
    assert 0.2 < (found == 1).mean() < 0.9, "the rows are no test of ranks"
    assert gap.max() <= 2  # neighbours that are nearer than the two engines' rounding
    assert (gap > 0).mean() < 0.02


def test_losses_agree_and_rank_rows_alike(measured, base):
    found = np.array([-one.sum(dtype=np.float64) for one in measured["base"][:64]])
    expected = np.array([-one.sum() for one in base[:64]])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    means = np.array([len(one) for one in base[:64]])
    assert spearman(found / means, expected / means) > 0.999


def test_the_order_of_a_batch_does_not_matter(measured):
    assert worst(measured["reversed"][::-1], measured["base"][:12]) < TOLERANCE


def test_scattered_turns_and_single_tokens_are_picked_from_the_right_places(measured, base):
    assert [len(one) for one in measured["base"][64:]] == [1, 1, 4, len(base[67])]
    assert worst(measured["base"][64:], base[64:]) < TOLERANCE


def test_an_adapter_is_measured_over_its_base(measured, smollm2, adapter, rows, base):
    expected = plain(smollm2, rows[:4] + rows[64:], adapter)
    assert worst(expected, base[:4] + base[64:]) > 0.01, "the adapter changes nothing"
    assert worst(measured["reference"], expected) < TOLERANCE


def test_a_sequence_that_is_too_long_is_refused_and_the_engine_lives(measured):
    assert f"{MAX_LENGTH + 1} tokens, but this engine takes {MAX_LENGTH}" in measured["refused"]
