"""How much vLLM may take at once, so that memory it does not plan for cannot kill it.

The logits of prompts need room outside of vLLM's share of the device: it does not count them. Nor has it to find out
how large a key-value cache the device can hold, for which it would need the device to itself: rows are read once, so
that a few steps' tokens are enough.
"""

import time
from collections.abc import Callable

from davir_ray.errors import EngineError

LOGIT_BYTES = 12
"""A token and vocabulary entry: float32 logits, their gathered or cut copy, their float32 log-softmax."""
HEAD_CHUNK = 1024
"""Rows that the V2 runner puts through the head at once, whatever the sequences are."""
FEWEST_TOKENS = 128
CACHE_BLOCK = 128


def batch_tokens(*, vocab_size: int, max_length: int, spare_bytes: int, ceiling: int) -> int:
    """Return the most tokens a step, at most `ceiling`, whose prompt logits fit into `spare_bytes`.

    The V1 runner holds the logits of one sequence's part of a step at a time, the V2 runner those of
    `HEAD_CHUNK` rows. Raises `EngineError` where not even a small step fits.
    """
    rows = spare_bytes // (vocab_size * LOGIT_BYTES)
    if rows >= max(max_length, HEAD_CHUNK):
        return ceiling
    if rows < FEWEST_TOKENS:
        raise EngineError(
            f"the log-probabilities of {FEWEST_TOKENS} tokens over {vocab_size} entries need "
            f"{FEWEST_TOKENS * vocab_size * LOGIT_BYTES / 2**20:.0f} MiB beside vLLM's share of the memory, "
            f"and there are {spare_bytes / 2**20:.0f}: lower engine.gpu_memory_utilization"
        )
    return min(ceiling, rows // FEWEST_TOKENS * FEWEST_TOKENS)


def spare_gpu_bytes(total_bytes: int, utilization: float) -> int:
    """Return what prompt logits may take of a GPU: half of what vLLM leaves, the rest is for others."""
    return int(total_bytes * (1 - utilization) / 2)


def cache_bytes(
    *, layers: int, heads: int, head_size: int, item_bytes: int, max_length: int, step_tokens: int
) -> int:
    """Return the size of a small key-value cache: four steps' tokens, and two of the longest sequences.

    heads: of keys and values, on one device.
    """
    tokens = max(4 * step_tokens, 2 * (max_length + 1))
    blocks = -(-tokens // CACHE_BLOCK) + 1
    return 2 * layers * heads * head_size * item_bytes * blocks * CACHE_BLOCK


def await_room(free: Callable[[], float], wanted: float, seconds: float, pause: float = 1.0) -> None:
    """Wait until a share `wanted` of a device's memory is free, at most so many seconds.

    free: the share that is free now. A process that has just ended gives its memory back in its own time. What is not
    free after that, vLLM tells.
    """
    until = time.monotonic() + seconds
    while free() < wanted and time.monotonic() < until:
        time.sleep(pause)
