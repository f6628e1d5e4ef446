"""vLLM's CPU build against plain transformers: float32, one row at a time, no padding."""

import importlib.util

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.real.vllm_process import in_child

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
def measured(smollm2, rows, tmp_path_factory) -> dict[str, list[np.ndarray]]:
    """All that vLLM measures here, in one process and with one engine: the rows, and some in another order."""
    folder = tmp_path_factory.mktemp("vllm")
    calls = {"base": rows, "reversed": rows[:12][::-1]}
    job = {
        "model": smollm2,
        "adapter": None,
        "max_length": MAX_LENGTH,
        "calls": {str(folder / name): sequences for name, sequences in calls.items()},
        "refused": str(folder / "refused"),
    }
    in_child("vllm_child", [job], folder, {"VLLM_DP_SIZE": "2"})
    names = [*calls, *(f"{name}.ranks" for name in calls)]
    found = {name: list(np.load(folder / f"{name}.npz").values()) for name in names}
    found["refused"] = (folder / "refused").read_text()
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


def test_ranks_agree_with_those_of_the_transformers_engine(measured, smollm2, rows):
    from davir_ray.logprobs.engine import TokenSequence
    from davir_ray.logprobs.hf.engine import TransformersEngine

    engine = TransformersEngine(smollm2)
    sequences = [TokenSequence(np.array(i, np.int32), np.array(s, bool)) for i, s in rows]
    expected = np.concatenate([one.rank for one in engine.token_values(sequences, frozenset({"rank"}))])
    found = np.concatenate(measured["base.ranks"])
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


def test_a_sequence_that_is_too_long_is_refused_and_the_engine_lives(measured):
    assert (
        f"{MAX_LENGTH + 1} tokens, but this engine takes {MAX_LENGTH}" in measured["refused"].splitlines()[0]
    )


def test_a_start_that_fails_is_told_in_one_line_with_the_model(measured, smollm2):
    _, told = measured["refused"].splitlines()
    assert told.startswith(f"vLLM could not load {smollm2}: ")
    assert "memory" in told
