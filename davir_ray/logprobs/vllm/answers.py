"""Read log-probabilities and ranks out of vLLM's answers. An answer that lacks any is None, never zero.

Shapes: T tokens in a sequence, S of them scored, f the first scored position.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from davir_ray.errors import EngineError
from davir_ray.logprobs.engine import MOST_RANK, TokenSequence, TokenValues, Wanted


def check_wanted(wanted: Wanted) -> None:
    """Check that vLLM's answers hold what is wanted. Raises `EngineError` for entropies."""
    if "entropy" in wanted:
        raise EngineError(
            "engine.type: vllm gives no entropies of the next token; engine.type: transformers gives entropies"
        )


def cut_tail(sequence: TokenSequence) -> TokenSequence:
    """Drop the tokens after the last scored one: a causal model's answer does not depend on them."""
    end = int(np.flatnonzero(sequence.scored)[-1]) + 1
    return TokenSequence(sequence.ids[:end], sequence.scored[:end])


def first_scored(sequence: TokenSequence) -> int:
    """Return f."""
    return int(np.argmax(sequence.scored))


def read_asked(answer: Any, sequence: TokenSequence) -> TokenValues | None:
    """Read `prompt_token_id_logprobs`: float32 [T - f, 1], from the first scored position on."""
    first = first_scored(sequence)
    values = answer.prompt_token_id_logprobs
    if values is None or values.shape != (len(sequence.ids) - first, 1):
        return None
    return TokenValues(np.asarray(values[:, 0][sequence.scored[first:]], dtype=np.float32), None, None)


def read_flat(answer: Any, sequence: TokenSequence, wanted: Wanted) -> TokenValues | None:
    """Read `prompt_logprobs`, a `FlatLogprobs`: position 0 is empty, each other begins with its own token.

    Its lists are read directly: indexing or iterating it builds a dict a token.
    """
    flat = answer.prompt_logprobs
    if flat is None or len(flat.start_indices) != len(sequence.ids) or flat.end_indices[0] != 0:
        return None
    starts = np.asarray(flat.start_indices[1:], dtype=np.int64)
    if len(flat.logprobs) == 0 or starts[-1] >= len(flat.logprobs):
        return None
    if not np.array_equal(np.asarray(flat.token_ids)[starts], sequence.ids[1:]):
        return None
    places = starts[sequence.scored[1:]]
    ranks = [flat.ranks[place] for place in places.tolist()] if "rank" in wanted else []
    if None in ranks:
        return None
    return TokenValues(
        logprobs=np.asarray(flat.logprobs, dtype=np.float32)[places],
        rank=_clipped(ranks) if "rank" in wanted else None,
        entropy=None,
    )


def _clipped(ranks: list[int]) -> NDArray[np.uint8]:
    """Clip ranks; vLLM counts a token's equals as larger, which in float32 hardly ever are there."""
    return np.minimum(np.array(ranks, dtype=np.int64), MOST_RANK).astype(np.uint8)
