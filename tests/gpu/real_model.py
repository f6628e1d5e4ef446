"""A model whose logits are those of a language model, and sequences of English under it.

The model is that of the quickstart, or the folder that DAVIR_GPU_MODEL names.
"""

import os
from collections.abc import Iterator

import numpy as np

from davir_ray.logprobs.engine import TokenSequence
from tests.conftest import ROOT

MODEL = os.environ.get("DAVIR_GPU_MODEL", str(ROOT / "quickstart/models/smollm2-135m-instruct"))
SENTENCES = (
    "The river had risen in the night, and by morning the lower meadow was under water.",
    "To find the area of a triangle, multiply the base by the height and divide by two.",
    "She kept a list of every bird that she had seen since the spring, with the place and the hour.",
    "A loop that runs over the keys of a dictionary must not change the dictionary while it runs.",
    "Bread dough is ready when it has doubled in size and springs back slowly under a finger.",
    "Seven times eight is fifty-six, so seven times eighty is five hundred and sixty.",
    "The committee met twice, agreed on nothing, and asked for another report before the summer.",
    "Light from the nearest star takes a little more than four years to reach us.",
    "If the pump makes a grinding noise, switch it off, close the valve and look at the filter first.",
    "Nobody remembered who had planted the old pear tree, but everybody claimed a share of the pears.",
    "Translate the sentence into French, and keep the tense of the verb: the train was late again.",
    "Water boils at a lower temperature on a mountain, because the pressure of the air is lower there.",
)


def english(count: int, longest: int, seed: int = 0) -> list[TokenSequence]:
    """Return sequences of 8 to `longest` tokens: second halves scored, scattered turns, pairs that begin alike."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    random = np.random.default_rng(seed)
    return [_scored(ids, index) for index, ids in enumerate(_texts(tokenizer, random, count, longest))]


def _texts(tokenizer, random: np.random.Generator, count: int, longest: int) -> Iterator[np.ndarray]:
    before: np.ndarray | None = None
    for index in range(count):
        order = np.concatenate([random.permutation(len(SENTENCES)) for _ in range(1 + longest // 150)])
        ids = np.array(tokenizer(" ".join(SENTENCES[i] for i in order))["input_ids"], dtype=np.int32)
        ids = ids[: int(random.integers(8, longest))]
        if before is not None and index % 4 == 1:  # shares its first tokens with the one before it
            half = len(before) // 2
            ids = np.concatenate([before[:half], ids])[:longest]
        before = ids
        yield ids


def _scored(ids: np.ndarray, index: int) -> TokenSequence:
    position = np.arange(len(ids))
    scored = (position // 20) % 2 == 1 if index % 3 == 0 else position >= len(ids) // 2
    scored[0], scored[-1] = False, True
    return TokenSequence(ids, scored)


def one_row_at_a_time(sequences: list[TokenSequence]) -> list[np.ndarray]:
    """Return the scored tokens' log-probabilities by plain transformers on the CPU, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    values = []
    for one in sequences:
        ids = torch.from_numpy(one.ids.astype(np.int64))
        with torch.no_grad():
            logprobs = torch.log_softmax(plain(input_ids=ids[None]).logits[0, :-1].double(), -1)
        values.append(logprobs[range(len(ids) - 1), ids[1:]].numpy()[one.scored[1:]])
    return values


def gaps(found, expected) -> np.ndarray:
    """Return how far apart two answers are, token by token, in nats."""
    assert [len(one) for one in found] == [len(one) for one in expected]
    return np.concatenate([np.abs(a - b) for a, b in zip(found, expected, strict=True)])
