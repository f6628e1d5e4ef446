"""Characters that count -> tokens that count.

T tokens. A token counts for an answer when it holds a character of it that is not white space, or begins
inside it. So ` Yes` counts where the template wrote the space and the answer the word (the model has to write
that token to answer), and so does a break that merges the answer's last newline with the template's next.
A token that holds printed characters of both is an error: no mask would be right.
"""

import numpy as np
from numpy.typing import NDArray

from davir_ray.errors import RowError
from davir_ray.schema import Status


def covered(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the characters [T, 2] that each token stands for.

    Byte-level tokenizers leave the space before a word out of a token's offsets: characters that no token
    claims go to the token that follows them.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    before = np.maximum.accumulate(np.concatenate([[0], ends[:-1]]))
    return np.stack([np.minimum(starts, before), ends], axis=1)


def tokens_of(text: str, chars: NDArray[np.int64], start: int, end: int) -> tuple[int, int]:
    """Return the tokens [first, stop) of the answer whose characters are [start, end). Raises `RowError`."""
    first = int(np.searchsorted(chars[:, 0], start, side="left"))
    stop = int(np.searchsorted(chars[:, 0], end, side="left"))
    while first > 0 and chars[first - 1, 1] > start and text[start : min(chars[first - 1, 1], end)].strip():
        first -= 1
        _check_joint(text, int(chars[first, 0]), start)
    while stop > first and text[end : chars[stop - 1, 1]].strip():
        if text[max(chars[stop - 1, 0], start) : end].strip():
            _check_joint(text, end, int(chars[stop - 1, 1]))
        stop -= 1
    return first, stop


def _check_joint(text: str, start: int, end: int) -> None:
    if outside := text[start:end].strip():
        reason = f"one token holds both an answer's end and {outside!r} of the template beside it"
        raise RowError(Status.TEMPLATE_ERROR, reason)
